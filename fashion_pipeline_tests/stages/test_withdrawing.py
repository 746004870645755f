"""Photos that are withdrawn: out of the catalog for good, and everything that used one is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fashion_pipeline.core.rows import Pair
from fashion_pipeline.defs.jobs import CATALOG
from fashion_pipeline.stages.tracing import find_photos, stale, trace_version, uses
from fashion_pipeline.store.files import StorageError
from fashion_pipeline.store.records import Record
from fashion_pipeline_tests.conftest import Chain, errors


@pytest.fixture
def published(small: Callable[..., Chain]) -> Chain:
    """A style with a version, whose training took every second photo."""
    chain = small()
    assert chain.materialize(CATALOG, "coat").success
    records = chain.store.records
    catalog, features = records.latest("catalog", "coat"), records.latest("features", "coat")
    ids = catalog.table("images")["id"].to_pylist()
    pairs = [Pair(id_, "reference", "", f"caption {k}", k % 2 == 0, 0.5, "typical") for k, id_ in enumerate(ids)]
    curation = records.add(
        "curation",
        "coat",
        inputs={"catalog": catalog, "features": features},
        tables={"training_pairs": [vars(pair) for pair in pairs]},
    )
    inputs = {"curation": curation, "features": features, "catalog": catalog}
    training = records.add(
        "training", "coat", key="v1", inputs=inputs, made_of={"control": False}, tables={"training_log": []}
    )
    publish_version(chain, training)
    return chain


def publish_version(chain: Chain, training: Record) -> Path:
    report = {"verdict": "better", "reason": "Closer.", "scores": [], "gains": []}
    return chain.store.versions.publish(
        "coat",
        "v1",
        training.folder,
        {"evaluation_report.json": report},
        chain.store.records.ancestry(training),
    )


def photo(chain: Chain, place: int) -> tuple[str, Path]:
    row = chain.store.records.latest("catalog", "coat").table("images").to_pylist()[place]
    return row["id"], chain.store.sources.source("coat").folder / row["path"]


def withdraw(chain: Chain, name: str) -> None:
    for style, rows in find_photos(chain.store, [name]).items():
        chain.store.withdrawals.add(style, rows)


def test_a_photo_is_known_by_path_by_id_and_by_the_beginning_of_one(published: Chain) -> None:
    id_, path = photo(published, 0)
    for name in (str(path), id_, id_[:12], f"coat/{path.name}"):
        assert [row["id"] for row in find_photos(published.store, [name])["coat"]] == [id_], name
    for wrong in ("nowhere.png", id_[:2]):
        with pytest.raises(StorageError, match="is in no catalog: name a photo by its path"):
            find_photos(published.store, [wrong])


def test_it_and_its_near_duplicates_are_never_taken_in_again(published: Chain, tmp_path: Path) -> None:
    id_, path = photo(published, 0)
    withdraw(published, str(path))
    Image.open(path).convert("RGB").save(path.with_name("saved anew.jpg"), quality=92)
    shutil.copy(path, path.with_name("renamed.png"))
    made = published.materialize(CATALOG[:1], "coat")
    assert made.success, errors(made)
    catalog = published.store.records.latest("catalog", "coat")
    assert id_ not in catalog.table("images")["id"].to_pylist()
    reasons = {Path(row["path"]).name: row["reason"] for row in catalog.table("rejects").to_pylist()}
    assert reasons[path.name] == reasons["renamed.png"] or "same file" in reasons["renamed.png"] + reasons[path.name]
    assert "nearly the same as a photo that was withdrawn" in reasons["saved anew.jpg"]
    assert any("it was withdrawn" in reason for reason in reasons.values())
    assert path.exists()


def test_everything_that_used_it_is_named_with_how_closely(published: Chain) -> None:
    trained, _ = photo(published, 0)
    control, _ = photo(published, 1)
    found = {use.kind: use.how for use in uses(published.store, "coat", {trained})}
    assert found == {
        "catalog": "in its catalog",
        "features": "in its catalog",
        "curation": "in its catalog",
        "training": "trained on",
        "version": "trained on",
    }
    assert {use.kind: use.how for use in uses(published.store, "coat", {control})}["version"] == "in its catalog"
    assert uses(published.store, "coat", {"0" * 64}) == []


def test_what_is_made_anew_is_stale_no_more_but_the_version_stays_so(published: Chain) -> None:
    id_, _ = photo(published, 0)
    assert stale(published.store) == []
    withdraw(published, id_)
    before = {(use.kind, use.key) for use in stale(published.store)}
    assert published.materialize(CATALOG, "coat").success
    now = published.store.records.latest("catalog", "coat")
    after = {(use.kind, use.key) for use in stale(published.store)}
    assert ("catalog", now.key) not in after and after == before and ("version", "v1") in after


def test_a_version_leads_back_to_its_photos_and_captions(published: Chain) -> None:
    found = trace_version(published.store, "coat", "v1")
    id_, path = photo(published, 0)
    first = next(each for each in found["trained_on"] if each["id"] == id_)
    assert first["caption"] == "caption 0" and path.as_posix().endswith(first["path"])
    assert len(found["trained_on"]) == 10 and found["records"]["training"] == "v1"
    with pytest.raises(StorageError, match="no version 'v9'"):
        trace_version(published.store, "coat", "v9")
