"""What becomes of an evaluated model: the rule, the card, and the champion that must be beaten."""

from pathlib import Path

import pytest

from fashion_pipeline.stages.models import Models
from fashion_pipeline.stages.publishing import base_name, card, leaderboard_row, publish
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


@pytest.mark.parametrize("verdict", ["worse", "hacked", "no evidence"])
def test_any_other_verdict_publishes_nothing_and_says_why(store: Store, verdict: str) -> None:
    evaluated(store, "v1", verdict=verdict)
    made = publish(store, MODELS, "coat")
    assert made.folder is None and store.versions.champion("coat") is None
    assert made.reason == f"nothing published, the verdict is {verdict}: Measured."


def test_a_challenger_that_beats_the_original_but_not_the_champion_is_not_published(store: Store) -> None:
    evaluated(store, "v1")
    publish(store, MODELS, "coat")
    compared = {"verdict": "no evidence", "reason": "Neither can tell."}
    evaluated(store, "v2", champion="v1", against_champion=compared)
    made = publish(store, MODELS, "coat")
    assert made.folder is None and store.versions.champion("coat").name == "v1"
    assert "version v1 stays" in made.reason and "Neither can tell." in made.reason


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
    best = r'pipeline("a photo of a \"black\" coat", negative_prompt="shoe", guidance_scale=5.0)'
    assert best in card(report("v1"), "base", guidance=3.0)
    plain_wins = [score("specialised", "plain", 0.9), score("specialised", "best", 0.8)]
    told = card(report("v1", scores=plain_wins), "base", guidance=3.0)
    assert 'pipeline("a photo of a coat", guidance_scale=3.0)' in told
    assert "| plain | a photo of a coat |" in told
    same_words = report("v1", optimized_prompt="a photo of a coat", scores=plain_wins)
    assert 'pipeline("a photo of a coat", guidance_scale=3.0)' in card(same_words, "base", guidance=3.0)


def test_the_card_calls_the_base_by_a_name_that_says_something() -> None:
    assert base_name("stable-diffusion-v1-5/stable-diffusion-v1-5") == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert base_name("/opt/embedded/generator") == "embedded/generator"
    assert "Made from `embedded/generator`" in card(report("v1"), base_name("/opt/embedded/generator"), guidance=3.0)


def test_the_leaderboard_has_a_row_for_evaluated_styles_only(store: Store) -> None:
    assert leaderboard_row(store, "coat") == {}
    evaluated(store, "v1")
    row = leaderboard_row(store, "coat")
    assert (row["verdict"], row["published"], row["specialised, best prompt"]) == ("better", "no", 0.8)
