"""Every method, optimizer and precision through the whole of it: train, be killed, go on, export, load elsewhere."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from fashion_pipeline.core.names import KOHYA_LORA_WEIGHTS, LORA_WEIGHTS
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.training.exports.exporting import effect_of, export_loras, export_pipeline, verify_export
from fashion_pipeline.ml.training.methods import Parts, merge, prepare, restore
from fashion_pipeline.ml.training.results import TrainingError, TrainingResult
from fashion_pipeline_tests.ml.conftest import CPU, finetune
from fashion_pipeline_tests.ml.training.test_finetuning import Killed, kill_after, same

SHORT = {"steps": 6, "batch_size": 2, "learning_rate": 5e-3, "warmup_steps": 0, "checkpoint_every": 2, "rank": 4}
EVERYWHERE = ("attention", "feed_forward", "convolution")

METHODS = {
    "lora": {"alpha": 16.0},
    "lora everywhere": {"layers": EVERYWHERE, "alpha": 8.0},
    "rslora": {"rslora": True, "alpha": 16.0},
    "text encoder": {"text_learning_rate": 5e-3, "alpha": 8.0},
    "dora": {"dora": True},
    "dora everywhere": {"dora": True, "layers": EVERYWHERE, "alpha": 8.0, "text_learning_rate": 5e-3},
    "loha": {"method": "loha", "alpha": 8.0, "learning_rate": 2e-2},
    "loha everywhere": {"method": "loha", "layers": EVERYWHERE, "text_learning_rate": 2e-2, "learning_rate": 2e-2},
    "lokr": {"method": "lokr", "alpha": 8.0},
    "lokr everywhere": {"method": "lokr", "layers": EVERYWHERE, "lokr_factor": 4, "text_learning_rate": 5e-3},
    "full": {"method": "full", "learning_rate": 1e-4},
}
WAYS = {
    **METHODS,
    "average": {"ema_decay": 0.9},
    "accumulation": {"gradient_accumulation": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "prior images": {"prior_images": 2},
    "adafactor": {"optimizer": "adafactor"},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "fp16": {"precision": "fp16"},
    "full, average": {"method": "full", "learning_rate": 1e-4, "ema_decay": 0.9},
}

CONVOLUTIONS_LEARN = ("lora everywhere", "full", "full, average")
"""Ways in which the memory format of what learns is not always the same."""


@pytest.fixture(scope="module", params=METHODS)
def trained(request, generator_folder, pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    finetune(generator_folder, pairs[:4], [], Recipe.of(SHORT | METHODS[request.param]), output, CPU)
    return output


@pytest.mark.parametrize(
    ("way", "layout"),
    [*((way, "contiguous") for way in WAYS), *((way, "channels_last") for way in CONVOLUTIONS_LEARN)],
)
def test_whatever_is_trained_a_killed_run_ends_with_the_very_same_weights(
    generator_folder, pairs, tmp_path, monkeypatch, way, layout
):
    library = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(way)
    if library:
        pytest.importorskip(library)
    recipe = Recipe.of(SHORT | WAYS[way])

    def train(output):
        device = replace(CPU, layout=layout)
        return finetune(generator_folder, pairs[:4], pairs[4:], recipe, output, device, cache=tmp_path / "cache")

    undisturbed = train(tmp_path / "undisturbed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        train(tmp_path / "killed")
    resumed = train(tmp_path / "killed")
    assert resumed.resumed_from == 4
    assert same(undisturbed.weights, resumed.weights)
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(resumed.weights).values())
    assert [row.held_out_loss for row in resumed.log] == [row.held_out_loss for row in undisturbed.log]
    assert resumed.log[-1].held_out_loss != resumed.log[0].held_out_loss


def test_the_complete_model_predicts_what_was_trained(generator_folder, trained, tmp_path):
    folder = export_pipeline(generator_folder, trained, tmp_path / "model")
    found = verify_export(generator_folder, trained, folder)
    assert found.effect > 1e-3
    assert found.error < 0.1
    stock = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    assert not any("lora" in name or "base_layer" in name for name, _ in stock.unet.named_modules())


def test_files_of_additions_are_read_by_stock_diffusers_and_by_ours_and_predict_what_was_trained(
    generator_folder, trained, tmp_path
):
    recipe = TrainingResult.load(trained / "result.json").identity
    files = export_loras(generator_folder, trained, tmp_path, {"title": "coat"})
    everybodys = recipe["method"] == "lora" and not (recipe["dora"] and recipe["text_learning_rate"])
    written = {} if recipe["method"] == "full" else {LORA_WEIGHTS: everybodys, KOHYA_LORA_WEIGHTS: True}
    assert [file.name for file in files] == [name for name, there in written.items() if there]
    effect = verify_export(generator_folder, trained, export_pipeline(generator_folder, trained, tmp_path / "m")).effect
    for file in files:
        if not (recipe["dora"] and file.name == KOHYA_LORA_WEIGHTS):  # of which diffusers leaves the lengths out
            assert verify_export(generator_folder, trained, file).error < 1e-3, file.name
        assert effect_of(generator_folder, file) == pytest.approx(effect, rel=1e-3), file.name


def test_kohyas_file_has_its_names_its_alpha_and_its_header(generator_folder, pairs, tmp_path):
    recipe = Recipe.of(SHORT | {"rslora": True, "alpha": 16.0, "text_learning_rate": 1e-3, "layers": EVERYWHERE})
    finetune(generator_folder, pairs[:4], [], recipe, tmp_path, CPU)
    file = export_loras(generator_folder, tmp_path, tmp_path, {"title": "coat"})[1]
    tensors = load_file(file)
    layers = {name.partition(".")[0] for name in tensors}
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0" in layers
    assert "lora_unet_down_blocks_0_resnets_0_conv1" in layers
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj" in layers
    assert {name.partition(".")[2] for name in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert {float(tensors[f"{layer}.alpha"]) for layer in layers} == {32.0}
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "32")
    assert header["ss_network_module"] == "networks.lora"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.resolution"] == "64x64"


def test_kohyas_names_are_those_of_layers_with_underscores(generator_folder):
    family = family_of(generator_folder)
    assert family.other_name("unet", "mid_block.attentions.0.proj_in") == "lora_unet_mid_block_attentions_0_proj_in"
    layer = "encoder.layers.1.self_attn.out_proj"
    assert family.other_name("text_encoder", layer) == "lora_te_text_model_encoder_layers_1_self_attn_out_proj"


@pytest.mark.parametrize(
    ("layers", "trains"),
    [
        (("attention",), {"to_q", "to_k", "to_v", "0"}),
        (("feed_forward",), {"proj", "2"}),
        (("convolution",), {"conv1", "conv2", "conv_shortcut", "time_emb_proj", "proj_in", "proj_out", "conv"}),
    ],
)
def test_only_the_layers_asked_for_learn(generator_folder, layers, trains):
    parts = Parts(family_of(generator_folder), StableDiffusionPipeline.from_pretrained(generator_folder).unet)
    prepare(parts, Recipe.of(SHORT | {"layers": layers}))
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in parts.learning()} == trains


def test_a_merged_unet_is_a_plain_one_again(generator_folder, trained):
    recipe = TrainingResult.load(trained / "result.json").identity
    recipe = Recipe.of({name: value for name, value in recipe.items() if name in Recipe.model_fields})
    pipeline = StableDiffusionPipeline.from_pretrained(generator_folder, dtype=torch.float32)
    names = set(pipeline.unet.state_dict())
    parts = Parts.of(family_of(generator_folder), recipe, partial(getattr, pipeline))
    restore(parts, recipe, load_file(trained / "trained.safetensors"))
    merge(parts)
    assert set(pipeline.unet.state_dict()) == names
    assert not any(hasattr(model, "peft_config") for model in parts.named().values())


def test_a_rank_larger_than_a_layer_names_the_layer(generator_folder, pairs, tmp_path):
    with pytest.raises(TrainingError, match=r"rank is 64, but layer .*to_q has rank 32 at most"):
        finetune(generator_folder, pairs[:4], [], Recipe.of({"rank": 64}), tmp_path, CPU)


def test_on_a_card_without_bf16_training_is_in_fp16_and_skips_what_overflows(generator_folder, pairs, tmp_path):
    recipe = Recipe.of(SHORT | {"steps": 12})
    result = finetune(generator_folder, pairs[:4], pairs[4:], recipe, tmp_path, replace(CPU, precision="fp16"))
    assert result.identity["precision"] == "fp16"
    assert result.log[-1].held_out_loss < result.log[0].held_out_loss
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(result.weights).values())
