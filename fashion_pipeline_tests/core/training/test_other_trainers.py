"""What other trainers are told is what ours would do."""

import shlex
import tomllib

import pytest

from fashion_pipeline.core.training.other_trainers import diffusers, kohya
from fashion_pipeline.core.training.recipe import Recipe

SD, XL = "Stable Diffusion 1.x and 2.x", "Stable Diffusion XL"


def test_kohya_is_told_our_knobs_in_its_words() -> None:
    recipe = Recipe.of({"rank": 8, "alpha": 4.0, "steps": 120, "layers": ["attention", "convolution"], "seed": 2**40})
    files = kohya(recipe, SD, 'a "base"', 512)
    config, data = tomllib.loads(files["config.toml"]), tomllib.loads(files["dataset.toml"])
    assert (config["network_dim"], config["network_alpha"], config["max_train_steps"]) == (8, 4.0, 120)
    assert config["pretrained_model_name_or_path"] == 'a "base"'
    assert config["network_args"] == ["conv_dim=8", "conv_alpha=4.0"] and config["network_module"] == "networks.lora"
    assert config["lr_warmup_steps"] == recipe.warmup_steps and config["network_train_unet_only"] is True
    assert 0 <= config["seed"] < 2**32
    (data_set,) = data["datasets"]
    assert (data_set["resolution"], data_set["batch_size"], data_set["enable_bucket"]) == (512, 8, False)
    (subset,) = data_set["subsets"]
    assert subset["image_dir"] == "images" and subset["caption_dropout_rate"] == recipe.caption_dropout
    assert "sdxl_train_network.py --config_file config.toml" in kohya(recipe, XL, "base", 1024)["train.sh"]
    equal = kohya(recipe.changed({"min_snr_gamma": 0.0}), SD, "base", 512)
    assert "min_snr_gamma" not in tomllib.loads(equal["config.toml"])


@pytest.mark.parametrize(
    ("knobs", "arguments"),
    [
        ({"method": "loha"}, ["algo=loha", "dora_wd=False"]),
        ({"method": "lokr", "lokr_factor": 4}, ["algo=lokr", "dora_wd=False", "factor=4"]),
        ({"dora": True}, ["algo=lora", "dora_wd=True"]),
    ],
)
def test_what_kohya_has_from_lycoris_is_asked_of_lycoris(knobs: dict[str, object], arguments: list[str]) -> None:
    config = tomllib.loads(kohya(Recipe.of(knobs), SD, "base", 512)["config.toml"])
    assert (config["network_module"], config["network_args"]) == ("lycoris.kohya", arguments)


def test_diffusers_is_told_our_knobs_in_its_words() -> None:
    recipe = Recipe.of({"rank": 8, "steps": 120, "precision": "fp32", "optimizer": "adamw8bit"})
    command = diffusers(recipe, SD, "it's a base", 512)["train.sh"].partition("accelerate launch ")[2]
    script, *words = shlex.split(command)
    assert script == "train_text_to_image_lora.py"
    told = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert (told["rank"], told["max_train_steps"], told["mixed_precision"]) == ("8", "120", "no")
    assert told["pretrained_model_name_or_path"] == "it's a base"
    assert {"random_flip", "center_crop", "use_8bit_adam"} <= told.keys() and "gradient_checkpointing" not in told


def test_what_a_trainer_does_not_do_is_said() -> None:
    with pytest.raises(ValueError, match="diffusers' script trains no LoRA on Z-Image"):
        diffusers(Recipe(), "Z-Image", "base", 1024)
    for knobs, method in (({"method": "loha"}, "loha"), ({"dora": True}, "dora"), ({"method": "full"}, "full")):
        with pytest.raises(ValueError, match=f"method is {method}, which diffusers' script does not train"):
            diffusers(Recipe.of(knobs), SD, "base", 512)
    with pytest.raises(ValueError, match="method is full, which kohya-ss/sd-scripts does not train"):
        kohya(Recipe.of({"method": "full"}), SD, "base", 512)
