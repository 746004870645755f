import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.diffusion import Generator, PrecisionError
from fashion_pipeline.ml.pipelines import load_pipeline
from fashion_pipeline_tests.ml.conftest import CPU

RED = Request("a red coat", "blurry", seed=7, steps=3, guidance=3.0, width=64, height=64)


BASES = ["generator", "sdxl", "sd3", "flux2", "z_image"]


@pytest.fixture(scope="module", params=itertools.product(BASES, ["fp32", "bf16"]), ids="-".join)
def generator(request: pytest.FixtureRequest):
    family, precision = request.param
    folder = request.getfixturevalue(f"{family}_folder")
    with Generator(folder, Device("cpu", precision, "cpu"), batch_size=4) as generator:
        yield generator


def draw(generator: Generator, requests: list[Request]) -> list[np.ndarray]:
    found = {drawn.index: drawn.image for drawn in generator.draw(requests)}
    return [np.asarray(found[i]) for i in range(len(requests))]


def test_the_same_request_is_the_same_image_and_another_seed_another(generator):
    first, again, other = draw(generator, [RED, RED, replace(RED, seed=8)])
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_image_does_not_depend_on_neighbours_or_place(generator):
    alone = draw(generator, [RED])[0]
    others = [replace(RED, prompt=f"coat {i}", seed=i) for i in range(6)]
    for place in (0, 2, 6):
        assert np.array_equal(draw(generator, [*others[:place], RED, *others[place:]])[place], alone)


def test_unequal_requests_come_back_under_their_own_index(generator):
    requests = [RED, replace(RED, steps=2), replace(RED, width=32), replace(RED, guidance=1.0), RED]
    found = {drawn.index: drawn.image for drawn in generator.draw(requests)}
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert found[2].size == (32, 64)
    assert np.array_equal(np.asarray(found[0]), np.asarray(found[4]))
    assert not np.array_equal(np.asarray(found[0]), np.asarray(found[3]))


def test_prompt_and_negative_prompt_matter(generator):
    images = draw(generator, [RED, replace(RED, prompt="a blue shoe"), replace(RED, negative_prompt="")])
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_prompt_too_long_is_refused_before_the_first_image(generator):
    fitting = generator.text_limit - generator.token_count("")  # the tiny tokenizers know bytes alone
    long = replace(RED, prompt="x" * (fitting + 1))
    assert generator.token_count("x" * fitting) == generator.text_limit
    limit = generator.text_limit
    with pytest.raises(ValueError, match=f"prompt of {limit + 1} tokens, but the model reads {limit}"):
        next(generator.draw([RED, long]))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_parts_that_come_to_the_device_one_by_one_draw_the_same(base, precision, request):
    folder, device = request.getfixturevalue(f"{base}_folder"), Device("cpu", precision, "cpu")
    with Generator(folder, device, batch_size=2) as whole, Generator(folder, device, 2, offload=True) as parts:
        came = []
        for module in parts._pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                module._hf_hook.pre_forward = noting(came, module, module._hf_hook.pre_forward)
        two = [RED, replace(RED, seed=8)]
        assert np.array_equal(draw(whole, two), draw(parts, two))
    assert len(came) >= 3, "text encoder, denoiser and autoencoder each came"


def noting(came: list[type], module: torch.nn.Module, inside):
    def pre_forward(*given, **named):
        came.append(type(module))
        return inside(*given, **named)

    return pre_forward


def test_when_memory_runs_out_the_batch_is_halved_and_all_images_come(generator_folder, monkeypatch):
    generator = Generator(generator_folder, CPU, batch_size=4)
    inside = generator._draw_batch

    first = generator.identity().sample_id(RED)

    def small_memory(requests):
        if generator.batch_size > 1:
            raise torch.OutOfMemoryError("planted")
        return inside(requests)

    monkeypatch.setattr(generator, "_draw_batch", small_memory)
    found = list(generator.draw([RED] * 3))
    assert sorted(drawn.index for drawn in found) == [0, 1, 2]
    assert {drawn.id for drawn in found} == {generator.identity().sample_id(RED)} != {first}, (
        "the id names the shape drawn at"
    )
    assert generator.batch_size == 1


def test_another_error_is_not_taken_for_lack_of_memory(generator_folder, monkeypatch):
    generator = Generator(generator_folder, CPU, batch_size=2)

    def broken(requests):
        raise RuntimeError("planted")

    monkeypatch.setattr(generator, "_draw_batch", broken)
    with pytest.raises(RuntimeError, match="planted"):
        next(generator.draw([RED]))


def test_the_identity_of_a_sample_tells_all_that_changes_the_image(generator_folder):
    generator = Generator(generator_folder, CPU, batch_size=4)
    other_shape = Generator(generator_folder, CPU, batch_size=2)
    other_precision = Generator(generator_folder, Device("cpu", "bf16", ""), batch_size=4)
    ids = [g.identity().sample_id(RED) for g in (generator, other_shape, other_precision)]
    ids += [generator.identity().sample_id(replace(RED, **{field: 2})) for field in ("seed", "steps", "guidance")]
    assert len(set(ids)) == 6
    assert generator.identity().sample_id(RED) == Generator(generator_folder, CPU, batch_size=4).identity().sample_id(
        RED
    )


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("width", 60), ("height", 0), ("seed", -1)])
def test_an_impossible_request_names_its_field(field: str, value: int):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        replace(RED, **{field: value})


def test_a_missing_generator_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not the folder of a pipeline"):
        Generator(tmp_path / "nowhere", CPU)


def test_an_overflow_of_the_autoencoder_is_decoded_again_in_single_precision(generator_folder, monkeypatch):
    request = Request("a red coat", seed=1, steps=2, guidance=3.0, width=64, height=64)
    generator = Generator(generator_folder, replace(CPU, precision="bf16"), 1)
    inside, used = generator._pipeline.vae.decode, []

    def overflowing(latents, return_dict):
        used.append(latents.dtype)
        (pixels,) = inside(latents, return_dict=False)
        return (pixels * (float("nan") if latents.dtype == torch.bfloat16 else 1),)

    monkeypatch.setattr(generator._pipeline.vae, "decode", overflowing)
    image = np.asarray(next(generator.draw([request])).image).astype(int)
    assert used == [torch.bfloat16, torch.float32]
    assert generator._pipeline.vae.dtype == torch.bfloat16
    exact = Generator(generator_folder, CPU, 1)
    assert np.abs(image - np.asarray(next(exact.draw([request])).image).astype(int)).mean() < 10


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pipeline_that_lacks_weights_is_refused_and_they_are_named(generator_folder, tmp_path, part):
    folder = shutil.copytree(generator_folder, tmp_path / "model")
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    gone = sorted(name for name in tensors if name.endswith("weight"))[0]
    save_file({n: t for n, t in tensors.items() if n != gone}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part} has no weights for .*: put a complete copy"):
        load_pipeline(folder)


def scaled(folder, target, factor: float):
    """A copy of a pipeline whose UNet's last layer is so many times as strong."""
    shutil.copytree(folder, target)
    (file,) = (target / "unet").glob("*.safetensors")
    tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    tensors["conv_out.weight"] *= factor
    save_file(tensors, file, {"format": "pt"})
    return target


def test_a_card_that_cannot_compute_in_fp16_is_told_apart_from_a_broken_model(generator_folder, tmp_path):
    fp16 = Device("cpu", "fp16", "some card")
    overflowing = scaled(generator_folder, tmp_path / "large", 2e5)
    with (
        Generator(overflowing, fp16, batch_size=2) as generator,
        pytest.raises(PrecisionError, match=r"some card draws no numbers in precision fp16.*PRECISION=fp32"),
    ):
        next(generator.draw([RED]))
    broken = scaled(generator_folder, tmp_path / "broken", float("nan"))
    with Generator(broken, fp16, batch_size=2) as generator:
        assert next(generator.draw([RED])).image.size == (64, 64), "judging it is not done here"


def test_half_the_strength_of_a_model_is_half_way_from_its_base(generator_folder, tmp_path):
    changed = load_pipeline(generator_folder)
    with torch.no_grad():
        for weight in changed.unet.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    changed.save_pretrained(tmp_path / "model")
    drawn = {}
    for strength in (0.0, 0.5, 1.0):
        with Generator(tmp_path / "model", CPU, 2, scale=strength, base=generator_folder) as generator:
            drawn[strength] = draw(generator, [RED])[0].astype(int), generator.fingerprint
    for folder, strength in ((generator_folder, 0.0), (tmp_path / "model", 1.0)):
        with Generator(folder, CPU, 2) as generator:
            assert np.array_equal(draw(generator, [RED])[0], drawn[strength][0]), strength
    between = [np.abs(drawn[0.5][0] - drawn[end][0]).mean() for end in (0.0, 1.0)]
    assert 0 < max(between) < np.abs(drawn[0.0][0] - drawn[1.0][0]).mean()
    assert len({fingerprint for _, fingerprint in drawn.values()}) == 3
