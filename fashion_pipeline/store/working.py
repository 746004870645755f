"""Who works on what: locks of styles, runs, commands and cards, on this machine or among all that share a root."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fashion_pipeline.store.storage.files import Files, slug
from fashion_pipeline.store.storage.locks import is_held


class Locks:
    """The locks of a data root."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def run(self, run: str) -> Path:
        """The file that the process of a run holds while it lives."""
        return self._files.inside("locks", "runs", run)

    def runs(self) -> list[Path]:
        """The lock of each run that lives, or has ended since somebody last looked."""
        return sorted(self._files.inside("locks", "runs").glob("*"))

    def command(self, name: str) -> Path:
        """The file that a command holds while it follows its runs."""
        return self._files.inside("locks", "commands", name)

    def style(self, style: str) -> Path:
        """The file that whoever works on a style holds."""
        return self._files.inside("locks", "styles", slug(style))

    def card(self, card: int) -> Path:
        """The file that the run which has a graphics card holds, where there are several."""
        return self._files.inside("locks", "cards", str(card))

    def working_on(self, style: str, who: str, wait: float | None = 0.0) -> AbstractContextManager[None]:
        """Held by whoever works on a style, on this machine or another one that shares the root.

        `who` and `wait` as in `locks.holding`. Raises LockedError.
        """
        return self._files.alone(f"styles/{slug(style)}", f"style {style!r}", who, wait)

    def claiming(self, style: str, who: str) -> AbstractContextManager[None]:
        """Held by a command from before it starts a run of a style until that has ended. Raises LockedError."""
        return self._files.alone(f"claims/{slug(style)}", f"style {style!r}", who)

    def claim(self, style: str) -> Path:
        """The file that a command holds which is about to run a style."""
        return self._files.inside("locks", "claims", slug(style))

    def one_catalog_at_a_time(self, wait: float | None = None) -> AbstractContextManager[None]:
        """Held while a catalog is built: two at once would put near-duplicates into two splits."""
        return self._files.alone("catalog", "the catalog", " ".join(sys.argv)[:200], wait)

    @contextmanager
    def following(self, command: str) -> Iterator[None]:
        """Held by a command while it follows its runs."""
        lock = self.command(command)
        with self._files.alone(f"commands/{command}", "this command", "a command", once=True):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def follows(self, command: str) -> bool:
        """Whether a command lives, on this machine or another one that shares the root."""
        return self._is_held(self.command(command), f"commands/{command}")

    def running(self, run: str, who: str) -> AbstractContextManager[None]:
        """Held by the process of a run while it lives."""
        return self._files.alone(f"runs/{run}", f"run {run}", who, once=True)

    def lives(self, run: str) -> bool:
        """Whether the process of a run lives, on this machine or another one that shares the root."""
        return self._is_held(self.run(run), f"runs/{run}")

    def _is_held(self, lock: Path, lease: str) -> bool:
        remote = self._files.remote
        return is_held(lock) if lock.exists() or remote is None else remote.is_held(lease)
