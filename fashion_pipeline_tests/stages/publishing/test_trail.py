"""Two trainings, two evaluations and one more prompt report of one style: nothing erases or mixes up anything."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fashion_pipeline.core.rows import Pair, Sample
from fashion_pipeline.defs.automation.jobs import ASSETS, CATALOG, FINETUNING, PROMPTS
from fashion_pipeline.stages.pages.reports import newest_report
from fashion_pipeline.store.records import Record
from fashion_pipeline_tests.conftest import SAMPLES, Chain, errors, make_chain

pytestmark = pytest.mark.thorough


def config(steps: int, budget: int = 12) -> dict:
    return {
        "ops": {
            "generated_samples": {"config": {"budget": budget, "held_out_products": 2}},
            "lora_weights": {"config": {"steps": steps}},
            "evaluation_report": {"config": {"products": 2}},
        }
    }


@dataclass
class History:
    chain: Chain
    evaluations: list[Record]
    reports: list[Record]
    version: Path
    pages: dict[str, bytes]
    """Page of each record when it was made."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    root = tmp_path_factory.mktemp("history")
    (root / "photos" / "coat").mkdir(parents=True)
    for photo in sorted((SAMPLES / "coat").glob("*.png"))[:16]:
        shutil.copy(photo, root / "photos" / "coat")
    chain = make_chain(root / "data", root / "photos")
    records, store = chain.store.records, chain.store
    pages: dict[str, bytes] = {}

    def run(assets, **options: int) -> None:
        wanted = config(**options)
        named = {asset.key.path[-1] for asset in assets}
        wanted["ops"] = {op: values for op, values in wanted["ops"].items() if op in named}
        result = chain.materialize(assets, "coat", wanted)
        assert result.success, errors(result)
        for kind in ("prompt_report", "evaluation"):
            newest = records.newest(kind, "coat")
            if newest:
                pages.setdefault(newest.key, newest.path("report.html").read_bytes())

    run(ASSETS, steps=2)
    first = records.latest("evaluation", "coat")
    path = first.path("report.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdict": "better", "decision": None}))
    run(FINETUNING[-2:-1], steps=2)
    version = store.versions.champion("coat")
    assert version is not None
    before = records.latest("prompt_report", "coat")
    for photo in sorted((SAMPLES / "coat").glob("*.png"))[16:20]:
        shutil.copy(photo, root / "photos" / "coat")
    run((*CATALOG, *FINETUNING), steps=3)
    second = records.latest("evaluation", "coat")
    run(PROMPTS, steps=3, budget=16)
    yield History(chain, [first, second], [before, records.latest("prompt_report", "coat")], version, pages)


def test_every_page_is_still_the_one_that_was_made(history: History) -> None:
    made = [*history.evaluations, *history.reports]
    assert len({record.key for record in made}) == 4
    for record in made:
        assert record.path("report.html").read_bytes() == history.pages[record.key]


def test_every_evaluation_is_of_its_own_training(history: History) -> None:
    one, two = history.evaluations
    assert one.inputs["training"] != two.inputs["training"]
    for record in history.evaluations:
        assert record.json("report.json")["model"] == record.inputs["training"]
        samples = Sample.read(record.table("evaluation_samples"))
        assert record.table("scores").num_rows
        assert all(history.chain.store.samples.readable(sample.id) for sample in samples)
    drawn = [
        {s.model for s in Sample.read(record.table("evaluation_samples")) if s.model_name == "specialised"}
        for record in history.evaluations
    ]
    assert drawn[0] != drawn[1]


def test_the_challenger_was_compared_with_the_champion_on_the_same_products_and_seeds(history: History) -> None:
    first, second = (Sample.read(record.table("evaluation_samples")) for record in history.evaluations)
    assert not [sample for sample in first if sample.model_name == "champion"]
    champion = [sample for sample in second if sample.model_name == "champion"]
    challenger = [s for s in second if s.model_name == "specialised" and s.prompt_name == "plain"]
    assert [(s.product_group, s.seed, s.prompt) for s in champion] == [
        (s.product_group, s.seed, s.prompt) for s in challenger
    ]
    assert {s.model for s in champion} == {s.model for s in first if s.model_name == "specialised"}
    report = history.evaluations[1].json("report.json")
    assert report["champion"] == history.version.name and report["against_champion"]["verdict"] == "undecided"


def test_the_trail_of_a_version_names_what_its_own_training_saw_after_all_that(history: History) -> None:
    trail = history.version / "trail"
    store = history.chain.store
    training = store.records.find("training", "coat", history.version.name)
    assert training is not None
    pairs = Pair.read(pq.read_table(trail / "curation" / "training_pairs.parquet"))
    assert pairs == Pair.read(store.records.input(training, "curation").table("training_pairs"))
    assert all(pair.caption for pair in pairs)
    photos = {row["id"]: row["path"] for row in pq.read_table(trail / "catalog" / "images.parquet").to_pylist()}
    assert len(photos) == 16 and {pair.id for pair in pairs if pair.origin == "reference"} <= photos.keys()
    searched = Sample.read(pq.read_table(trail / "search" / "samples.parquet"))
    assert all(sample.prompt and sample.seed >= 0 for sample in searched)
    now = Sample.read(store.records.latest("search", "coat").table("samples"))
    assert {sample.id for sample in searched} != {sample.id for sample in now}
    scores = pq.read_table(trail / "evaluation" / "scores.parquet")
    assert scores.equals(history.evaluations[0].table("scores"))
    seen = json.loads((trail / "training" / "record.json").read_text())
    assert seen["key"] == history.version.name and seen["made_of"]["steps"] == 2


def test_the_report_a_person_sees_is_the_one_made_last(history: History) -> None:
    newest = newest_report(history.chain.store, "coat")
    assert newest is not None and newest.key == history.reports[1].key


def test_old_and_new_can_be_asked_side_by_side(history: History) -> None:
    store = history.chain.store
    assert store.sql("SELECT count(DISTINCT record) AS n FROM leaderboard_history").to_pylist() == [{"n": 2}]
    assert store.sql("SELECT count(DISTINCT record) AS n FROM scores_history").to_pylist() == [{"n": 2}]
    newest = store.records.latest("evaluation", "coat").key
    assert store.sql("SELECT DISTINCT record FROM scores").to_pylist() == [{"record": newest}]


def test_a_page_names_the_run_that_trained_where_another_one_found_the_weights(history: History) -> None:
    chain = history.chain
    training = chain.store.records.latest("training", "coat")
    more = {"ops": {"lora_weights": {"config": {"steps": 3}}, "evaluation_report": {"config": {"products": 3}}}}
    again = chain.materialize(FINETUNING[1:4], "coat", more)
    assert again.success, errors(again)
    evaluation = chain.store.records.latest("evaluation", "coat")
    assert evaluation.inputs["training"] == training.key and evaluation.run == again.run_id != training.run
    page = evaluation.path("report.html").read_text(encoding="utf-8")
    assert "Trained in run" in page and training.run in page and again.run_id in page
