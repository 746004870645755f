"""What is asked of a run, and what is remembered of it for a style."""

from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline import api
from fashion_pipeline.api import running
from fashion_pipeline.cli.commands import _config
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.assets.publishing import PublishingConfig
from fashion_pipeline.defs.assets.samples import SearchConfig
from fashion_pipeline.defs.assets.training import TrainingConfig
from fashion_pipeline.defs.configuration import settled
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.cli.conftest import call, photos_of


def test_an_impossible_budget_is_refused_at_once() -> None:
    result = call("run", "--style", "hat", "--budget", "1")
    assert result.exit_code == 2 and "--budget" in result.output


def test_options_of_a_run_become_the_configuration_of_its_steps() -> None:
    assert _config(None, None, None, [], [], None) == {}
    knobs = ["rank=8", "caption_dropout=0.2", "horizontal_flip=false", "precision=fp32"]
    assert _config(30, 48, 9, knobs, ["my own coat"], 2) == {
        "prompt_candidates": {"prompts": ["my own coat"], "rounds": 2},
        "generated_samples": {"budget": 48, "held_out_products": 9},
        "lora_weights": {"rank": 8, "caption_dropout": 0.2, "horizontal_flip": False, "precision": "fp32", "steps": 30},
        "evaluation_report": {"products": 9},
    }
    assert _config(None, None, None, ['layers=["attention"]'], [], None)["lora_weights"] == {"layers": ["attention"]}


@pytest.mark.parametrize(
    ("knob", "mend"),
    [
        ("rank", "write it as name=value"),
        ("rank=0", "rank is 0: it must be a whole number from 1 to 1024"),
        ("rnk=8", "rnk is not known: choose among"),
        ("precision=fp8", "precision is 'fp8': it must be one of auto, fp32, bf16"),
    ],
)
def test_a_knob_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, root: Path, knob: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    (tmp_path / "photos" / "coat" / "a.png").write_bytes(b"x")
    monkeypatch.setattr("fashion_pipeline.running.launching.launcher", lambda *_: pytest.fail("a run was started"))
    result = call("run", "--style", "coat", "--source", str(tmp_path / "photos"), "--set", knob)
    assert result.exit_code == 1 and mend in " ".join(result.output.split())


def test_a_source_is_the_same_however_it_is_spelt(tmp_path: Path, root: Path) -> None:
    photos = photos_of(tmp_path / "photos", "coat")
    (tmp_path / "link").symlink_to(photos)
    api.move(photos)
    for spelling in (photos, f"{photos}/", tmp_path / "x" / ".." / "photos", tmp_path / "link"):
        assert running._take_in(Store(root), "coat", spelling, lambda text: None)[0].keys() == {"coat"}
    assert Store(root).sources.source("coat").path == str(photos)


def test_a_mode_step_or_field_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match="mode 'train' is not known: use one of prompt, finetune, full"):
        api.run("coat", "train")  # type: ignore[arg-type]
    api.move(photos_of(tmp_path / "photos", "coat"))
    with pytest.raises(ValueError, match="step 'samples' cannot be configured: choose among curated_subset, eval"):
        running._choose(Store(root), "coat", {"samples": {}}, None, False)
    with pytest.raises(ValueError, match="budgett is not known: choose among budget, held_out_products"):
        running._choose(Store(root), "coat", {"generated_samples": {"budgett": 3}}, None, False)


def test_a_preset_changes_what_it_names_and_approval_goes_by_its_own_word_only(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))

    def choose(preset: str | None = None, forget: bool = False, **config: dict[str, object]) -> object:
        return running._choose(store, "coat", config, preset, forget)

    choose(published_model={"approval": "required"}, curated_subset={"keep": 0.5}, lora_weights={"rank": 4, "steps": 9})
    mine = {"published_model": {"approval": "required"}, "curated_subset": {"keep": 0.5}}
    quick = {
        "generated_samples": {"budget": 64, "held_out_products": 24},
        "lora_weights": {"rank": 4, "steps": 100},
        "evaluation_report": {"products": 48},
    }
    assert choose("quick") == {**mine, **quick}
    assert choose("quick", generated_samples={"budget": 70})["generated_samples"]["budget"] == 70  # type: ignore[index]
    assert choose("standard", generated_samples={"budget": 64}) == {
        **mine,
        "generated_samples": {"budget": 64},
        "lora_weights": {"rank": 4},
    }
    assert choose("thorough")["prompt_candidates"] == {"rounds": 2}  # type: ignore[index]
    assert choose(forget=True) == {"published_model": {"approval": "required"}}
    assert store.sources.approval("coat") == "required"
    choose(published_model={"approval": "none"})
    assert store.sources.approval("coat") == "none"
    with pytest.raises(ValueError, match="preset 'quik' is not known: choose among standard, quick, thorough"):
        choose("quik")


def test_every_way_to_start_a_run_is_bound_by_what_was_chosen(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))
    chosen = {
        "published_model": {"approval": "required"},
        "generated_samples": {"budget": 300},
        "lora_weights": {"steps": 77, "control": True, "of an earlier version": 1},
    }
    store.sources.choose("coat", lambda known: chosen)

    def of(config: dg.Config, step: str, style: str = "coat") -> dict[str, object]:
        return settled(config, store, style, step)

    assert of(PublishingConfig(), "published_model") == {"approval": "required"}
    assert of(PublishingConfig(approval="none"), "published_model") == {"approval": "required"}, "a launchpad's default"
    assert of(SearchConfig(), "generated_samples") == {"budget": 300, "held_out_products": 128}
    assert of(SearchConfig(budget=40), "generated_samples")["budget"] == 40
    training = of(TrainingConfig(rank=4), "lora_weights")
    assert (training["steps"], training["rank"], training["control"]) == (77, 4, True)
    assert "of an earlier version" not in training
    store.sources.choose("coat", lambda known: {})
    assert of(PublishingConfig(approval="required"), "published_model") == {"approval": "required"}
    assert of(PublishingConfig(), "published_model") == {"approval": "none"}


def test_a_style_is_shown_and_changed_in_one_place(root: Path) -> None:
    Store(root).sources.register("coat", "coat", SourceSpec("/photos"))
    shown = call("style", "coat", "--set", "lora_weights.steps=60", "--set", "evaluation_report.products=64")
    assert "lora_weights.steps\t60" in shown.output and "fashion-pipeline run --style coat" in shown.output
    filled = defs.resolve_job_def("full_pipeline").partitioned_config
    ops = filled.get_run_config_for_partition_key("coat")["ops"]
    assert ops == {"lora_weights": {"config": {"steps": 60}}, "evaluation_report": {"config": {"products": 64}}}
    preset = defs.resolve_job_def("full_pipeline_quick").partitioned_config.get_run_config_for_partition_key("coat")
    assert preset["ops"]["lora_weights"]["config"]["steps"] == 100
    assert "products" not in call("style", "coat", "--unset", "evaluation_report.products").output
    assert Store(root).sources.config("coat") == {"lora_weights": {"steps": 60}}
    for arguments, told in (
        (("--unset", "evaluation_report.products"), "was not chosen for 'coat'"),
        (("--set", "lora_weights.staps=3"), "staps is not known"),
        (("--set", "steps=3"), "write it as step.field"),
    ):
        refused = call("style", "coat", *arguments)
        assert refused.exit_code == 1 and told in " ".join(refused.output.split())
    assert call("style", "hat").exit_code == call("versions", "--style", "hat").exit_code == 1
