"""Captions of one's own: what fits of them is kept, and what does not is counted where people look."""

from collections.abc import Callable
from pathlib import Path

from fashion_pipeline.core.rows import Pair
from fashion_pipeline.defs.automation.jobs import CATALOG
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.training.curation import curate_pairs
from fashion_pipeline_tests.conftest import Chain


def test_captions_that_are_too_long_are_cut_at_a_comma_and_counted(small: Callable[..., Chain]) -> None:
    chain = small()
    source = Path(chain.store.sources.source("coat").path)
    for at, photo in enumerate(sorted((source / "coat").glob("*.png"))):
        own = f"own words {at}" + ", and some more of them" * (0 if at % 2 else 30)
        photo.with_suffix(".txt").write_text(own)
    assert chain.materialize(CATALOG, "coat").success
    told: list[str] = []
    made = curate_pairs(chain.store, chain.models, "coat", keep=1.0, sample_share=0.0, tell=told.append)
    photos = chain.store.photos(chain.store.records.latest("catalog", "coat"))
    trained = {pair.caption for pair in Pair.read(made.record.table("training_pairs")) if pair.kept}
    own = {caption for caption in trained if caption.startswith("own words")}
    assert len(own) == len(trained) - 1, "each photo has its own words, and all the plain prompt"
    fits = prompt_fits(chain.models)
    assert all(fits(caption) for caption in own)
    assert any(caption.count(", and some more of them") > 3 for caption in own), "as much as fits"
    search = [photo for photo in photos if photo.split == "search"]
    assert len(made.cut) == sum("more" in str(photo.caption) for photo in search) > 0
    assert any(f"{len(made.cut)} captions are too long" in text for text in told)
