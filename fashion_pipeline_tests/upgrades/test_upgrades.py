"""A data root of each released version is read by this one: nothing is lost, and nothing made anew without need."""

import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fashion_pipeline.core import tables
from fashion_pipeline.core.reports.links import version_link
from fashion_pipeline.ml.training.identity import key_of, key_of_before
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.publishing.versions import version_rows
from fashion_pipeline.store.pruning import leftovers
from fashion_pipeline.store.records import KINDS
from fashion_pipeline.store.store import Store
from fashion_pipeline.web.pages import Pages

HERE = Path(__file__).parent
MAY_BE_EMPTY = ("rejects", "nearest", "formats", "phrases", *tables.ADDED)
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in the first of 3.11
KEPT = sorted(HERE.glob("*.tar.xz"))


@pytest.fixture(params=KEPT, ids=lambda file: file.name.removesuffix(".tar.xz"))
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, **SAFELY)
    return tmp_path / "data"


def test_this_version_is_kept_for_the_next() -> None:
    assert HERE / f"{version('fashion-pipeline')}.tar.xz" in KEPT, "run python -m fashion_pipeline_tests.upgrades"


def test_every_record_is_read_with_all_its_tables(root: Path) -> None:
    store = Store(root)
    for kind, made in KINDS.items():
        record = store.records.latest(kind, "coat")
        assert all(record.table(table).schema == tables.schema(table) for table in made.tables)
        assert {found.kind for found in store.records.ancestors(record)} <= set(KINDS)
    told: list[str] = []
    for table in tables.TABLES:
        assert store.sql(f"SELECT * FROM {table}", told.append).num_rows > 0 or table in MAY_BE_EMPTY
    assert not told


def test_the_published_version_is_in_use_and_its_page_shows_what_is_behind_it(root: Path) -> None:
    store = Store(root)
    (row,) = version_rows(store, "coat")
    champion = store.versions.champion("coat")
    assert champion is not None and champion.name == row["version"]
    client = TestClient(Starlette(routes=Pages(store, Models("embedded")).routes()))
    page = client.get(version_link("coat", champion.name))
    assert page.status_code == 200 and "a photo of a coat" in page.text
    links = [part.split('"')[0] for part in page.text.split('src="')[1:] if part.startswith("/fashion")]
    assert links and all(client.get(link).status_code == 200 for link in links)
    assert not [each for each in leftovers(store) if each.path.is_relative_to(root / "published")]


def test_photos_keep_their_identity_group_and_split(root: Path) -> None:
    store = Store(root)
    before = store.records.latest("catalog", "coat")
    assert catalogue(store, "coat").record == before


def test_what_was_trained_is_found_under_its_name(root: Path) -> None:
    training = Store(root).records.latest("training", "coat")
    identity = {name: value for name, value in training.made_of.items() if name != "control"}
    now = {"device": "cuda", "peft": "99", **identity}
    assert training.key in (key_of(identity), key_of_before(now))
