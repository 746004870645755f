"""One decision, in the same words wherever somebody looks: four cases through the real stages, on planted pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion_pipeline import api
from fashion_pipeline.core.names import PIPELINE
from fashion_pipeline.core.prompts.formats import Candidate, write
from fashion_pipeline.core.rows import Model, Purpose, Sample, Split
from fashion_pipeline.defs.automation.jobs import FINETUNING
from fashion_pipeline.stages.evaluation import evaluation
from fashion_pipeline.stages.pages.pages import index_page
from fashion_pipeline_tests.cli.conftest import call
from fashion_pipeline_tests.conftest import Chain
from fashion_pipeline_tests.stages.evaluation.test_evaluation import in_turn, photos, trained
from fashion_pipeline_tests.store.planting import put_in_use

pytestmark = pytest.mark.thorough

__all__ = ["trained"]  # a fixture

CELLS = {
    "better": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best")],
    "words suffice": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best"), (Model.ORIGINAL, "best")],
    "version in use": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best")],
    "undecided": [],
}
"""Decision → the cells of the design whose pictures are photos of other products."""


@pytest.fixture(scope="module")
def drawn(trained: Chain) -> Iterator[list[Sample]]:
    """What both models draw with the plain prompt and with a best one, which no search had to find."""
    plain, best = write("plain", "coat", [], lambda text: True), Candidate("mine", "a photo of a black winter coat")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation, "_prompts", lambda *_: [("plain", plain), ("best", best)])
        first = evaluation.evaluate(trained.store, trained.models, "coat", products=48, report=lambda text: None)
        yield Sample.read(first.record.table("evaluation_samples"))


@pytest.fixture
def root(trained: Chain, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(trained.store.root))
    return trained.store.root


def plant(chain: Chain, drawn: list[Sample], case: str) -> None:
    """Put photos of other products in the place of what was drawn in some cells."""
    store = chain.store
    known = {photo.id: photo.path for photo in store.photos(store.records.latest("catalog", "coat"))}
    others = in_turn(photos(chain, "coat", Split.DEV)[1:])
    for number, sample in enumerate(drawn):
        if (sample.model_name, sample.prompt_name) in CELLS[case] and sample.purpose != Purpose.OTHERS:
            store.samples.write(sample.id, others(Path(known[sample.reference]), number))
    for file in store.sample_features.paths(["coat"]):
        file.unlink()


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("case", ["undecided", "better", "version in use", "words suffice"])
def test_a_decision_is_told_in_the_same_words_everywhere(trained: Chain, drawn: list[Sample], case: str) -> None:
    store = trained.store
    if case == "version in use":
        other = store.records.latest("model", "coat").path(PIPELINE)
        put_in_use(store, "coat", "v0", other, {}, {})
    plant(trained, drawn, case)
    products = {"ops": {"evaluation_report": {"config": {"products": 24 if case == "undecided" else 48}}}}
    done = trained.materialize(FINETUNING[-3:-1], "coat", products)
    assert done.success
    record = store.records.latest("evaluation", "coat")
    decision = record.report().decision
    assert decision is not None and decision.name == case, decision
    sentence = decision.headline

    told = {
        event.asset_key.path[-1]: event.materialization.metadata for event in done.get_asset_materialization_events()
    }
    assert told["evaluation_report"]["decision"].value == told["published_model"]["decision"].value == sentence
    pages = [record.path("report.html"), index_page(store, trained.models)]
    assert all(sentence in page.read_text(encoding="utf-8") for page in pages)
    assert sentence in call("report", "--style", "coat").output
    assert sentence in call("style", "coat").output
    (row,) = [row for row in json.loads(call("status", "--json").output)["styles"] if row["style"] == "coat"]
    assert row["decision"] == sentence
    found = api.outcome("coat")
    assert (found.headline, api.compare("coat")["decision"]["headline"]) == (sentence, sentence)
    version = store.versions.pointer("coat").version
    assert decision.publish == (version == record.report().model) == (found.state == "in use")
    if decision.publish:
        assert sentence in store.versions.part("coat", str(version), "README.md").read_text(encoding="utf-8")
    elif case == "version in use":
        assert (found.in_use, found.state) == ("v0", "not published")
