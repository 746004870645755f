import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.diffusion import Generator
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.files import fingerprint
from fashion_pipeline.ml.training.exports.exporting import ExportError, export_loras, export_pipeline, verify_export
from fashion_pipeline.ml.training.exports.lora_files import model_spec
from fashion_pipeline_tests.ml.conftest import CPU, finetune


@pytest.fixture(scope="module")
def trained(generator_folder, pairs, tmp_path_factory):
    """A LoRA whose alpha is four times its rank."""
    output = tmp_path_factory.mktemp("trained")
    config = Recipe(rank=4, alpha=16.0, steps=20, batch_size=4, learning_rate=1e-2, warmup_steps=0)
    finetune(generator_folder, pairs[:4], [], config, output, CPU)
    return output


@pytest.fixture(scope="module")
def lora(generator_folder, trained, tmp_path_factory):
    return export_loras(generator_folder, trained, tmp_path_factory.mktemp("export"), {"title": "coat"})[0]


def test_the_lora_file_loaded_by_stock_diffusers_is_the_adapter(generator_folder, trained, lora):
    found = verify_export(generator_folder, trained, lora)
    assert found.effect > 1e-3
    assert found.error < 1e-4


def test_the_lora_file_keeps_alpha_and_says_where_it_is_from(lora):
    with safe_open(lora, "pt") as tensors:
        header = tensors.metadata()
    assert json.loads(header["lora_adapter_metadata"])["unet.lora_alpha"] == 16.0
    assert header["modelspec.title"] == "coat"
    assert json.loads(header["fashion_pipeline.recipe"])["rank"] == 4


def test_the_same_lora_exported_again_is_the_same_file(generator_folder, trained, lora, tmp_path):
    again = [export_loras(generator_folder, trained, tmp_path / str(i), {"title": "coat"})[0] for i in range(5)]
    assert {file.read_bytes() for file in again} == {lora.read_bytes()}


def test_a_file_that_lost_its_alpha_is_found_out(generator_folder, trained, lora, tmp_path):
    save_file(load_file(lora), tmp_path / "bare.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"misses \d+% of what the training changed"):
        verify_export(generator_folder, trained, tmp_path / "bare.safetensors")


def test_the_pipeline_folder_loads_in_stock_diffusers_and_is_the_adapter(generator_folder, trained, lora, tmp_path):
    folder = export_pipeline(generator_folder, trained, tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    assert pipeline.unet.dtype == torch.float16
    assert verify_export(generator_folder, trained, folder).error < 0.05
    base, merged = (load_file(next((f / "unet").glob("*.safetensors"))) for f in (generator_folder, folder))
    assert base.keys() == merged.keys()
    assert {tensor.dtype for tensor in merged.values()} == {torch.float16}
    assert {n for n in base if not torch.equal(base[n], merged[n])} == {
        n for n in base if "attn" in n and ".to_" in n and n.endswith("weight")
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_generator_with_the_lora_draws_what_the_exported_folder_draws(generator_folder, trained, lora, tmp_path):
    request = Request("a red coat", seed=1, steps=3, guidance=3.0, width=64, height=64)
    folder = export_pipeline(generator_folder, trained, tmp_path / "model")
    generators = [
        Generator(generator_folder, CPU, 1),
        Generator(generator_folder, CPU, 1, lora=lora),
        Generator(generator_folder, CPU, 1, lora=lora, scale=0.0),
        Generator(folder, CPU, 1),
    ]
    base, with_lora, switched_off, merged = [np.asarray(next(g.draw([request])).image).astype(int) for g in generators]
    assert len({g.fingerprint for g in generators}) == 4
    assert np.abs(with_lora - merged).max() <= 2
    assert np.abs(with_lora - base).max() > 5
    assert np.array_equal(base, switched_off)


def test_a_lora_that_changes_nothing_is_refused(generator_folder, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "zero")
    weights = {n: t * 0 if "lora_B" in n else t for n, t in load_file(output / "trained.safetensors").items()}
    save_file(weights, output / "trained.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="changes nothing"):
        export_loras(generator_folder, output, tmp_path, {})
    with pytest.raises(ExportError, match="that is nothing"):
        verify_export(generator_folder, output, output / "trained.safetensors")


def weights(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return file


def test_the_complete_model_shares_what_was_not_trained_with_its_base(generator_folder, trained, tmp_path):
    folder = export_pipeline(generator_folder, trained, tmp_path / "model")
    for part in ("vae", "text_encoder"):
        assert weights(folder, part).samefile(weights(generator_folder, part)), part
    assert not weights(folder, "unet").samefile(weights(generator_folder, "unet"))
    index = json.loads((folder / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None] and index["requires_safety_checker"] is False


def test_another_variant_beside_the_weights_changes_nothing(generator_folder, trained, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(generator_folder, base)
    single = {n: t.float() for n, t in load_file(weights(base, "unet")).items()}
    save_file({n: t.half() * 0 for n, t in single.items()}, base / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file(single, base / "unet" / "diffusion_pytorch_model.safetensors")
    plain = tmp_path / "plain"
    shutil.copytree(base, plain)
    (plain / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert fingerprint(base) == fingerprint(plain)
    folder = export_pipeline(base, trained, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(weights(folder, "unet")).values()} == {torch.float32}


def test_a_base_that_has_only_fp16_weights_is_exported_under_plain_names(generator_folder, trained, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(generator_folder, base)
    for part in ("unet", "vae", "text_encoder"):
        file = weights(base, part)
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    folder = export_pipeline(base, trained, tmp_path / "model")
    assert {file.name for file in folder.rglob("*.safetensors")} == {
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
    }
    assert verify_export(base, trained, folder).error < 0.05


def test_an_older_base_keeps_its_names_so_that_older_versions_read_it(generator_folder, pairs, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(generator_folder, base)
    file = weights(base, "text_encoder")
    save_file({f"text_model.{n}": t for n, t in load_file(file).items()}, file, {"format": "pt"})
    (base / "tokenizer" / "vocab.json").unlink(missing_ok=True)
    recipe = Recipe.of({"steps": 3, "batch_size": 2, "rank": 4, "text_learning_rate": 1e-2, "learning_rate": 1e-2})
    finetune(base, pairs[:4], [], recipe, tmp_path / "trained", CPU)
    folder = export_pipeline(base, tmp_path / "trained", tmp_path / "model")
    assert all(name.startswith("text_model.") for name in load_file(weights(folder, "text_encoder")))
    assert {file.name for file in (folder / "tokenizer").iterdir()} >= {"tokenizer.json", "vocab.json", "merges.txt"}
    assert verify_export(base, tmp_path / "trained", folder).error < 0.05


def test_the_headers_say_what_base_a_lora_belongs_to(generator_folder, trained, tmp_path):
    two = shutil.copytree(generator_folder, tmp_path / "two")
    config = json.loads((two / "unet" / "config.json").read_text())
    (two / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 1024}))
    for base, version, spec in (
        (generator_folder, "sd_v1", "stable-diffusion-v1/lora"),
        (two, "sd_v2", "stable-diffusion-v2-512/lora"),
    ):
        for file in export_loras(base, trained, tmp_path / version, {}):
            with safe_open(file, "pt") as opened:
                told = opened.metadata()
            assert told["modelspec.architecture"] == spec
            assert told.get("ss_base_model_version", version) == version
            assert told.get("ss_v2", str(version == "sd_v2")) == str(version == "sd_v2")
    scheduler = two / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    assert model_spec("t", 768, family_of(two))["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
