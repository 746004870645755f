"""LoRA files from anywhere: each layer gets B A alpha / rank of that layer, or the file is refused with the reason."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris import create_lycoris
from safetensors.torch import load_file, save_file

from fashion_pipeline.ml.adapters.additions import AdapterError
from fashion_pipeline.ml.adapters.merging import merge_adapter
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.pipelines import load_lora, load_pipeline
from fashion_pipeline.settings import PACKAGE

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def layers(generator_folder: Path) -> dict[str, torch.Tensor]:
    """`unet.mid_block.…` or `text_encoder.encoder.…` → weight, of the layers that LoRA usually has."""
    pipeline = load_pipeline(generator_folder)
    ends = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in", "q_proj", "out_proj")
    return {
        f"{part}.{name.removeprefix('text_model.')}": module.weight.detach().clone()
        for part in ("unet", "text_encoder")
        for name, module in getattr(pipeline, part).named_modules()
        if name.endswith(ends)
    }


def factors(layers: dict[str, torch.Tensor], rank: Callable[[int], int] = lambda at: 4) -> Factors:
    random = torch.Generator().manual_seed(0)
    found: Factors = {}
    for at, (name, weight) in enumerate(layers.items()):
        r = rank(at)
        down = torch.randn((r, *weight.shape[1:]), generator=random)
        up = torch.randn((weight.shape[0], r, *[1] * (weight.dim() - 2)), generator=random) * 0.1
        found[name] = down, up
    return found


def expected(layers: dict[str, torch.Tensor], made: Factors, scale: Callable[[str], float]) -> dict[str, torch.Tensor]:
    """Each weight with its own product, computed by hand."""
    found = {}
    for name, weight in layers.items():
        down, up = made[name]
        product = torch.einsum("or,r...->o...", up.flatten(1), down)
        found[name] = weight + scale(name) * product.reshape(weight.shape)
    return found


def merged(folder: Path, file: Path, layers: dict[str, torch.Tensor], scale: float = 1.0) -> dict[str, torch.Tensor]:
    pipeline = load_pipeline(folder)
    merge_adapter(pipeline, family_of(folder), file, scale)
    return {name: _at(pipeline, name) for name in layers}


def _at(pipeline: Any, name: str) -> torch.Tensor:
    part, _, layer = name.partition(".")
    model = getattr(pipeline, part)
    known = {each.removeprefix("text_model."): module for each, module in model.named_modules()}
    return known[layer].weight.detach()  # type: ignore[return-value]


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-5, msg=name)


def kohya(made: Factors, alpha: Callable[[int], float | None], part: str = "lora_te") -> dict[str, torch.Tensor]:
    tensors, family = {}, family_of(PACKAGE / "embedded" / "generator")
    for at, (name, (down, up)) in enumerate(made.items()):
        layer = family.other_name(*name.split(".", 1)).replace("lora_te", part)
        tensors |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
        if (own := alpha(at)) is not None:
            tensors[f"{layer}.alpha"] = torch.tensor(own)
    return tensors


ALPHAS: dict[str, Callable[[int], float | None]] = {
    "one": lambda at: 2.0,
    "missing in some": lambda at: 1.0 if at % 3 else None,
    "different": lambda at: float(1 + at % 5),
    "none": lambda at: None,
}


@pytest.mark.parametrize("part", ["lora_te", "lora_te1"])
@pytest.mark.parametrize("alphas", ALPHAS)
@pytest.mark.parametrize("ranks", ["one", "different"])
def test_kohyas_layers_each_have_their_own_alpha_and_rank(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path, alphas: str, ranks: str, part: str
) -> None:
    made = factors(layers, lambda at: 4 if ranks == "one" else 1 + at % 6)
    save_file(kohya(made, ALPHAS[alphas], part), file := tmp_path / "a.safetensors")
    order = list(made)

    def scale(name: str) -> float:
        alpha = ALPHAS[alphas](order.index(name))
        return 1.0 if alpha is None else alpha / len(made[name][0])

    assert_same(merged(generator_folder, file, layers), expected(layers, made, scale))
    assert_same(merged(generator_folder, file, layers, 0.5), expected(layers, made, lambda name: scale(name) / 2))


def diffusers_of_today(name: str, half: str) -> str:
    part, _, layer = name.partition(".")
    layer = f"text_model.{layer}" if part == "text_encoder" else layer
    return f"{part}.{layer}.lora_{'A' if half == 'down' else 'B'}.weight"


def diffusers_before_peft(name: str, half: str) -> str:
    part, _, layer = name.partition(".")
    if part == "text_encoder":
        return f"text_encoder.text_model.{layer}.lora_linear_layer.{half}.weight"
    for end in ("to_q", "to_k", "to_v", "to_out.0"):
        if layer.endswith(end):
            return f"unet.{layer.removesuffix(end)}processor.{end.removesuffix('.0')}_lora.{half}.weight"
    return f"unet.{layer}.lora.{half}.weight"


def peft(name: str, half: str) -> str:
    return f"base_model.model.{name.removeprefix('unet.')}.lora_{'A' if half == 'down' else 'B'}.weight"


@pytest.mark.parametrize("naming", [diffusers_of_today, diffusers_before_peft, peft])
@pytest.mark.parametrize("ranks", ["one", "different"])
def test_every_other_format_is_read_layer_by_layer_too(
    generator_folder: Path,
    layers: dict[str, torch.Tensor],
    tmp_path: Path,
    naming: Callable[[str, str], str],
    ranks: str,
) -> None:
    used = {name: weight for name, weight in layers.items() if naming is not peft or name.startswith("unet.")}
    made = factors(used, lambda at: 4 if ranks == "one" else 1 + at % 6)
    tensors = {naming(name, half): made[name][at] for name in used for at, half in enumerate(("down", "up"))}
    save_file(tensors, file := tmp_path / "a.safetensors")
    assert_same(merged(generator_folder, file, used), expected(used, made, lambda name: 1.0))


@pytest.mark.parametrize("rslora", [False, True])
def test_the_adapters_own_metadata_says_alpha_by_layer(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path, rslora: bool
) -> None:
    used = {name: weight for name, weight in layers.items() if name.startswith("unet.")}
    made = factors(used)
    settings = {"r": 4, "lora_alpha": 8, "use_rslora": rslora, "alpha_pattern": {"to_q": 2}}
    tensors = {
        diffusers_of_today(n, half): made[n][at].contiguous() for n in used for at, half in enumerate(("down", "up"))
    }
    told = json.dumps({f"unet.{name}": value for name, value in settings.items()})
    save_file(tensors, inside := tmp_path / "a.safetensors", {"lora_adapter_metadata": told})
    (tmp_path / "peft").mkdir()
    own = {peft(n, half): made[n][at] for n in used for at, half in enumerate(("down", "up"))}
    save_file(own, beside := tmp_path / "peft" / "adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(settings))

    def scale(name: str) -> float:
        return (2 if name.endswith("to_q") else 8) / (math.sqrt(4) if rslora else 4)

    for file in (inside, beside):
        assert_same(merged(generator_folder, file, used), expected(used, made, scale))


def test_a_file_with_one_alpha_is_merged_as_stock_diffusers_does(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    used = {name: weight for name, weight in layers.items() if "attn" in name and name.startswith("unet.")}
    save_file(kohya(factors(used), ALPHAS["one"]), file := tmp_path / "a.safetensors")
    stock = load_pipeline(generator_folder)
    load_lora(stock, file)
    stock.fuse_lora()
    stock.unload_lora_weights()
    assert_same(merged(generator_folder, file, used), {name: _at(stock, name) for name in used})


LYCORIS: dict[str, dict[str, Any]] = {
    "lora": {"algo": "lora"},
    "locon with Tucker": {"algo": "locon", "use_tucker": True},
    "dora": {"algo": "lora", "dora_wd": True},
    "dora by columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "loha": {"algo": "loha"},
    "loha with Tucker": {"algo": "loha", "use_tucker": True},
    "loha with lengths": {"algo": "loha", "dora_wd": True},
    "lokr": {"algo": "lokr"},
    "lokr with Tucker": {"algo": "lokr", "use_tucker": True},
    "lokr of two products": {"algo": "lokr", "factor": 4, "decompose_both": True},
    "lokr with lengths": {"algo": "lokr", "dora_wd": True},
}


@pytest.mark.parametrize("kind", LYCORIS)
def test_what_lycoris_trained_predicts_here_what_it_predicts_there(
    generator_folder: Path, tmp_path: Path, kind: str
) -> None:
    family = family_of(generator_folder)
    there, here = load_pipeline(generator_folder), load_pipeline(generator_folder)
    before = prediction(here)
    network = create_lycoris(there.unet, linear_dim=2, linear_alpha=1.0, conv_dim=2, conv_alpha=1.0, **LYCORIS[kind])
    network.apply_to()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))
    network.save_weights(str(tmp_path / "a.safetensors"), torch.float32, {})
    merge_adapter(here, family, tmp_path / "a.safetensors")
    wanted, found = prediction(there), prediction(here)
    assert (wanted - before).norm() > 1e-2 * before.norm()
    assert (found - wanted).norm() < 1e-3 * (wanted - before).norm()


def test_whole_weights_of_lycoris_are_refused_by_their_kind(generator_folder: Path, tmp_path: Path) -> None:
    network = create_lycoris(load_pipeline(generator_folder).unet, linear_dim=2, algo="full")
    network.apply_to()
    network.save_weights(str(file := tmp_path / "a.safetensors"), torch.float32, {})
    with pytest.raises(AdapterError, match="differences of whole weights"):
        merge_adapter(load_pipeline(generator_folder), family_of(generator_folder), file)


def prediction(pipeline: Any) -> torch.Tensor:
    """Of the UNet, for fixed noise, times and texts."""
    random, unet = torch.Generator().manual_seed(3), pipeline.unet.eval()
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    noise = torch.randn((2, unet.config.in_channels, side, side), generator=random)
    with torch.inference_mode():
        found: torch.Tensor = unet(noise, torch.tensor([200, 700]), torch.randn((2, 7, width), generator=random)).sample
    return found


def lora(tmp_path: Path, layers: dict[str, torch.Tensor], name: str = "a.safetensors", **more: torch.Tensor) -> Path:
    save_file(kohya(factors(layers), ALPHAS["one"]) | more, tmp_path / name)
    return tmp_path / name


LAYER = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{LAYER}.oft_blocks", "is an OFT"),
        ("lora_unet_mid_block_attentions_0_proj_out.hada_w1_a", "only one half"),
        ("lora_unet_mid_block_attentions_0_proj_out.lokr_w1", "only one half"),
        (f"{LAYER}.diff", "differences of whole weights"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "another family of models"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "another family of models"),
        ("transformer.blocks.0.attn.to_q.lora_A.weight", "another family of models"),
        ("lora_unet_input_blocks_9_attn.lora_down.weight", "only one half"),
        ("bundle_emb.trigger.string_to_param", "is a textual inversion"),
        ("unet.mid_block.attention.gate", "part of no adapter"),
    ],
)
def test_what_would_be_left_out_is_named_and_refused(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path, name: str, why: str
) -> None:
    file = lora(tmp_path, layers, **{name: torch.ones(4, 4)})
    pipeline = load_pipeline(generator_folder)
    with pytest.raises(AdapterError, match=why):
        merge_adapter(pipeline, family_of(generator_folder), file)
    assert all(torch.equal(_at(pipeline, each), weight) for each, weight in layers.items()), "nothing was merged"


def test_layers_that_the_model_does_not_have_or_of_another_size_are_named(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    unknown = {f"lora_unet_attic.{half}.weight": torch.ones(4, 4) for half in ("lora_down", "lora_up")}
    with pytest.raises(AdapterError, match=r"the unet has no layer 'attic' \(lora_unet_attic"):
        merge_adapter(load_pipeline(generator_folder), family_of(generator_folder), lora(tmp_path, layers, **unknown))
    (name, weight) = next(iter(layers.items()))
    wide = {name: torch.zeros(weight.shape[0], weight.shape[1] + 1)}
    save_file(kohya(factors(wide), ALPHAS["one"]), file := tmp_path / "b.safetensors")
    with pytest.raises(AdapterError, match="is for a layer of another size"):
        merge_adapter(load_pipeline(generator_folder), family_of(generator_folder), file)


def test_files_that_are_none_say_what_they_are(
    generator_folder: Path, layers: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    whole = lora(tmp_path, layers)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    shutil.copy(whole, capitals := tmp_path / "A.SAFETENSORS")
    (pickled := tmp_path / "a.pt").write_bytes(b"PK")
    tensors = load_file(whole)
    tensors[next(name for name in tensors if "lora_up" in name)][0] = float("nan")
    save_file(tensors, nan := tmp_path / "nan.safetensors")
    save_file({}, empty := tmp_path / "empty.safetensors")
    merge_adapter(load_pipeline(generator_folder), family_of(generator_folder), capitals)
    for file, why in ((cut, "cut off"), (pickled, "is a pickle"), (nan, "are no numbers"), (empty, "no tensors")):
        with pytest.raises(AdapterError, match=why):
            merge_adapter(load_pipeline(generator_folder), family_of(generator_folder), file)
