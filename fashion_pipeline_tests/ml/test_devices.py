import pytest
import torch

from fashion_pipeline.ml.devices import Device, out_of_memory, pick_device


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


def test_images_of_a_card_and_of_a_cpu_have_other_names():
    card, cpu = (Device(name, "bf16", attention="fused").computing() for name in ("cuda:1", "cpu"))
    assert card != cpu and card["device"] == "cuda" and "device" not in cpu
    assert Device("cuda", "bf16").computing() == card, "which card it is does not matter"


def test_fp32_is_fp32_in_convolutions_of_a_card_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "some card")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert pick_device("cuda", "fp32").precision == "fp32"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory (MPS allocated: 17.96 GB, other allocations: 81.62 MB, max allowed: 18.13 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes.",
    ],
)
def test_every_way_to_run_out_of_memory_is_known(text: str):
    assert out_of_memory(RuntimeError(text))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
