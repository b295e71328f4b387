"""Where a model is computed, and in which dtype: what `auto` means, and names that mean nothing here.

Dimensions: R rows (tokens), I input features, O output features.
"""

import hashlib
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.utils.benchmark import Timer

from sinkprune.files import cache_dir, read_checked, write_checked
from sinkprune.models.weight_files import DTYPES
from sinkprune_core.values import in_short

WITHOUT_FLOAT64 = ("mps", "xpu")  # types of GPUs that may lack it: the samplers need it
PRODUCT = (128, 576, 1536)  # R, I, O of the product that is timed: the first MLP map of the embedded models
REPEATS = 3  # products that are timed in each dtype
GAIN = 1.2  # bfloat16 rounds more coarsely, so it is taken only where it is this many times as fast


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
        is_usable = torch.empty(0, device=name).device.type != "meta"  # which computes nothing
    except Exception:  # its type depends on the name
        is_usable = False

    if not is_usable:
        raise ValueError(
            f"{written}: PyTorch can compute nothing there; "
            "give auto, cpu, cuda, cuda:1 or mps, or install a PyTorch that is built for your GPU"
        )

    return name


def choose_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """Return the dtype of a name; raise ValueError for one that is not known.

    `auto` is what is faster on this machine: on a CPU bfloat16 where it multiplies at least GAIN times as
    fast as float32 (measured once, see `bfloat16_gain`), else float32; on a GPU bfloat16 where it has units
    for it, else float16.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype == "auto":
        kind = torch.device(device).type
        if kind == "cpu":
            return torch.bfloat16 if bfloat16_gain() >= GAIN else torch.float32
        has_units = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_units else torch.float16
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype={in_short(dtype)} is unknown; choose one of {', '.join(DTYPES)}, auto")
    return DTYPES[dtype]


def bfloat16_gain() -> float:
    """Return how many times as fast as in float32 this CPU multiplies in bfloat16.

    It is measured once per processor, torch version and number of threads, and kept in the cache directory.
    """
    units = (torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported())
    name = (platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability())
    machine = "; ".join(map(str, (*name, *units, torch.__version__, torch.get_num_threads())))
    file = cache_dir() / f"bfloat16-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.json"
    return _measured_once(machine, file)


@cache
def _measured_once(machine: str, file: Path) -> float:
    """Return the gain that `file` holds for a machine, measuring and writing it where there is none."""
    known = read_checked(file)
    if known is not None and known.get("machine") == machine:
        return cast(float, known["gain"])

    gain = _measured_gain()
    with suppress(OSError):  # a cache that cannot be written only costs time
        write_checked(file, {"machine": machine, "gain": gain})
    return gain


def _measured_gain() -> float:
    """Time one product in both dtypes, after a warm-up, and return the ratio of the times."""
    rows, inputs, outputs = PRODUCT
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        input_RI = torch.ones(rows, inputs, dtype=dtype)
        weight_IO = torch.ones(inputs, outputs, dtype=dtype)
        names = {"input_RI": input_RI, "weight_IO": weight_IO}
        timer = Timer("input_RI @ weight_IO", globals=names, num_threads=torch.get_num_threads())
        seconds[dtype] = timer.timeit(REPEATS).mean
    return seconds[torch.float32] / seconds[torch.bfloat16]


def move(module: nn.Module, to: torch.device | str | torch.dtype) -> None:
    """Move a module to a device, or into a dtype.

    What transformers declares as `to` of its models is a type that no call fits.
    """
    module.to(to)


def device_name(device: str | torch.device) -> str:
    """Return what a device is called, for people: `cpu`, or a GPU with its model."""
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(chosen)}"
    return chosen.type
