"""Every family through drawing, training, being killed, exports, and what stock diffusers makes of them."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file

from fashion_pipeline.core.names import LORA_WEIGHTS
from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.adapters.additions import MisfitError
from fashion_pipeline.ml.adapters.merging import merge_adapter
from fashion_pipeline.ml.diffusion import Generator
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.pipelines import load_lora, load_pipeline
from fashion_pipeline.ml.training.costs import learning_weights
from fashion_pipeline.ml.training.exports.exporting import export_loras, export_pipeline, verify_export
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.training.objective import Batch, objective_of
from fashion_pipeline.ml.training.results import TrainingError, Validation
from fashion_pipeline.stages.publishing.cards import loading, parts_without
from fashion_pipeline_tests.ml.conftest import CPU, finetune
from fashion_pipeline_tests.ml.training.test_finetuning import Killed, kill_after, same
from tools.real_models.configurations import BASES, write

SD_SCRIPTS = "6eaed2d7a4528e0a"
"""Of the 788 names that networks/lora.py of kohya-ss/sd-scripts (48d368fa) gives to the layers of its own UNet of SDXL,
convolutions included."""

RED = Request("a red coat", seed=7, steps=3, guidance=3.0, width=64, height=64)
SHORT = {
    "resolution": 64,
    "steps": 6,
    "batch_size": 2,
    "learning_rate": 5e-3,
    "warmup_steps": 0,
    "checkpoint_every": 2,
    "rank": 4,
}
EVERYWHERE = ("attention", "feed_forward", "convolution")
WAYS = {
    "lora": {"layers": EVERYWHERE, "alpha": 8.0},
    "text encoders": {"layers": EVERYWHERE, "text_learning_rate": 5e-3, "gradient_checkpointing": True},
    "full": {"method": "full", "learning_rate": 1e-4, "prior_images": 2},
}
FAMILIES = {
    "sdxl": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
    "flux2": Flux2KleinPipeline,
    "z_image": ZImagePipeline,
}
LATENTS = {"sdxl": (4, 16, 16), "sd3": (8, 16, 16), "flux2": (16, 8, 8), "z_image": (8, 16, 16)}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest):
    """The folder of a tiny base of each family but the first, and its name."""
    return request.getfixturevalue(f"{request.param}_folder"), request.param


def noise(family):
    return torch.randn((1, *LATENTS[family]), generator=torch.Generator().manual_seed(RED.seed))


def stock(folder, family, lora=None, negative=None):
    """What stock diffusers draws, (64, 64, 3) from 0 to 1."""
    without = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {}
    pipeline = FAMILIES[family].from_pretrained(folder, dtype=torch.float32, **without)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        load_lora(pipeline, lora)
    told = {"negative_prompt": negative or None}
    if family == "flux2":  # takes no text to keep away from
        told = {"negative_prompt_embeds": pipeline.encode_prompt(negative or "")[0]}
    return pipeline(
        prompt=RED.prompt,
        **told,
        latents=noise(family),
        num_inference_steps=RED.steps,
        guidance_scale=RED.guidance,
        width=64,
        height=64,
        output_type="np",
    ).images[0]


def ours(folder, lora=None, negative=""):
    with Generator(folder, CPU, batch_size=1, lora=lora) as generator:
        (drawn,) = generator.draw([replace(RED, negative_prompt=negative)])
    return np.asarray(drawn.image) / 255


@pytest.mark.parametrize("negative", ["", "blurry"])
def test_an_image_is_what_stock_diffusers_draws(base, negative):
    assert np.abs(ours(base[0], negative=negative) - stock(*base, negative=negative)).max() < 1.5 / 255


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_training_goes_on_to_the_very_same_weights_and_exports_carry_them(
    base, clip_folder, pairs, tmp_path, monkeypatch, way
):
    folder, family = base
    if family != "sdxl" and way == "text encoders":
        pytest.skip("they are not trained")
    recipe = Recipe.of(SHORT | WAYS[way] | {"sample_every": 3})
    validation = Validation((RED, replace(RED, seed=8)), tuple(pairs[4:6]), str(clip_folder))

    def train(output):
        cache = tmp_path / "cache"
        return finetune(folder, pairs[:4], pairs[4:], recipe, output, CPU, cache=cache, validation=validation)

    undisturbed = train(tmp_path / "undisturbed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        train(tmp_path / "killed")
    resumed = train(tmp_path / "killed")
    assert resumed.resumed_from == 4 and same(undisturbed.weights, resumed.weights)
    assert resumed.log[-1].held_out_loss != resumed.log[0].held_out_loss
    assert resumed.log[-1].similarity is not None
    learnt = load_file(resumed.weights)
    counted = sum(weight.numel() for weight in learning_weights(folder, recipe))
    assert counted == sum(t.numel() for name, t in learnt.items() if not name.endswith("pos_embed.pos_embed"))
    exports_carry_it(folder, family, tmp_path / "undisturbed", tmp_path, way)


def exports_carry_it(folder, family, trained, out, way):
    model = export_pipeline(folder, trained, out / "model")
    assert verify_export(folder, trained, model).error < 0.1
    assert np.abs(stock(model, family) - stock(folder, family)).max() > 0
    files = export_loras(folder, trained, out, {"title": "coat"})
    assert len(files) == (0 if way == "full" else 2)
    merged = []
    for file in files:
        if family != "sd3" or file.name == LORA_WEIGHTS:  # of SD 3 diffusers reads its own format only
            assert verify_export(folder, trained, file).error < 1e-3
        pipeline = load_pipeline(folder)
        merge_adapter(pipeline, family_of(folder), file)
        merged.append(getattr(pipeline, family_of(folder).denoiser).state_dict())
    if files:
        assert all(torch.equal(tensor, merged[1][name]) for name, tensor in merged[0].items())


def test_a_lora_changes_the_image_in_stock_diffusers_as_in_the_training(base, pairs, tmp_path):
    folder, family = base
    recipe = Recipe.of(SHORT | {"learning_rate": 2e-2, "alpha": 16.0})
    finetune(folder, pairs[:4], [], recipe, tmp_path, CPU)
    file = export_loras(folder, tmp_path, tmp_path, {})[0]
    assert np.abs(stock(folder, family, file) - stock(folder, family)).max() > 0.02
    assert np.abs(ours(folder, file) - stock(folder, family, file)).max() < 1.5 / 255


def test_what_sd3_does_not_train_is_said(sd3_folder, pairs, tmp_path):
    with pytest.raises(TrainingError, match=r"text encoders of Stable Diffusion 3 .* set text_learning_rate to 0"):
        finetune(sd3_folder, pairs[:4], [], Recipe.of(SHORT | {"text_learning_rate": 1e-3}), tmp_path, CPU)
    with pytest.raises(TrainingError, match=r"has no layers of convolution: name attention"):
        finetune(sd3_folder, pairs[:4], [], Recipe.of(SHORT | {"layers": ("convolution",)}), tmp_path, CPU)


def test_flow_matching_goes_from_latents_to_noise_and_dwells_in_the_middle():
    objective = objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    latents, noise = torch.full((3, 1, 1, 1), 2.0), torch.full((3, 1, 1, 1), -1.0)
    batch = Batch(latents, noise, torch.tensor([0, 500, 999]), {})
    noisy, told = objective.noisy(batch)
    share = told / 1000
    assert share[0] == 1 and 0.7 < share[1] < 0.8 and share[2] < 0.01, "a shift of 3 makes a half three quarters"
    assert torch.allclose(noisy.flatten(), 2 - 3 * share) and (objective.target(batch) == -3).all()
    drawn = objective.draw(4000, torch.Generator().manual_seed(0)) / 1000
    inside = float(((drawn > 0.25) & (drawn < 0.75)).float().mean())
    assert 0.69 < inside < 0.77, "of a logit-normal 73 % lie there"
    assert objective.weights(batch.timesteps, 5.0).tolist() == [1.0] * 3


def test_kohyas_names_of_sdxl_are_those_of_the_original_code_and_lead_back(sdxl_folder, pairs, tmp_path):
    recipe = Recipe.of(SHORT | {"layers": EVERYWHERE, "text_learning_rate": 1e-3})
    finetune(sdxl_folder, pairs[:4], [], recipe, tmp_path, CPU)
    file = export_loras(sdxl_folder, tmp_path, tmp_path, {"title": "coat"})[1]
    layers = {name.partition(".")[0] for name in load_file(file)}
    assert {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_output_blocks_2_2_conv",
        "lora_unet_output_blocks_8_0_skip_connection",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
    } <= layers
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert (header["ss_base_model_version"], header["ss_v2"]) == ("sdxl_base_v1-0", "False")


@pytest.mark.parametrize("base", BASES)
def test_every_layer_of_a_real_base_gets_its_additions_and_a_name_of_its_own(base, tmp_path):
    family = family_of(write(base, tmp_path))
    groups = EVERYWHERE if base in ("sd15", "sdxl") else ("attention", "feed_forward")
    recipe = Recipe.of({"rank": 4, "layers": groups})
    with torch.device("meta"):
        parts = Parts.of(family, recipe, family.skeleton)
        ends = tuple(f".{end}" for end in family.layers(family.denoiser, recipe))
        layers = [name for name, _ in parts.denoiser.named_modules() if f".{name}".endswith(ends)]
        prepare(parts, recipe)
    assert len(parts.learning()) == 2 * len(layers) and all(
        any(f".{name}".endswith(end) for name in layers) for end in ends
    )
    names = sorted({family.other_name(family.denoiser, layer) for layer in layers})
    together = 4 * family.config["num_layers"] if base.startswith("flux2") else 0  # q, k and v of text and image
    assert len(names) == len(layers) - together
    if base == "sdxl":
        assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == SD_SCRIPTS


def test_a_lora_of_another_family_is_told_from_one_that_is_damaged(generator_folder, sdxl_folder, pairs, tmp_path):
    recipe = Recipe.of(SHORT | {"text_learning_rate": 1e-3})
    for base in (generator_folder, sdxl_folder):
        finetune(base, pairs[:4], [], recipe, tmp_path / base.name, CPU)
        export_loras(base, tmp_path / base.name, tmp_path / base.name, {})
    for base, other in ((generator_folder, sdxl_folder), (sdxl_folder, generator_folder)):
        for file in sorted((tmp_path / other.name).glob("fashion_lora*")):
            with pytest.raises(MisfitError):
                merge_adapter(load_pipeline(base), family_of(base), file)


def test_what_is_no_base_is_refused_with_what_it_is(generator_folder, tmp_path):
    folder = shutil.copytree(generator_folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "KolorsPipeline"}))
    with pytest.raises(ValueError, match=r"is a KolorsPipeline, which is not known: .*Stable Diffusion XL"):
        family_of(folder)
    (folder / "model_index.json").write_text(json.dumps(index))
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 9}))
    with pytest.raises(ValueError, match=r"9 channels, 4 of them latents: it is made for inpainting"):
        family_of(folder)


def test_sdxl_without_its_second_text_encoder_is_named(sdxl_folder, tmp_path):
    folder = shutil.copytree(sdxl_folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_2": [None, None]}))
    with pytest.raises(ValueError, match="has no text_encoder_2"):
        family_of(folder)


def test_half_precision_rounds_no_size(sdxl_folder):
    seen = []
    family = family_of(sdxl_folder)
    family.predict(partial(_noting, seen), torch.zeros(2, 4, 100, 90), torch.zeros(2), _texts())
    assert seen[0]["time_ids"].tolist() == [[400, 360, 0, 0, 400, 360]] * 2
    assert seen[0]["time_ids"].dtype == torch.float32


def _noting(seen, *given, added_cond_kwargs, **named):
    seen.append(added_cond_kwargs)
    return (torch.zeros(1),)


def _texts():
    return {"prompt_embeds": torch.zeros(2, 77, 64), "pooled_prompt_embeds": torch.zeros(2, 24)}


def test_the_lines_of_a_card_load_a_base_without_a_t5(sd3_folder):
    lines = loading(str(sd3_folder), parts_without(sd3_folder))
    assert lines.endswith(", text_encoder_3=None, tokenizer_3=None)")
    assert isinstance(eval(lines, {"DiffusionPipeline": DiffusionPipeline}), StableDiffusion3Pipeline)
