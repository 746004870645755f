"""Everything under one data root: the one place that knows where things lie.

```
layout.json                          the version of this layout
sources/<style>.json                 where the photos of a style come from, and what the user chose for it
records/<kind>/style=<style>/…       what the runs made, by content; `latest.json` points at the newest
embeddings/<table>/style=<style>/…   of photos and samples; they only grow
images/<first two digits>/<id>.png   generated images, by content
work/training/<style>/<key>/         checkpoints of a training under way
work/cache/<style>/                  latents and text embeddings, shared by the style's trainings
published/<style>/<version>/         and champion.json beside the versions
pages/                               of all styles, and of one in another language; made anew when asked for
withdrawn.json                       photos that are never taken in again
weights/<style>/<hash>/<hash>/       evaluations of LoRA files that were trained elsewhere
machine/                             how this machine computes fastest
locks/                               who is at work on what
remote.json                          only of a copy: the root in object storage that it is a copy of
raw/<style>/                         optional: a folder for photos that the sensor watches
dagster_home/                        the Dagster instance (SQLite)
```
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa

from fashion_pipeline.core import tables
from fashion_pipeline.core.catalog.fingerprints import Fingerprints, Gallery
from fashion_pipeline.core.rows import Photo
from fashion_pipeline.intake.assembling import HOMES, Known, known_prints
from fashion_pipeline.intake.photos import located
from fashion_pipeline.store.choices.preferences import PreferencesFile
from fashion_pipeline.store.choices.sources import Sources
from fashion_pipeline.store.choices.withdrawals import Withdrawals
from fashion_pipeline.store.embeddings import PHOTOS, Embeddings
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.pictures import Pictures
from fashion_pipeline.store.queries import query
from fashion_pipeline.store.records import KINDS, Record, Records
from fashion_pipeline.store.samples import SampleImages
from fashion_pipeline.store.storage.files import Files, slug
from fashion_pipeline.store.storage.locks import is_held
from fashion_pipeline.store.versions import Versions

_OF_A_PHOTO = ("id", "product_group", "split", "product", "path", "caption", "attributes")


class Store:
    """A data root. Raises StorageError if another version of the program laid it out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = Files(root)
        self.preferences = PreferencesFile(self.files)
        self.sources = Sources(self.files)
        self.records = Records(self.files)
        self.features = Embeddings(self.files, PHOTOS)
        self.sample_features = Embeddings(self.files, "sample_features")
        self.samples = SampleImages(self.files)
        self.pictures = Pictures(self.files)
        self.versions = Versions(self.files)
        self.withdrawals = Withdrawals(self.files)
        self._newest_read: tuple[Path, str, tuple[Photo, ...]] | None = None

    # --- photos

    def photos(self, catalog: Record) -> Sequence[Photo]:
        """The photos of a catalog, where they lie now; those of one catalog after the other are read once."""
        base = self.sources.source(catalog.style).base
        read = self._newest_read
        if read is None or read[:2] != (catalog.folder, base):
            read = self._newest_read = (catalog.folder, base, tuple(self._read_photos(catalog, base)))
        return read[2]

    def _read_photos(self, catalog: Record, base: str) -> list[Photo]:
        return [
            Photo(
                row["id"],
                row["product_group"],
                row["split"],
                row["product"],
                located(row["path"], base),
                row["caption"],
                dict(row["attributes"] or []),
            )
            for row in catalog.table("images", _OF_A_PHOTO).to_pylist()
        ]

    def known(self, style: str, tell: Callable[[str], None]) -> Known:
        """What the latest catalogs of a style and of all others hold.

        A catalog that is damaged is left out, and `tell` is called with what is wrong with it.
        """
        own_images = tables.schema("images").empty_table()
        others, gallery = [own_images.select(list(HOMES))], Gallery()
        for each in self.records.styles("catalog"):
            try:
                catalog = self.records.latest("catalog", each)
                if each == style:
                    own_images = catalog.table("images")
                else:
                    gallery.add(partial(_prints, catalog))
                    others.append(catalog.table("images", HOMES))
            except StorageError as error:
                tell(f"the catalog of {each!r} is left out: {error}")
        return Known(own_images, pa.concat_tables(others), gallery)

    def forget(self, style: str) -> None:
        """Remove all that is known of a style but its published versions, while nobody works on it.

        Raises LockedError. Its images go with the next `pruning`.
        """
        who = "a command that removes it"
        with self.claiming(style, who), self.working_on(style, who):
            folders = [self.files.inside("records", kind, f"style={slug(style)}") for kind in KINDS]
            folders += [
                self.files.inside("embeddings", table.table, f"style={slug(style)}")
                for table in (self.features, self.sample_features)
            ]
            folders += [self.files.inside("pictures", kind, f"style={slug(style)}") for kind in KINDS]
            folders += [self.files.inside("work", "training", slug(style)), self.cache_folder(style)]
            folders += [self.files.inside(name, slug(style)) for name in ("weights", "pages")]
            self.sources.forget(style)
            for folder in folders:
                self.files.remove(folder)

    # --- folders

    def training_folder(self, style: str, key: str) -> Path:
        """Where a training under way keeps its checkpoints."""
        return self.files.inside("work", "training", slug(style), key)

    def cache_folder(self, style: str) -> Path:
        """Latents and text embeddings of a style's trainings."""
        return self.files.inside("work", "cache", slug(style))

    @property
    def raw_folder(self) -> Path:
        """A folder whose photos the sensor watches."""
        return self.files.inside("raw")

    # --- locks

    def run_lock(self, run: str) -> Path:
        """The file that the process of a run holds while it lives."""
        return self.files.inside("locks", "runs", run)

    def run_locks(self) -> list[Path]:
        """The lock of each run that lives, or has ended since somebody last looked."""
        return sorted(self.files.inside("locks", "runs").glob("*"))

    def command_lock(self, name: str) -> Path:
        """The file that a command holds while it follows its runs."""
        return self.files.inside("locks", "commands", name)

    def style_lock(self, style: str) -> Path:
        """The file that whoever works on a style holds."""
        return self.files.inside("locks", "styles", slug(style))

    def card_lock(self, card: int) -> Path:
        """The file that the run which has a graphics card holds, where there are several."""
        return self.files.inside("locks", "cards", str(card))

    def working_on(self, style: str, who: str, wait: float | None = 0.0) -> AbstractContextManager[None]:
        """Held by whoever works on a style, on this machine or another one that shares the root.

        `who` and `wait` as in `locks.holding`. Raises LockedError.
        """
        return self.files.alone(f"styles/{slug(style)}", f"style {style!r}", who, wait)

    def claiming(self, style: str, who: str) -> AbstractContextManager[None]:
        """Held by a command from before it starts a run of a style until that has ended. Raises LockedError."""
        return self.files.alone(f"claims/{slug(style)}", f"style {style!r}", who)

    def claim_lock(self, style: str) -> Path:
        """The file that a command holds which is about to run a style."""
        return self.files.inside("locks", "claims", slug(style))

    def one_catalog_at_a_time(self, wait: float | None = None) -> AbstractContextManager[None]:
        """Held while a catalog is built: two at once would put near-duplicates into two splits."""
        return self.files.alone("catalog", "the catalog", " ".join(sys.argv)[:200], wait)

    @contextmanager
    def following(self, command: str) -> Iterator[None]:
        """Held by a command while it follows its runs."""
        lock = self.command_lock(command)
        with self.files.alone(f"commands/{command}", "this command", "a command", once=True):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def follows(self, command: str) -> bool:
        """Whether a command lives, on this machine or another one that shares the root."""
        return self._is_held(self.command_lock(command), f"commands/{command}")

    def running(self, run: str, who: str) -> AbstractContextManager[None]:
        """Held by the process of a run while it lives."""
        return self.files.alone(f"runs/{run}", f"run {run}", who, once=True)

    def lives(self, run: str) -> bool:
        """Whether the process of a run lives, on this machine or another one that shares the root."""
        return self._is_held(self.run_lock(run), f"runs/{run}")

    def _is_held(self, lock: Path, lease: str) -> bool:
        remote = self.files.remote
        return is_held(lock) if lock.exists() or remote is None else remote.is_held(lease)

    # --- questions

    def sql(self, text: str, tell: Callable[[str], None] = lambda text: None) -> pa.Table:
        """A DuckDB query over all tables, see `queries.query`. Raises duckdb.Error."""
        return query(self.files, self.records, [self.features, self.sample_features], text, tell)


def _prints(catalog: Record) -> Fingerprints:
    return known_prints(catalog.table("images", ("perceptual_hash", "thumbnail")))
