"""What `auto` means on machines that this one is not: only what torch says of them is replaced."""

import pytest
import torch

from sinkprune_core.models import devices
from sinkprune_core.models.devices import choose_device, choose_dtype, device_name


@pytest.fixture
def with_gpu(monkeypatch):
    """A function that makes torch speak of one GPU of a type, with or without units for bfloat16."""

    def make(kind: str, has_bfloat16: bool = True):
        monkeypatch.setattr(
            torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind)
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(kind == "cuda"))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)

    return make


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("gain", "dtype"), [(7.0, torch.bfloat16), (1.1, torch.float32), (0.5, torch.float32)]
)
def test_without_a_gpu_auto_is_the_cpu_in_the_dtype_that_was_measured_to_be_faster(
    tmp_path, monkeypatch, gain, dtype
):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(devices, "_measured_gain", lambda: gain)
    assert choose_device("auto") == device_name("cpu") == "cpu"
    assert choose_dtype("auto", "cpu") == dtype


def test_auto_takes_a_gpu_with_bfloat16(with_gpu):
    with_gpu("cuda")
    assert choose_device("auto") == "cuda"
    assert choose_dtype("auto", "cuda") == torch.bfloat16


def test_a_t4_computes_in_float16(with_gpu):
    with_gpu("cuda", has_bfloat16=False)
    assert choose_device("auto") == "cuda" and device_name("cuda") == "cuda, Tesla T4"
    assert choose_dtype("auto", "cuda") == torch.float16


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_auto_leaves_a_gpu_without_float64_alone(with_gpu, kind):
    with_gpu(kind)
    assert choose_device("auto") == "cpu"
