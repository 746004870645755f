import pytest

from benchmarks.family_check import measure
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import family_of
from fashion_pipeline_tests.ml.conftest import CPU

TEXTS = {
    "generator": {"prompt_embeds": (8, 32)},
    "sdxl": {"prompt_embeds": (8, 64), "pooled_prompt_embeds": (24,)},
    "sd3": {"prompt_embeds": (8, 72), "pooled_prompt_embeds": (48,)},
    "flux2": {"prompt_embeds": (8, 48)},
    "z_image": {"prompt_embeds": (8, 16)},
}


@pytest.mark.parametrize("base", TEXTS)
def test_a_step_on_random_weights_is_measured_in_every_family(base, request):
    family = family_of(request.getfixturevalue(f"{base}_folder"))
    recipe = Recipe.of({"steps": 3, "batch_size": 1, "rank": 4, "resolution": 64, "gradient_checkpointing": True})
    speed, memory, told = measure(family, TEXTS[base], recipe, CPU).split(" | ")
    assert float(speed) > 0 and float(memory) > 0.1 and told == "fp32"
