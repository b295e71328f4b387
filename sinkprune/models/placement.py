"""One model over several devices: which part lies where, said and checked before any weight is read.

Everything stays where it is put: parts that wait on the CPU or on disk for their turn are refused, since
pruning writes weights in place; a model that does not fit its devices is streamed instead (streaming.py).
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import check_device_map
from torch import nn
from transformers import PreTrainedModel

from sinkprune.models.devices import choose_device, move
from sinkprune.models.hub import available_memory
from sinkprune_core.language_model import part_name
from sinkprune_core.values import in_short

SHARE = 0.9  # of a device's free memory that weights may take: activations come on top
DeviceMap = str | Mapping[str, str | int]


def place(
    skeleton: PreTrainedModel, blocks: str, device_map: DeviceMap, dtype: torch.dtype
) -> dict[str, torch.device]:
    """Return the device of every part by name, for a model whose parameters are on the meta device.

    `device_map`: `auto` (spread over all GPUs; the CPU where there is none), one device, or part -> device,
    where a part is a module outside the blocks or a whole block (`blocks` is what their list is called), and
    "" is everything. Raises ValueError for a map that is no such thing, RuntimeError for too little memory.
    """
    if isinstance(device_map, str) and device_map == "auto":
        wanted = _spread(skeleton, dtype)
    elif isinstance(device_map, str):
        wanted = {"": device_map}
    elif isinstance(device_map, Mapping) and device_map:
        wanted = dict(device_map)
    else:
        raise ValueError(
            f"device_map={in_short(device_map)} must be 'auto', a device such as 'cuda:1', "
            "or a mapping from parts of the model to devices"
        )

    inside_a_block = re.compile(rf"{re.escape(blocks)}\.\d+\.")
    parts = {name for name, _ in skeleton.named_modules() if not inside_a_block.match(name)}

    for name in wanted:
        if name not in parts:
            raise ValueError(
                f"device_map names {name!r}: a part of {type(skeleton).__name__} is a module outside the "
                f"blocks, a whole block, e.g. {blocks}.0, or '' for all"
            )

    devices = {name: _device(name, value) for name, value in wanted.items()}
    _check_devices(skeleton, devices)
    _check_memory(skeleton, devices, dtype)
    return devices


def _check_devices(skeleton: PreTrainedModel, devices: Mapping[str, torch.device]) -> None:
    """Raise ValueError for a map that leaves parts out, mixes types of devices or tears tied parts apart."""
    try:
        check_device_map(skeleton, dict(devices))
    except ValueError as error:
        raise ValueError(f"device_map leaves something out: {str(error).splitlines()[0]}") from None

    types = sorted({device.type for device in devices.values()})
    if len(types) > 1:
        raise ValueError(
            f"device_map mixes {', '.join(types)}: "
            "parts that wait on the CPU for their turn cannot be pruned; stream the model from disk instead"
        )

    if not skeleton.config.tie_word_embeddings:
        return

    head = device_of(part_name(skeleton, cast(nn.Module, skeleton.get_output_embeddings())), devices)
    embedding = device_of(part_name(skeleton, cast(nn.Module, skeleton.get_input_embeddings())), devices)

    if head != embedding:
        raise ValueError(
            f"device_map puts the output head on {head} and the input embedding on {embedding}, "
            "but they are one tensor in this model: put both on one device"
        )


def _check_memory(skeleton: PreTrainedModel, devices: Mapping[str, torch.device], dtype: torch.dtype) -> None:
    """Raise RuntimeError where a device lacks the memory for its parameters."""
    needed: dict[torch.device, int] = {}
    for name, parameter in skeleton.named_parameters():
        device = device_of(name, devices)
        needed[device] = needed.get(device, 0) + parameter.numel() * dtype.itemsize

    lacking = []
    for device, size in needed.items():
        free = available_memory(str(device))
        if size > free:
            lacking.append(f"{size / 1e9:.1f} GB on {device}, which has {free / 1e9:.1f} GB")

    if lacking:
        raise RuntimeError(
            f"device_map asks for {'; '.join(lacking)}: "
            "spread it otherwise, take a smaller dtype, or stream the model from disk"
        )


def device_of(name: str, devices: Mapping[str, torch.device]) -> torch.device:
    """Return where a parameter or module lies: what the map says of its nearest parent."""
    while name not in devices:
        name = name.rpartition(".")[0]
    return devices[name]


def dispatch(model: PreTrainedModel, devices: Mapping[str, torch.device]) -> PreTrainedModel:
    """Return `model`, whose parameters are on their devices already, ready to compute.

    Buffers go to the parameters' devices, and the inputs of every part are sent to where it lies.
    """
    if len(devices) == 1:
        move(model, next(iter(devices.values())))
    else:
        places: dict[str, Any] = {name: str(device) for name, device in devices.items()}
        dispatch_model(model, places, force_hooks=True)
    return model


def _spread(skeleton: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any]:
    """Return a map that fills the GPUs in order with whole blocks; the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return {"": "cpu"}

    budgets: dict[int | str, Any] = {
        index: int(SHARE * available_memory(f"cuda:{index}")) for index in range(torch.cuda.device_count())
    }

    places = infer_auto_device_map(
        skeleton, budgets, no_split_module_classes=list(skeleton._no_split_modules or ()), dtype=dtype
    )

    waiting = [name for name, device in places.items() if device in ("cpu", "disk")]
    if waiting:
        raise RuntimeError(
            f"the model does not fit the {len(budgets)} GPUs here, "
            f"which have {sum(budgets.values()) / 1e9:.1f} GB for weights: "
            f"{waiting[0]} and what follows find no place; stream it from disk, or take a smaller dtype"
        )

    return places


def _device(name: str, value: str | int) -> torch.device:
    """Return the device that a map names for a part."""
    spelled = f"cuda:{value}" if isinstance(value, int) else value
    device = torch.device(choose_device(spelled, f"device_map={{{name!r}: {spelled!r}}}"))
    return torch.device("cpu") if device.type == "cpu" else device
