import pytest
import torch

from fashion_pipeline.ml.devices import pick_device


def test_a_cpu_is_found_without_asking_and_says_what_it_is():
    device = pick_device("cpu", "fp32")
    assert device.name == device.type == "cpu"
    assert device.description.startswith("cpu (")
    assert device.precision not in device.description
    assert device.dtype == torch.float32


@pytest.mark.parametrize("device", ["gpu", "cuda:first", "tpu"])
def test_an_unknown_device_is_refused_with_the_known_ones(device: str):
    with pytest.raises(ValueError, match="ask for 'auto', 'cpu'"):
        pick_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_with_the_mend():
    with pytest.raises(ValueError, match="'cuda' asked for, but torch sees none: install"):
        pick_device("cuda")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_that_a_cpu_cannot_have_is_refused(precision: str):
    with pytest.raises(ValueError, match=f"precision '{precision}'.*ask for 'auto'"):
        pick_device("cpu", precision)
