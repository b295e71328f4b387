"""Where a model is computed, and in which dtype: what `auto` means, and names that mean nothing here."""

import torch

from sinkprune_core.models.weight_files import DTYPES

COMPUTING = ("cpu", "cuda", "mps", "xpu")  # types of devices
WITHOUT_FLOAT64 = ("mps", "xpu")  # types of GPUs that may lack it: the samplers need it


def choose_device(device: str | torch.device, written: str | None = None) -> str:
    """Return the device of a name: itself, or for `auto` a GPU where there is one, else the CPU.

    GPUs without float64 are taken only when they are named. Raises ValueError for a device that PyTorch does
    not have here; the message calls it `written`, by default `device='…'`.
    """
    name = str(device)
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return "cpu" if found is None or found.type in WITHOUT_FLOAT64 else found.type
    written = written or f"device={name!r}"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in COMPUTING:
        raise ValueError(f"{written} is no device: give auto, cpu, cuda, cuda:1 or mps")
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ValueError(
                f"{written}: PyTorch finds no GPU here; give cpu or auto, "
                "or install a PyTorch that is built for your GPU"
            )
        if (chosen.index or 0) >= count:
            raise ValueError(f"{written}: there are {count} GPUs here; the last one is cuda:{count - 1}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"{written}: this machine has no MPS; give cpu or auto")
    return name


def choose_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """Return the dtype of a name; raise ValueError for one that is not known.

    `auto` is what is faster: on a CPU bfloat16 where it has AMX (there about seven times as fast, with the
    units of AVX-512 alone half as fast), else float32; on a GPU bfloat16 where it has units for it, else
    float16.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return _best_dtype(torch.device(device).type)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}, auto")
    return DTYPES[dtype]


def _best_dtype(device_type: str) -> torch.dtype:
    if device_type == "cpu":
        return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
    if device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def device_name(device: str) -> str:
    """Return what a device is called, for people: `cpu`, or a GPU with its model."""
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(chosen)}"
    return chosen.type
