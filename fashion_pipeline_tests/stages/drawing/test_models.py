"""Models that cannot be loaded are named, and whatever is lent is given back."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingJob
from fashion_pipeline.settings import PACKAGE, PROFILES
from fashion_pipeline.stages.drawing.models import ModelError, Models
from fashion_pipeline.stages.training.weights import training_identity
from fashion_pipeline_tests.conftest import QUICK

EMBEDDED = PACKAGE / "embedded"


def profile(folder: Path, **models: str) -> str:
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8")
    for role in ("generator", "encoder", "judge"):
        text = text.replace(f'"../embedded/{role}"', f'"{models.get(role, EMBEDDED / role)}"')
    file = folder / "mine.toml"
    for shipped in ("vocabulary.toml", "looks"):
        text = text.replace(f'"../embedded/{shipped}"', f'"{EMBEDDED}/{shipped}"')
    file.write_text(text)
    return str(file)


def lend(models: Models, role: str):
    return {"generator": models.generator, "encoder": models.encoder, "judge": models.judge}[role]()


@pytest.mark.parametrize(
    ("role", "part"),
    [("generator", "unet/config.json"), ("encoder", "model.safetensors"), ("judge", "model.safetensors")],
)
@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_broken_model_folder_is_named_with_role_profile_and_mend(
    tmp_path: Path, role: str, part: str, how: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(EMBEDDED / role, broken)
    if how == "gone":
        (broken / part).unlink()
    else:
        (broken / part).write_bytes((broken / part).read_bytes()[:100])
    models = Models(profile(tmp_path, **{role: str(broken)}), precision="fp32", machine=QUICK / "machine")
    message = f"the {role} of profile 'mine', {broken}, cannot be loaded .*: put a complete copy of the model there"
    with pytest.raises(ModelError, match=message), lend(models, role):
        pass


@pytest.mark.parametrize("role", ["generator", "encoder", "judge"])
def test_a_hub_that_cannot_be_reached_is_named_with_what_to_do(
    tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_, **__):
        raise OSError("we could not connect to the hub\nand a page of advice")

    monkeypatch.setattr("fashion_pipeline.ml.sources.snapshot_download", unreachable)
    monkeypatch.setattr("fashion_pipeline.ml.sources.DiffusionPipeline.download", unreachable)
    models = Models(profile(tmp_path, **{role: "owner/model"}), precision="fp32", machine=QUICK / "machine")
    with pytest.raises(ModelError) as error, lend(models, role):
        pass
    told = str(error.value)
    assert f"the {role} of profile 'mine', owner/model, cannot be loaded" in told and "page of advice" not in told
    assert "check that the hub can be reached" in told
    with pytest.raises(ModelError, match=role):
        models.fingerprint(role)


@pytest.mark.parametrize("role", ["encoder", "judge"])
def test_memory_is_given_back_also_after_an_error(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []
    monkeypatch.setattr("fashion_pipeline.ml.devices.free_memory", freed.append)
    models = Models("embedded", precision="fp32", machine=QUICK / "machine")
    with pytest.raises(RuntimeError, match="planted"), lend(models, role) as model:
        alive = weakref.ref(model._model)
        del model
        raise RuntimeError("planted")
    assert len(freed) == 1
    gc.collect()
    assert alive() is None


def untrained(models: Models, recipe: Recipe) -> TrainingJob:
    return TrainingJob(models.profile.generator, (), (), recipe, Path(), Path(), models.profile.generation)


def test_a_recipe_asks_for_its_precision_whatever_the_machine_does_faster() -> None:
    models = Models("embedded", precision="fp32", machine=QUICK / "machine")
    recipes = {name: models.profile.training.changed({"precision": name}) for name in ("auto", "fp32", "bf16")}
    keys = {name: training_identity(models, untrained(models, recipe)) for name, recipe in recipes.items()}
    assert keys["auto"][1]["precision"] == keys["fp32"][1]["precision"] == "fp32"
    assert keys["bf16"][0] != keys["fp32"][0] and keys["bf16"][1]["precision"] == "bf16"


def test_an_identity_names_the_versions_of_the_libraries_that_compute() -> None:
    models = Models("embedded", precision="fp32", machine=QUICK / "machine")
    identity = training_identity(models, untrained(models, models.profile.training))[1]
    assert {"torch", "diffusers", "transformers", "precision", "base", "held_out", "pairs"} <= identity.keys()
    assert models.pick().computing().keys() == {
        "precision", "layout", "attention", "torch", "diffusers", "transformers",
    }  # fmt: skip
