"""The settings file of a data root, `settings.toml`: written by people and by the command, which keeps comments."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomlkit
from pydantic import BaseModel, ValidationError

from fashion_pipeline.core.automation.preferences import Alerts, Preferences, Retraining, StyleRule, Tracking
from fashion_pipeline.core.training.recipe import explained
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.files import Files, slug

T = TypeVar("T", bound=BaseModel)

RETRAINING, ALERTS, TRACKING, STYLES = "retraining", "alerts", "tracking", "styles"


class PreferencesFile:
    """Reads and changes it."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @property
    def path(self) -> Path:
        """Where it lies, whether it is there or not."""
        return self._files.now(self._files.inside("settings.toml"))

    def read(self) -> Preferences:
        """What it says; the defaults where there is none. Raises StorageError that names file, section and field."""
        path = self.path
        return self._checked(self._text()) if path.exists() else Preferences()

    def change(self, section: str, style: str | None = None, **values: Any) -> Preferences:
        """Set fields of a section, or of that of a style instead; returns what the file says then.

        Raises StorageError for a value that cannot be, before anything is written.
        """
        with self._files.changing("settings.toml"):
            return self._change(section, style, values)

    def _change(self, section: str, style: str | None, values: Mapping[str, Any]) -> Preferences:
        text = self._text() if self.path.exists() else ""
        self._checked(text)
        document: Any = tomlkit.parse(text)
        if style is None:
            table = document.setdefault(section, tomlkit.table())
        else:
            styles = document.setdefault(STYLES, tomlkit.table(is_super_table=True))
            table = styles.setdefault(slug(style), tomlkit.table())
        table.update(values)
        fresh = tomlkit.dumps(document)
        checked = self._checked(fresh)
        self._files.place(self.path, lambda temporary: temporary.write_text(fresh, encoding="utf-8"))
        return checked

    def _text(self) -> str:
        """What it says; some editors mark UTF-8 by three bytes. Raises StorageError."""
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise StorageError(f"{self.path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error

    def _checked(self, text: str) -> Preferences:
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise StorageError(f"{self.path}: not valid TOML: {error}") from error
        if unknown := sorted(data.keys() - Preferences.model_fields.keys()):
            raise StorageError(
                f"{self.path}: section [{unknown[0]}] is not known: choose among {', '.join(Preferences.model_fields)}"
            )
        styles = self._table(data.get(STYLES, {}), STYLES)
        return Preferences(
            retraining=self._section(Retraining, data.get(RETRAINING, {}), RETRAINING),
            alerts=self._section(Alerts, data.get(ALERTS, {}), ALERTS),
            tracking=self._section(Tracking, data.get(TRACKING, {}), TRACKING),
            styles={name: self._section(StyleRule, values, f"{STYLES}.{name}") for name, values in styles.items()},
        )

    def _section(self, kind: type[T], values: object, name: str) -> T:
        try:
            return kind(**self._table(values, name))
        except ValidationError as error:
            raise StorageError(f"{self.path}: [{name}] {explained(kind, error)}") from error

    def _table(self, values: object, name: str) -> Mapping[str, Any]:
        if not isinstance(values, dict):
            raise StorageError(f"{self.path}: {name} is {values!r}: it must be a section [{name}]")
        return values
