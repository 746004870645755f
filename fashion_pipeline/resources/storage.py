"""Tables, images, models and reports on disk: the only module that knows where they lie.

```
catalog/<style>.json                       where a style's photos come from, and how the style is called in prompts
tables/<table>/style=<style>/rows.parquet
images/<first two digits>/<sample>.png     generated samples, by content
catalog/prepared/<style>.json              the state of the photos that the tables were made from
training/<style>/<key>/                    checkpoints and weights of one training
training/<style>/cache/                    latents and text embeddings, shared by the style's trainings
models/<style>/<key>/fashion_sd_model/     a complete pipeline
reports/<style>/                           JSON and HTML
published/<style>/<version>/ champion.json
```
"""

import glob
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.listing import SourceSpec, style_slug


class StorageError(RuntimeError):
    """Something on disk that is missing or cannot be read; the message names it and the mend."""


class Storage(dg.ConfigurableResource):
    """Reads and writes everything under one data root. A write appears whole or not at all."""

    root: str
    """Absolute path of the data root."""

    # --- tables

    def read(self, table: str, style: str) -> pa.Table:
        """A style's rows of a table; none if it was never written. Raises StorageError for a damaged file."""
        path = self._table(table, style)
        if not path.exists():
            return tables.schema(table).empty_table()
        try:
            found = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageError(f"{path} is damaged ({error}): delete it and materialise its asset again") from error
        version = (found.schema.metadata or {}).get(b"fashion_pipeline.schema_version", b"none").decode()
        if version != str(tables.SCHEMA_VERSION) or found.column_names != tables.schema(table).names:
            raise StorageError(
                f"{path} has schema version {version}, this program writes {tables.SCHEMA_VERSION}: "
                "delete it and materialise its asset again"
            )
        return found

    def read_all(self, table: str) -> pa.Table:
        """The rows of every style, with a column `style` in front."""
        empty = tables.schema(table).empty_table().add_column(0, "style", pa.array([], pa.string()))
        parts = [
            rows.add_column(0, "style", pa.array([style] * rows.num_rows, pa.string()))
            for style in self.written_styles(table)
            for rows in [self.read(table, style)]
        ]
        return pa.concat_tables([empty, *parts])

    def write(self, table: str, style: str, rows: pa.Table | list[dict[str, Any]]) -> pa.Table:
        """Replace a style's rows of a table, atomically. Returns them in the table's schema."""
        schema = tables.schema(table)
        ready = tables.rows_to_table(table, rows) if isinstance(rows, list) else rows.select(schema.names).cast(schema)
        path = self._table(table, style)
        self._place(path, lambda temporary: pq.write_table(ready, temporary, compression="zstd"))
        return ready

    def written_styles(self, table: str) -> list[str]:
        """The styles that have rows in a table."""
        folders = (self._base / "tables" / table).glob("style=*/rows.parquet")
        return sorted(path.parent.name.removeprefix("style=") for path in folders)

    def sql(self, query: str) -> pa.Table:
        """Run a DuckDB query over views of all tables, each with a column `style`. Raises duckdb.Error."""
        import duckdb

        with duckdb.connect(":memory:") as connection:
            for table in tables.TABLES:
                if self.written_styles(table):
                    pattern = f"{glob.escape(str(self._base))}/tables/{table}/*/rows.parquet".replace("'", "''")
                    source = f"read_parquet('{pattern}', hive_partitioning = true, hive_types_autocast = false)"
                else:
                    empty = tables.schema(table).empty_table().add_column(0, "style", pa.array([], pa.string()))
                    connection.register(f"empty_{table}", empty)
                    source = f"empty_{table}"
                connection.execute(f'CREATE VIEW "{table}" AS SELECT * FROM {source}')
            found = connection.sql(query)
            return pa.table({}) if found is None else found.to_arrow_table()

    # --- the catalog's sources

    def register(self, style: str, subject: str, source: SourceSpec) -> None:
        """Remember where a style's photos come from and what prompts call it."""
        self._write_json(self.registration_path(style), {"subject": subject, "source": source.to_json()})

    def registration_path(self, style: str) -> Path:
        """The file that says where a style's photos come from."""
        return self._inside("catalog", f"{_slug(style)}.json")

    def registered_styles(self) -> list[str]:
        """Every style that has a source."""
        return sorted(path.stem for path in (self._base / "catalog").glob("*.json"))

    def source(self, style: str) -> SourceSpec:
        """Where a style's photos come from. Raises StorageError for a style nobody registered."""
        return SourceSpec.from_json(self._registration(style)["source"])

    def subject(self, style: str) -> str:
        """What prompts call a style, for example "ethnic wear"."""
        return str(self._registration(style)["subject"])

    def prepared_state(self, style: str) -> str | None:
        """The state of the photos (`listing_state`) that the style's catalog and features were last made from."""
        path = self._prepared(style)
        return str(self._read_json(path, "")["photos"]) if path.exists() else None

    def write_prepared_state(self, style: str, state: str) -> None:
        """Remember that catalog and features are up to date with this state of the photos."""
        self._write_json(self._prepared(style), {"photos": state})

    def _prepared(self, style: str) -> Path:
        return self._inside("catalog", "prepared", f"{_slug(style)}.json")

    def _registration(self, style: str) -> dict[str, Any]:
        known = ", ".join(self.registered_styles()) or "none yet"
        missing = f"style {style!r} is not in the catalog (known: {known}): run it once with --source"
        return self._read_json(self.registration_path(style), missing)

    # --- generated images

    def sample_path(self, sample: str) -> Path:
        """Where the PNG of a sample lies, or will lie."""
        return self._inside("images", sample[:2], f"{sample}.png")

    def write_sample(self, sample: str, image: Image.Image) -> None:
        """Store a sample's PNG, atomically."""
        self._place(self.sample_path(sample), lambda temporary: image.save(temporary, format="PNG"))

    # --- trained models and reports

    def training_folder(self, style: str, key: str) -> Path:
        """The folder of one training, made if needed; `key` is the hash of all that determines its result."""
        return _made(self._inside("training", _slug(style), key))

    def model_folder(self, style: str, key: str) -> Path:
        """The complete pipeline made from one training."""
        return self._inside("models", _slug(style), key, "fashion_sd_model")

    def report_path(self, style: str, name: str) -> Path:
        """A style's report file."""
        return self._inside("reports", _slug(style), name)

    def write_report(self, style: str, name: str, content: str | Mapping[str, Any]) -> Path:
        """Store a report, text as it is and anything else as JSON; returns its path."""
        path = self.report_path(style, name)
        if isinstance(content, str):
            self._place(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))
        else:
            self._write_json(path, content)
        return path

    def read_report(self, style: str, name: str) -> dict[str, Any]:
        """A JSON report. Raises StorageError if its asset was never materialised."""
        return self._read_json(
            self.report_path(style, name), f"style {style!r} has no {name}: run the pipeline for it first"
        )

    # --- published versions

    def publish(self, style: str, version: str, model: Path, extras: Mapping[str, str | Path]) -> Path:
        """Copy a model folder and further files (text, or a file to copy) to a version, then make it the champion.

        The version is complete before the pointer moves; publishing the same version again changes nothing.
        """
        folder = self._inside("published", _slug(style), version)
        if not folder.exists():
            self._place(folder, lambda temporary: _assemble(temporary, model, extras))
        self._write_json(self._champion(style), {"version": version})
        return folder

    def champion(self, style: str) -> Path | None:
        """The folder of the published model; None if nothing was published yet."""
        pointer = self._champion(style)
        if not pointer.exists():
            return None
        version = str(self._read_json(pointer, "")["version"])
        folder = self._inside("published", _slug(style), version)
        if not folder.is_dir():
            raise StorageError(f"{pointer} names version {version!r}, which is missing: publish {style!r} again")
        return folder

    def _champion(self, style: str) -> Path:
        return self._inside("published", _slug(style), "champion.json")

    # --- paths and atomic writes

    @property
    def _base(self) -> Path:
        return Path(self.root)

    def _table(self, table: str, style: str) -> Path:
        tables.columns(table)
        return self._inside("tables", table, f"style={_slug(style)}", "rows.parquet")

    def _inside(self, *parts: str) -> Path:
        """A path under the root; raises StorageError if the parts would lead out of it."""
        path = self._base.joinpath(*parts)
        if not path.resolve().is_relative_to(self._base.resolve()):
            raise StorageError(f"{path} lies outside of the data root {self._base}: use another name")
        return path

    def _place(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Let `fill` make a file or folder under a temporary name, then rename it into place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            fill(temporary)
            temporary.replace(path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)

    def _write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self._place(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _read_json(self, path: Path, missing: str) -> dict[str, Any]:
        if not path.exists():
            raise StorageError(missing)
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise StorageError(f"{path} is damaged ({error}): delete it and materialise its asset again") from error


def _slug(style: str) -> str:
    """The style itself, if it is a slug: Dagster takes any partition key, a path must not."""
    if style_slug(style) != style:
        raise StorageError(f"{style!r} is not a style name: use {style_slug(style)!r}")
    return style


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _assemble(folder: Path, model: Path, extras: Mapping[str, str | Path]) -> None:
    shutil.copytree(model, folder)
    for name, content in extras.items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
        else:
            (folder / name).write_text(content, encoding="utf-8")
