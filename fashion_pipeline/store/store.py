"""Everything under one data root: the one place that knows where things lie.

```
layout.json                          the version of this layout
sources/<style>.json                 where the photos of a style come from, and what the user chose for it
records/<kind>/style=<style>/…       what the runs made, by content; `latest.json` points at the newest
embeddings/<table>/style=<style>/…   of photos and samples; they only grow
looks/<generator>/<encoder>/…        what prompts draw in few steps, shared by all styles
images/<first two digits>/<id>.png   generated images, by content
work/training/<style>/<key>/         checkpoints of a training under way
work/cache/<style>/                  latents and text embeddings, shared by the style's trainings
work/proposals/<style>/              answers of a language model that proposes prompts
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

from collections.abc import Callable, Sequence
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
from fashion_pipeline.store.looks import Looks
from fashion_pipeline.store.pictures import Pictures
from fashion_pipeline.store.queries import query
from fashion_pipeline.store.records import KINDS, Record, Records
from fashion_pipeline.store.samples import SampleImages
from fashion_pipeline.store.storage.files import Files, slug
from fashion_pipeline.store.versions import Versions
from fashion_pipeline.store.working import Locks

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
        self.looks = Looks(self.files)
        self.samples = SampleImages(self.files)
        self.pictures = Pictures(self.files)
        self.versions = Versions(self.files)
        self.withdrawals = Withdrawals(self.files)
        self.locks = Locks(self.files)
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
        with self.locks.claiming(style, who), self.locks.working_on(style, who):
            folders = [self.files.inside("records", kind, f"style={slug(style)}") for kind in KINDS]
            folders += [
                self.files.inside("embeddings", table.table, f"style={slug(style)}")
                for table in (self.features, self.sample_features)
            ]
            folders += [self.files.inside("pictures", kind, f"style={slug(style)}") for kind in KINDS]
            folders += [self.files.inside("work", "training", slug(style)), self.cache_folder(style)]
            folders += [self.files.inside("work", "proposals", slug(style))]
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

    # --- questions

    def sql(self, text: str, tell: Callable[[str], None] = lambda text: None) -> pa.Table:
        """A DuckDB query over all tables, see `queries.query`. Raises duckdb.Error."""
        return query(self.files, self.records, [self.features, self.sample_features], text, tell)


def _prints(catalog: Record) -> Fingerprints:
    return known_prints(catalog.table("images", ("perceptual_hash", "thumbnail")))
