"""What becomes of an evaluated model: the rule, the card, and the champion that must be beaten."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import KOHYA_LORA_WEIGHTS, LORA_WEIGHTS
from fashion_pipeline.stages.drawing.base import require_base
from fashion_pipeline.stages.drawing.models import ModelError, Models
from fashion_pipeline.stages.evaluation.evaluation import evaluate
from fashion_pipeline.stages.publishing.cards import base_name, card
from fashion_pipeline.stages.publishing.publishing import approve, leaderboard_row, publish
from fashion_pipeline.stages.publishing.versions import version_rows
from fashion_pipeline.stages.training.training import export
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

MODELS = Models("embedded")


def score(model: str, prompt: str, mean: float, measure: str = "encoder", split: str = "dev") -> dict[str, object]:
    cell = {"model": model, "prompt": prompt, "measure": measure, "split": split}
    return cell | {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 48}


def report(version: str, verdict: str = "better", **more: object) -> dict[str, object]:
    return {
        "style": "coat",
        "profile": "embedded",
        "model": version,
        "verdict": verdict,
        "reason": "Measured.",
        "champion": None,
        "against_champion": None,
        "plain_prompt": "a photo of a coat",
        "optimized_prompt": 'a photo of a "black" coat',
        "negative_prompt": "shoe",
        "guidance_scale": 5.0,
        "scores": [
            score("original", "plain", 0.4),
            score("specialised", "plain", 0.7),
            score("specialised", "best", 0.8),
        ],
    } | more


def reported(version: str, **more: object) -> EvaluationReport:
    return EvaluationReport.read(report(version, **more))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def evaluated(store: Store, version: str, **more: object) -> Record:
    training = store.records.add(
        "training", "coat", key=version, files={"fashion_lora_weights.safetensors": f"weights {version}"}
    )
    model = store.records.add(
        "model",
        "coat",
        key=version,
        inputs={"training": training},
        files={"fashion_sd_model": lambda folder: folder.mkdir()},
    )
    content = report(version, **more)
    return store.records.add(
        "evaluation",
        "coat",
        inputs={"training": training, "model": model},
        made_of={"report": content},
        files={"report.json": content, "report.html": "<p>page</p>"},
    )


def test_the_first_better_model_becomes_the_champion(store: Store) -> None:
    evaluated(store, "v1")
    made = publish(store, MODELS, "coat")
    assert made.folder == store.versions.champion("coat") and made.reason == "published as version v1"


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        ("worse", "fine-tuning made it worse"),
        ("hacked", "the score rose, the pictures did not"),
        ("no evidence", "no difference to the original was found"),
    ],
)
def test_any_other_verdict_publishes_nothing_and_says_why(store: Store, verdict: str, headline: str) -> None:
    evaluated(store, "v1", verdict=verdict)
    made = publish(store, MODELS, "coat")
    assert made.folder is None and store.versions.champion("coat") is None
    assert made.reason == f"Not published: {headline}. Measured."


def test_a_challenger_that_beats_the_original_but_not_the_champion_is_not_published(store: Store) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    compared = {"verdict": "no evidence", "reason": "Neither can tell."}
    evaluated(store, "v2", champion="v1", against_champion=compared)
    made = publish(store, MODELS, "coat")
    assert made.folder is None and store.versions.champion("coat").name == "v1"
    assert made.reason == "Not published: no better than the version in use. Neither can tell."


def test_a_challenger_that_beats_the_champion_takes_its_place(store: Store) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    evaluated(store, "v2", champion="v1", against_champion={"verdict": "better", "reason": "Closer."})
    assert publish(store, MODELS, "coat").folder == store.versions.champion("coat")
    assert store.versions.champion("coat").name == "v2"


@pytest.mark.parametrize("champion", [None, "v0"])
def test_an_evaluation_that_did_not_compare_with_this_champion_does_not_replace_it(
    store: Store, champion: str | None
) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    evaluated(store, "v2", champion=champion, against_champion={"verdict": "better", "reason": "Closer."})
    assert publish(store, MODELS, "coat").folder is None
    assert store.versions.champion("coat").name == "v1"


def test_publishing_the_champion_again_changes_nothing(store: Store) -> None:
    evaluated(store, "v1")
    first = publish(store, MODELS, "coat").folder
    assert publish(store, MODELS, "coat").folder == first


def test_a_version_brings_the_weights_of_its_own_evaluation(store: Store) -> None:
    evaluated(store, "v1")
    store.records.add("training", "coat", key="v2", files={"fashion_lora_weights.safetensors": "weights v2"})
    folder = publish(store, MODELS, "coat").folder
    assert folder.name == "v1"
    assert (folder / "fashion_lora_weights.safetensors").read_text() == "weights v1"


def test_the_card_recommends_the_prompt_that_scored_higher_with_this_model() -> None:
    best = r'pipeline(prompt="a photo of a \"black\" coat", negative_prompt="shoe", guidance_scale=5.0)'
    assert best in card(reported("v1"), "base", guidance=3.0)
    plain_wins = [score("specialised", "plain", 0.9), score("specialised", "best", 0.8)]
    told = card(reported("v1", scores=plain_wins), "base", guidance=3.0)
    assert 'pipeline(prompt="a photo of a coat", guidance_scale=3.0)' in told
    assert "| plain | a photo of a coat |" in told
    same_words = reported("v1", optimized_prompt="a photo of a coat", scores=plain_wins)
    assert 'pipeline(prompt="a photo of a coat", guidance_scale=3.0)' in card(same_words, "base", guidance=3.0)


def test_the_card_calls_the_base_by_a_name_that_says_something() -> None:
    assert base_name("stable-diffusion-v1-5/stable-diffusion-v1-5") == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert base_name("/opt/embedded/generator") == "embedded/generator"
    assert "Made from `embedded/generator`" in card(reported("v1"), base_name("/opt/embedded/generator"), guidance=3.0)


def test_the_card_names_the_files_that_there_are_and_no_other() -> None:
    names = (LORA_WEIGHTS, KOHYA_LORA_WEIGHTS)
    for files in (names, names[1:], ()):
        told = card(reported("v1"), "base", guidance=3.0, files=files)
        assert [name for name in names if f"`{name}`" in told] == list(files)


def test_the_leaderboard_has_a_row_for_evaluated_styles_only(store: Store) -> None:
    assert leaderboard_row(store, "coat") == {}
    evaluated(store, "v1")
    row = leaderboard_row(store, "coat")
    assert (row["verdict"], row["published"], row["specialised, best prompt"]) == ("better", "no", 0.8)


def test_a_better_model_waits_where_somebody_must_approve_it(store: Store) -> None:
    evaluated(store, "v1")
    held = publish(store, MODELS, "coat", "required")
    assert held.folder is None and held.waits and "waits for approval" in held.reason
    assert store.versions.champion("coat") is None
    assert leaderboard_row(store, "coat")["published"] == "waits for approval"
    assert [row["state"] for row in version_rows(store, "coat")] == ["waits for approval"]
    assert approve(store, "coat").folder == store.versions.champion("coat")
    assert store.versions.pointer("coat").waiting is None
    assert publish(store, MODELS, "coat", "required").folder is not None, "the version in use needs no approval"
    with pytest.raises(StorageError, match="no version of 'coat' waits"):
        approve(store, "coat")


def test_what_waits_is_not_put_in_use_over_a_version_that_it_was_not_compared_with(store: Store) -> None:
    evaluated(store, "v2")
    publish(store, MODELS, "coat", "required")
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    with pytest.raises(StorageError, match="v2 of 'coat' was compared with no other, but v1 is in use now"):
        approve(store, "coat")
    assert store.versions.champion("coat").name == "v1"


def two(store: Store) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    evaluated(store, "v2", champion="v1", against_champion={"verdict": "better", "reason": "Closer."})
    publish(store, MODELS, "coat")


def test_going_back_puts_the_version_before_in_use_and_no_run_undoes_it(store: Store) -> None:
    two(store)
    assert store.versions.roll_back("coat") == ("v1", "v2")
    assert store.versions.champion("coat").name == "v1"
    made = publish(store, MODELS, "coat")
    assert made.folder is None and "v2 was rolled back" in made.reason
    assert {row["version"]: row["state"] for row in version_rows(store, "coat")} == {
        "v1": "in use",
        "v2": "rolled back",
    }
    with pytest.raises(StorageError, match="nothing to go back to"):
        store.versions.roll_back("coat")
    store.versions.promote("coat", "v2")
    assert store.versions.champion("coat").name == "v2" and publish(store, MODELS, "coat").folder is not None


def test_a_missing_version_is_named_and_can_be_gone_back_from(store: Store) -> None:
    two(store)
    shutil.rmtree(store.versions.champion("coat"))
    with pytest.raises(StorageError, match=r"version v2 of 'coat' is in use, but .* is missing: go back"):
        store.versions.champion("coat")
    assert store.versions.roll_back("coat") == ("v1", "v2")
    assert store.versions.champion("coat").name == "v1"


def test_a_version_in_use_or_waiting_is_not_removed(store: Store) -> None:
    two(store)
    with pytest.raises(StorageError, match="v2 of 'coat' is in use: publish or roll back"):
        store.versions.delete("coat", "v2")
    assert store.versions.delete("coat", "v1") > 0
    assert [folder.name for folder in store.versions.all("coat")] == ["v2"]
    with pytest.raises(StorageError, match="no version 'v1'; its versions: v2"):
        store.versions.promote("coat", "v1")


def test_a_version_shares_its_weights_with_the_training_and_says_what_it_costs(store: Store) -> None:
    evaluated(store, "v1")
    folder = publish(store, MODELS, "coat").folder
    weights = folder / "fashion_lora_weights.safetensors"
    assert weights.stat().st_nlink == 2
    (row,) = version_rows(store, "coat")
    assert row["bytes"] - row["bytes of its own"] == weights.stat().st_size


def test_the_card_has_the_front_matter_of_the_hub() -> None:
    told = card(reported("v1"), "owner/base", guidance=3.0, licence="creativeml-openrail-m", recipe={"rank": 8, "x": 1})
    data = ModelCard(told).data
    assert (data.license, data.library_name, data.base_model) == ("creativeml-openrail-m", "diffusers", "owner/base")
    assert data.pipeline_tag == "text-to-image" and "fashion" in data.tags
    assert "| rank | 8 |" in told and "whose licence applies: creativeml-openrail-m" in told
    local = card(reported("v1", style="a|b<script>"), "embedded/generator", guidance=3.0)
    assert ModelCard(local).data.get("base_model") is None and "<script>" not in local.split("---", 2)[2]


def test_what_was_chosen_for_a_style_binds_whoever_publishes(store: Store) -> None:
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    store.sources.choose("coat", lambda known: {"published_model": {"approval": "required"}})
    evaluated(store, "v1")
    assert publish(store, MODELS, "coat", "none").waits and publish(store, MODELS, "coat").waits
    assert store.versions.champion("coat") is None


def test_the_only_version_can_be_taken_out_of_use_and_no_run_brings_it_back(store: Store) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    with pytest.raises(StorageError, match="unpublish --style coat takes the one in use out of use"):
        store.versions.roll_back("coat")
    with pytest.raises(StorageError, match="unpublish --style coat"):
        store.versions.delete("coat", "v1")
    assert store.versions.unpublish("coat") == "v1"
    assert store.versions.champion("coat") is None and store.versions.folder("coat", "v1").is_dir()
    assert "v1 was rolled back" in publish(store, MODELS, "coat").reason
    assert [row["state"] for row in version_rows(store, "coat")] == ["rolled back"]
    with pytest.raises(StorageError, match="no version of style 'coat' is in use"):
        store.versions.unpublish("coat")
    evaluated(store, "v2")
    assert publish(store, MODELS, "coat").folder == store.versions.champion("coat"), "there is no champion to beat"
    assert store.versions.delete("coat", "v1") > 0


def test_what_was_trained_on_another_base_is_neither_exported_nor_evaluated_nor_published(store: Store) -> None:
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    made_of = {"base": "0123456789abcdef", "steps": 4}
    training = store.records.add("training", "coat", made_of=made_of, files={"trained.safetensors": b"x"})
    with pytest.raises(ModelError, match=r"was trained on the base 0123456789abcdef, but the generator .* is now"):
        export(store, MODELS, "coat")
    model = store.records.add("model", "coat", key=training.key, inputs={"training": training})
    with pytest.raises(ModelError, match=r"was trained on the base 0123456789abcdef"):
        evaluate(store, MODELS, "coat", products=2, report=lambda text: None)
    content = report(training.key)
    inputs = {"training": training, "model": model}
    store.records.add("evaluation", "coat", inputs=inputs, made_of=content, files={"report.json": content})
    with pytest.raises(ModelError, match="materialise lora_weights again, or run it with the profile"):
        publish(store, MODELS, "coat")
    require_base(MODELS, {"base": MODELS.fingerprint("generator")}, "this")
