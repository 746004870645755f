"""Verdicts on planted pictures: real photos, encoders and tables, and images that are not what a model drew."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fashion_pipeline import api
from fashion_pipeline.core.names import PIPELINE
from fashion_pipeline.core.prompts.formats import Candidate, write
from fashion_pipeline.core.rows import Model, Purpose, Sample, Split
from fashion_pipeline.defs.automation.jobs import FINETUNING
from fashion_pipeline.intake.photos import open_photo
from fashion_pipeline.stages.drawing.models import ModelError
from fashion_pipeline.stages.evaluation import evaluation
from fashion_pipeline.stages.evaluation.evaluation import Evaluated, evaluate
from fashion_pipeline.stages.evaluation.foreign_weights import evaluate_weights
from fashion_pipeline.stages.evaluation.memorisation import trained_photos
from fashion_pipeline.stages.pages.pages import index_page
from fashion_pipeline_tests.cli.conftest import call
from fashion_pipeline_tests.conftest import Chain
from fashion_pipeline_tests.store.planting import put_in_use

TRAINED = ("raw_images", "clip_features", "curated_subset", "lora_weights", "specialised_model")

Plant = Callable[[Path, int], Image.Image]
"""From the photo that a sample is compared with, and a number, the image that takes the sample's place."""

Judged = Callable[[Plant], Evaluated]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """All 160 coats, enough for a verdict, with a LoRA of two steps; what it draws is replaced by each test."""
    from fashion_pipeline_tests.conftest import SAMPLES, make_chain

    chain = make_chain(tmp_path_factory.mktemp("planted") / "data", SAMPLES)
    done = chain.materialize(TRAINED, "coat", {"ops": {"lora_weights": {"config": {"steps": 2}}}})
    assert done.success
    return chain


@pytest.fixture(scope="module")
def drawn(trained: Chain) -> list[Sample]:
    """What the model draws of coats, on disk."""
    first = evaluate(trained.store, trained.models, "coat", products=48, report=lambda text: None)
    samples = Sample.read(first.record.table("evaluation_samples"))
    return [s for s in samples if s.model_name == Model.SPECIALISED and s.purpose != Purpose.OTHERS]


@pytest.fixture
def judged(trained: Chain, drawn: list[Sample]) -> Judged:
    """The evaluation of a model that draws what is planted, and no longer what it drew."""

    def judge(plant: Plant) -> Evaluated:
        store = trained.store
        photos = {photo.id: photo.path for photo in store.photos(store.records.latest("catalog", "coat"))}
        for number, sample in enumerate(drawn):
            store.samples.write(sample.id, plant(Path(photos[sample.reference]), number))
        for file in store.sample_features.paths(["coat"]):
            file.unlink()
        return evaluate(store, trained.models, "coat", products=48, report=lambda text: None)

    return judge


def blotches(photo: Path, number: int) -> Image.Image:
    """The colours of the photo without its garment, as a model draws that learnt backgrounds."""
    rng = np.random.default_rng(number)
    colours = np.asarray(open_photo(str(photo)).convert("RGB").resize((6, 6), Image.Resampling.BILINEAR)).reshape(36, 3)
    image = Image.fromarray(colours[rng.permutation(36)].reshape(6, 6, 3)).resize((64, 64), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


def photos(chain: Chain, style: str, split: str) -> list[str]:
    catalog = chain.store.records.latest("catalog", style)
    return [photo.path for photo in chain.store.photos(catalog) if photo.split == split]


def in_turn(paths: list[str]) -> Plant:
    """Real photos, one after the other."""
    return lambda photo, number: open_photo(paths[number % len(paths)]).convert("RGB").resize((64, 64))


def test_blotches_in_the_colours_of_the_style_are_no_improvement(trained: Chain, judged: Judged) -> None:
    found = judged(blotches)
    assert found.report.verdict == "broken", found.report.reason


def test_real_photos_of_other_products_are_better_than_what_the_original_draws(trained: Chain, judged: Judged) -> None:
    found = judged(in_turn(photos(trained, "coat", Split.DEV)[1:]))
    assert found.report.verdict == "better", found.report.reason


def test_copies_of_training_photos_are_memorised_even_where_they_are_blurred(
    trained: Chain, drawn: list[Sample], judged: Judged
) -> None:
    store = trained.store
    known = store.photos(store.records.latest("catalog", "coat"))
    seen = trained_photos(store, store.records.latest("training", "coat"), known)
    copy = in_turn([photo.path for photo in seen])  # both prompts of a product draw the same
    found = judged(lambda photo, number: copy(photo, number // 2).filter(ImageFilter.GaussianBlur(1)))
    assert found.report.verdict == "memorised", found.report.reason
    planted = {sample.id for sample in drawn}
    rows = [row for row in found.record.table("nearest").to_pylist() if row["sample"] in planted]
    shares = {by: np.mean([row["copied"] for row in rows if row["by"] == by]) for by in ("judge", "colour")}
    assert shares["colour"] > 0.9, shares


def test_one_picture_over_and_over_has_collapsed(trained: Chain, judged: Judged) -> None:
    found = judged(in_turn(photos(trained, "coat", Split.TEST)[:3]))
    assert found.report.verdict == "collapsed", found.report.reason


def test_black_pictures_are_broken(trained: Chain, judged: Judged) -> None:
    found = judged(lambda photo, number: Image.new("RGB", (64, 64)))
    assert found.report.verdict == "broken" and "one colour all over" in found.report.reason


def test_photos_of_another_garment_are_worse(trained: Chain, judged: Judged) -> None:
    assert trained.materialize(("raw_images", "clip_features"), "bag").success
    found = judged(in_turn(photos(trained, "bag", Split.SEARCH)))
    assert found.report.verdict in ("broken", "worse"), found.report.reason


def tiny_lora(folder: Path, scale: float, layers: int | None = None) -> Path:
    """A LoRA of random numbers for the UNet of the embedded generator, in diffusers' format."""
    import torch
    from safetensors.torch import save_file

    from fashion_pipeline.ml.pipelines import load_pipeline
    from fashion_pipeline.ml.sources import find_pipeline
    from fashion_pipeline.settings import read_profile

    unet = load_pipeline(find_pipeline(read_profile("embedded").generator)).unet
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, part in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            wide, tall = part.in_features, part.out_features
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(4, layers or wide, generator=random)
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(tall, 4, generator=random) * scale
    file = folder / "tiny.safetensors"
    save_file(tensors, file)
    return file


@pytest.mark.thorough
def test_the_original_itself_is_no_evidence_and_noise_is_no_improvement(
    trained: Chain, drawn: list[Sample], tmp_path: Path
) -> None:
    for scale, verdicts in ((1e-5, {"no evidence"}), (1.0, {"broken", "collapsed", "worse"})):
        file = tiny_lora(tmp_path, scale)
        found = evaluate_weights(trained.store, trained.models, "coat", file, products=48, report=lambda text: None)
        assert found.report.verdict in verdicts, found.report.reason
        assert found.report.weights == file.name and (found.folder / "report.html").exists()
        assert trained.store.records.latest("evaluation", "coat").json("report.json")["model"] != found.report.model


def test_a_lora_of_another_base_or_no_lora_at_all_is_refused_with_a_mend(trained: Chain, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    (tmp_path / "other").mkdir()
    other, nothing = tiny_lora(tmp_path / "other", 1.0, layers=640), tiny_lora(tmp_path, 0.0)
    for file, why in ((text, "no safetensors file"), (other, "of another size"), (nothing, "nothing")):
        with pytest.raises(ModelError, match=why):
            evaluate_weights(trained.store, trained.models, "coat", file, products=8, report=lambda text: None)


# One decision, in the same words wherever somebody looks


CELLS = {
    "better": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best")],
    "words suffice": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best"), (Model.ORIGINAL, "best")],
    "version in use": [(Model.SPECIALISED, "plain"), (Model.SPECIALISED, "best")],
    "undecided": [],
}
"""Decision → the cells of the design whose pictures are photos of other products."""


@pytest.fixture(scope="module")
def drawn_with_words(trained: Chain, drawn: list[Sample]) -> Iterator[list[Sample]]:
    """What both models draw with the plain prompt and with a best one, which no search had to find."""
    plain, best = write("plain", "coat", [], lambda text: True), Candidate("mine", "a photo of a black winter coat")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation, "_prompts", lambda *_: [("plain", plain), ("best", best)])
        first = evaluate(trained.store, trained.models, "coat", products=48, report=lambda text: None)
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


@pytest.mark.thorough
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("case", ["undecided", "better", "version in use", "words suffice"])
def test_a_decision_is_told_in_the_same_words_everywhere(
    trained: Chain, drawn_with_words: list[Sample], case: str
) -> None:
    store = trained.store
    if case == "version in use":
        other = store.records.latest("model", "coat").path(PIPELINE)
        put_in_use(store, "coat", "v0", other, {}, {})
    plant(trained, drawn_with_words, case)
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
