"""What `auto` means on machines that this one is not: only what torch says of them is replaced."""

import pytest
import torch

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
@pytest.mark.parametrize(("has_amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_without_a_gpu_auto_is_the_cpu_in_bfloat16_where_it_has_amx(monkeypatch, has_amx, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("graphics", "device='graphics' is no device: give auto, cpu, cuda, cuda:1 or mps"),
        ("cuda:1", "device='cuda:1': there are 1 GPUs here; the last one is cuda:0"),
        ("mps", "device='mps': this machine has no MPS; give cpu or auto"),
    ],
)
def test_a_device_that_is_not_here_is_one_sentence(with_gpu, monkeypatch, name, said):
    with_gpu("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"^{said}$"):
        choose_device(name)
    with pytest.raises(ValueError, match=said.replace(f"device='{name}'", f"--device {name}")):
        choose_device(name, f"--device {name}")
