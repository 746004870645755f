"""Where the photos of each style come from, what the user chose for it, and what was last taken in.

```
sources/<style>.json      source, subject, the configuration of its runs
sources/state/<style>.json
sources/state/removed/<style>.json   somebody removed it: photos that lie there do not bring it back
```
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.intake.objects import is_url
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.files import Files, read_json, slug

Step = Literal["catalog", "features", "evaluation"]
"""What is remembered of a style: the state of the photos (`listing_state`) that its catalog and its description were
made from, and the state of the settings (`stages.retraining.settings_state`) with which it was evaluated."""


class Sources:
    """The registered styles. A source inside the data root is kept relative to it, so that the root can be moved."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def register(self, style: str, subject: str, source: SourceSpec) -> None:
        """Remember where a style's photos come from and what prompts call it."""
        wanted = {"subject": subject, "source": self._portable(source).to_json()}
        registered = read_json(self.path(style), "") if self.path(style).exists() else {}
        if wanted.items() <= registered.items():
            return
        with self._changing(style):
            registered = read_json(self.path(style), "") if self.path(style).exists() else {"config": {}}
            self._files.write_json(self.path(style), registered | wanted)

    def styles(self) -> list[str]:
        """Every style that has a source."""
        return sorted(path.stem for path in self._files.glob(self._files.inside("sources"), "*.json"))

    def source(self, style: str) -> SourceSpec:
        """Where a style's photos come from. Raises StorageError for a style nobody registered."""
        spec = SourceSpec.from_json(self._known(style)["source"])
        return spec if is_url(spec.path) else replace(spec, path=str(self._files.root / spec.path))

    def subject(self, style: str) -> str:
        """What prompts call a style, for example "ethnic wear"."""
        return str(self._known(style)["subject"])

    def config(self, style: str) -> dict[str, Any]:
        """Op → its configuration, as the user chose it for the style's runs; empty where the defaults do."""
        return dict(self._known(style)["config"])

    def approval(self, style: str) -> str:
        """Whether somebody must approve a version of the style, as the user chose it: `none` or `required`."""
        registered = read_json(self.path(style), "") if self.path(style).exists() else {}
        return str(registered.get("config", {}).get("published_model", {}).get("approval", "none"))

    def run_config(self, style: str) -> dict[str, Any]:
        """The same as Dagster's run configuration."""
        ops = {op: {"config": values} for op, values in self.config(style).items()}
        return {"ops": ops} if ops else {}

    def choose(self, style: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
        """Change the configuration of a style's runs; `change` is given the one so far. Returns what it is then.

        Nothing is written where `change` raises.
        """
        with self._changing(style):
            registered = self._known(style)
            chosen = dict(change(dict(registered["config"])))
            if chosen != registered["config"]:
                self._files.write_json(self.path(style), registered | {"config": chosen})
        return chosen

    def done_with(self, style: str, step: Step) -> str | None:
        """The state that a step of a style was last finished with; None where it never was."""
        return self._state(style).get(step)

    def mark(self, style: str, step: Step, state: str) -> None:
        """Remember the state that a step of a style was finished with."""
        with self._changing(style):
            self._files.write_json(self._state_path(style), self._state(style) | {step: state})

    def removed(self) -> set[str]:
        """The styles that somebody removed and nobody ran since."""
        return {path.stem for path in self._files.glob(self._files.inside("sources", "state", "removed"), "*.json")}

    def welcome(self, style: str) -> None:
        """Let a style that was removed come back."""
        self._files.remove(self._removed_path(style))

    def forget(self, style: str) -> None:
        """Remove a style, for good. Raises StorageError for one that nobody registered."""
        with self._changing(style):
            self._known(style)
            self._files.write_json(self._removed_path(style), {})
            self._files.remove(self._state_path(style))
            self._files.remove(self.path(style))

    def path(self, style: str) -> Path:
        """The file that registers a style."""
        return self._files.now(self._files.inside("sources", f"{slug(style)}.json"))

    def _changing(self, style: str) -> AbstractContextManager[None]:
        return self._files.changing(f"sources/{slug(style)}.json")

    def _state(self, style: str) -> dict[str, str]:
        path = self._state_path(style)
        return read_json(path, "") if path.exists() else {}

    def _state_path(self, style: str) -> Path:
        return self._files.now(self._files.inside("sources", "state", f"{slug(style)}.json"))

    def _removed_path(self, style: str) -> Path:
        return self._files.now(self._files.inside("sources", "state", "removed", f"{slug(style)}.json"))

    def _portable(self, source: SourceSpec) -> SourceSpec:
        path = Path(source.path)
        try:
            return replace(source, path=str(path.relative_to(self._files.root)))
        except ValueError:
            return source

    def _known(self, style: str) -> dict[str, Any]:
        path = self.path(style)
        if not path.exists():
            names = ", ".join(self.styles()) or "none yet"
            raise StorageError(f"style {style!r} is not in the catalog (known: {names}): run it once with --source")
        values = read_json(path, f"{path} has just been removed: run {style!r} once with --source")
        if not {"subject", "source", "config"} <= values.keys() or not isinstance(json.loads(values["source"]), dict):
            raise StorageError(f"{path} is damaged: delete it and run {style!r} once with --source")
        return values
