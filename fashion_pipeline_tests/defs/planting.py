"""Styles with photos, and what runs of them leave behind."""

from pathlib import Path

from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.intake.sources import listing_state, read_source
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.standing.retraining import settings_state
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


def add_photo(folder: Path, name: str = "a.png", size: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size)).save(folder / name)
    return folder / name


def state_of(store: Store, style: str) -> str:
    return listing_state(read_source(store.sources.source(style)).of(style).entries)


def take_in(store: Store, style: str, photos: int) -> Record:
    """What a run of the job `catalog` leaves behind, with so many photos."""
    known = store.records.newest("catalog", style)
    ids = [f"{style}-{k}" for k in range(photos)]
    record = store.records.add("catalog", style, tables={"images": [image(id_) for id_ in ids], "rejects": []})
    for step in ("catalog", "features"):
        store.sources.mark(style, step, state_of(store, style))
    assert known is None or known.key != record.key
    return record


def train(store: Store, style: str) -> None:
    """What a training leaves behind."""
    catalog = store.records.latest("catalog", style)
    store.records.add("evaluation", style, inputs={"catalog": catalog}, key=f"trained on {catalog.key}")
    store.sources.mark(style, "evaluation", settings_state(store, Models("embedded").profile, style))


def image(id_: str) -> dict[str, object]:
    row = {field.name: None for field in tables.schema("images")}
    texts = {"id": id_, "path": f"{id_}.png", "product_group": id_, "split": "search", "product": id_}
    return (
        row
        | texts
        | {"width": 8, "height": 8, "bytes": 100, "attributes": [], "perceptual_hash": 0, "thumbnail": bytes(768)}
    )


def register(store: Store, *names: str) -> None:
    for style in names:
        add_photo(store.raw_folder / style)
        store.sources.register(style, style, SourceSpec(str(store.raw_folder)))
