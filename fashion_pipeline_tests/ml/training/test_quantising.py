import sys

import pytest
import torch
from diffusers import SD3Transformer2DModel

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.training.exports.exporting import export_loras, export_pipeline, verify_export
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.training.quantising import quantise
from fashion_pipeline.ml.training.results import TrainingError
from fashion_pipeline_tests.ml.conftest import CPU, finetune
from fashion_pipeline_tests.ml.training.test_finetuning import Killed, kill_after, same

SHORT = {"steps": 6, "batch_size": 2, "learning_rate": 5e-3, "warmup_steps": 0, "checkpoint_every": 2, "rank": 4}
MOST_WRONG = {"int8": 0.01, "nf4": 0.2}
SHARE = {"int8": 0.3, "nf4": 0.17}
"""Of the bytes in fp32, with scales."""


@pytest.fixture(params=MOST_WRONG)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("bitsandbytes")
    return str(request.param)


def test_a_killed_quantised_training_goes_on_to_the_very_same_weights(sd3_folder, pairs, tmp_path, monkeypatch, kind):
    recipe = Recipe.of(SHORT | {"quantize": kind, "gradient_checkpointing": True})

    def train(output, recipe=recipe):
        return finetune(sd3_folder, pairs[:4], pairs[4:], recipe, output, CPU, cache=tmp_path / "cache")

    undisturbed = train(tmp_path / "undisturbed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        train(tmp_path / "killed")
    resumed = train(tmp_path / "killed")
    assert resumed.resumed_from == 4 and same(undisturbed.weights, resumed.weights)
    plain = train(tmp_path / "plain", Recipe.of(SHORT))
    assert not same(plain.weights, resumed.weights)
    assert resumed.log[0].held_out_loss == pytest.approx(plain.log[0].held_out_loss, rel=MOST_WRONG[kind])
    (file, _) = export_loras(sd3_folder, tmp_path / "killed", tmp_path, {})
    assert verify_export(sd3_folder, tmp_path / "killed", file).error < 1e-3
    model = export_pipeline(sd3_folder, tmp_path / "killed", tmp_path / "model")
    assert verify_export(sd3_folder, tmp_path / "killed", model).error < 0.1


def test_only_what_is_frozen_is_quantised_and_takes_less(sd3_folder, kind):
    family = family_of(sd3_folder)
    parts = Parts(family, SD3Transformer2DModel(**(family.config | {"attention_head_dim": 64})))
    prepare(parts, Recipe.of({"rank": 4}))
    layers = [each for each in parts.denoiser.modules() if isinstance(each, torch.nn.Linear)]
    before = sum(each.weight.nbytes for each in layers if not each.weight.requires_grad)
    learning = {name: weight.clone() for name, weight in parts.learning().items()}
    quantise(parts.denoiser, kind, CPU)
    after = parts.learning()
    assert all(
        torch.equal(weight, after[name]) and after[name].dtype == torch.float32 for name, weight in learning.items()
    )
    assert _stored(parts.denoiser) < SHARE[kind] * before


def _stored(model: torch.nn.Module) -> int:
    """Bytes of the frozen weights of linear layers, scales included."""
    frozen = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and not each.weight.requires_grad]
    states = [getattr(layer.weight, "quant_state", None) for layer in frozen]
    scales = sum(
        state.absmax.nbytes if state else 4 * layer.out_features for layer, state in zip(frozen, states, strict=True)
    )
    return scales + sum(layer.weight.nbytes for layer in frozen)


def test_a_device_that_knows_no_quantised_weights_is_named():
    with pytest.raises(
        TrainingError, match="quantize is int8, which bitsandbytes does not know on mps: set it to none"
    ):
        quantise(torch.nn.Linear(2, 2), "int8", Device("mps", "fp32"))


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match=r"quantize \(nf4\) needs bitsandbytes, .*fashion-pipeline\[quantised\]"):
        quantise(torch.nn.Linear(2, 2), "nf4", CPU)


@pytest.mark.parametrize("other", [{"method": "full"}, {"dora": True}])
def test_what_learns_whole_is_not_quantised(other):
    with pytest.raises(ValueError, match="quantize is 'int8', which is for a LoRA without dora: set it to none"):
        Recipe.of({"quantize": "int8", **other})
