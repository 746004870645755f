"""How a machine computes fastest is measured, not guessed from its flags."""

import json

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from fashion_pipeline.ml import tuning
from fashion_pipeline.ml.devices import pick_device
from fashion_pipeline.ml.tuning import ComputeConfig, apply, fastest, measure_cpu

SLOW_BF16 = {
    ComputeConfig("fp32", "channels_last", "classic"): 8.0,
    ComputeConfig("fp32"): 9.0,
    ComputeConfig("bf16"): 20.0,
}
FAST_BF16 = {
    ComputeConfig("fp32", "channels_last"): 8.0,
    ComputeConfig("bf16", attention="classic"): 3.0,
    ComputeConfig("bf16"): 4.0,
}


def test_a_processor_that_lists_bf16_but_computes_it_slowly_draws_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fashion_pipeline.ml.devices.measure_cpu", lambda task, keep: SLOW_BF16)
    device = pick_device("cpu")
    assert (device.precision, device.layout, device.attention) == ("fp32", "channels_last", "classic")
    monkeypatch.setattr("fashion_pipeline.ml.devices.measure_cpu", lambda task, keep: FAST_BF16)
    assert pick_device("cpu").compute_config == ComputeConfig("bf16", attention="classic")


def test_a_precision_that_is_asked_for_is_taken_in_its_fastest_way() -> None:
    assert fastest("drawing", SLOW_BF16, "bf16") == ComputeConfig("bf16")
    assert fastest("drawing", FAST_BF16, "fp32") == ComputeConfig("fp32", "channels_last")


def test_a_machine_is_measured_once_for_each_task(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measure(task):
        calls.append(task)
        return SLOW_BF16

    monkeypatch.setattr(tuning, "_measure", measure)
    assert measure_cpu("drawing", tmp_path) == measure_cpu("drawing", tmp_path) == SLOW_BF16
    assert measure_cpu("training", tmp_path) == SLOW_BF16
    assert calls == ["drawing", "training"]
    (file,) = tmp_path.iterdir()
    assert set(json.loads(file.read_text())) == {"drawing", "training"}
    file.write_text("{half")
    measure_cpu("drawing", tmp_path)
    assert calls[2:] == ["drawing"]


@pytest.mark.parametrize("task", ["drawing", "training"])
def test_every_way_is_really_run(task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "REPEATS", 1)
    measured = measure_cpu(task)
    assert len(measured) == 8 and all(0 < figure < float("inf") for figure in measured.values())


def test_what_is_far_slower_with_one_image_is_not_tried_with_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def in_turns(task, configs, batch, repeats):
        tried.append((batch, {config.precision for config in configs}))
        return {config: batch * (10.0 if config.precision == "bf16" else 1.0) for config in configs}

    monkeypatch.setattr(tuning, "_in_turns", in_turns)
    measured = measure_cpu("drawing")
    assert tried == [(1, {"fp32", "bf16"}), (8, {"fp32"})]
    assert {measured[ComputeConfig("fp32")], measured[ComputeConfig("bf16")]} == {8.0, 80.0}, "comparable figures"


def test_classic_attention_is_left_where_its_matrix_would_be_large() -> None:
    assert ComputeConfig(attention="classic").within(1024).attention == "classic"
    assert ComputeConfig("bf16", "channels_last", "classic").within(4096) == ComputeConfig(
        "bf16", "channels_last", "fused"
    )


def test_a_way_is_set_on_the_unet() -> None:
    unet = tuning._small_unet()
    apply(unet, ComputeConfig(layout="channels_last", attention="classic"))
    assert {type(each) for each in unet.attn_processors.values()} == {AttnProcessor}
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    apply(unet, ComputeConfig())
    assert {type(each) for each in unet.attn_processors.values()} == {AttnProcessor2_0}
