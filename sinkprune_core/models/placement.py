"""One model over several devices: which part lies where, said and checked before any weight is read.

Everything stays where it is put: parts that wait on the CPU or on disk for their turn are refused, since pruning writes
weights in place; a model that does not fit its devices is streamed instead (streaming.py).
"""

from collections.abc import Mapping

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import check_device_map
from transformers import PreTrainedModel

from sinkprune_core.models.hub import available_memory
from sinkprune_core.models.reader import part_name

SHARE = 0.9  # of a device's free memory that weights may take: activations come on top
DeviceMap = str | Mapping[str, str | int]


def place(
    skeleton: PreTrainedModel, blocks: str, device_map: DeviceMap, dtype: torch.dtype
) -> dict[str, torch.device]:
    """Return the device of every part by name, for a model whose parameters are on the meta device.

    `device_map`: `auto` (spread over all GPUs; the CPU where there is none), one device, or part -> device, where a part
    is a module outside the blocks or a whole block (`blocks` is what their list is called), and "" is everything.
    Raises ValueError for a map that is no such thing, and RuntimeError where a device lacks the memory.
    """
    if device_map == "auto":
        found = _spread(skeleton, dtype)
    elif isinstance(device_map, str):
        found = {"": device_map}
    elif isinstance(device_map, Mapping) and device_map:
        found = dict(device_map)
    else:
        raise ValueError(
            f"device_map={device_map!r} must be 'auto', a device such as 'cuda:1', or a mapping from parts of the model to devices"
        )
    known = {name for name, _ in skeleton.named_modules()}
    for name in found:
        if name not in known:
            raise ValueError(
                f"device_map names {name!r}, which {type(skeleton).__name__} does not have; it has {', '.join(['', *dict.fromkeys(child for child, _ in skeleton.named_children())])} and below, e.g. {blocks}.0"
            )
        if name.startswith(f"{blocks}.") and name.count(".") > blocks.count(".") + 1:
            raise ValueError(
                f"device_map names {name!r}, a part of a block: name {'.'.join(name.split('.')[: blocks.count('.') + 2])}, a block stays whole"
            )
    devices = {name: _device(name, value) for name, value in found.items()}
    try:
        check_device_map(skeleton, devices)
    except ValueError as error:
        raise ValueError(f"device_map leaves something out: {str(error).splitlines()[0]}") from None
    if len({device.type for device in devices.values()}) > 1:
        raise ValueError(
            f"device_map mixes {', '.join(sorted({device.type for device in devices.values()}))}: parts that wait on the CPU for their turn cannot be pruned; stream the model from disk instead"
        )
    head, table = skeleton.get_output_embeddings(), skeleton.get_input_embeddings()
    if (
        skeleton.config.tie_word_embeddings
        and (ends := [device_of(part_name(skeleton, module), devices) for module in (head, table)])[0]
        != ends[1]
    ):
        raise ValueError(
            f"device_map puts the output head on {ends[0]} and the input embedding on {ends[1]}, but they are one tensor in this model: put both on one device"
        )
    needed: dict[torch.device, int] = {}
    for name, parameter in skeleton.named_parameters():
        device = device_of(name, devices)
        needed[device] = needed.get(device, 0) + parameter.numel() * dtype.itemsize
    lacking = [
        f"{size / 1e9:.1f} GB on {device}, which has {available_memory(device) / 1e9:.1f} GB"
        for device, size in needed.items()
        if size > available_memory(device)
    ]
    if lacking:
        raise RuntimeError(
            f"device_map asks for {'; '.join(lacking)}: spread it otherwise, take a smaller dtype, or stream the model from disk"
        )
    return devices


def device_of(name: str, devices: Mapping[str, torch.device]) -> torch.device:
    """Return where a parameter or module lies: what the map says of its nearest parent."""
    while name not in devices:
        name = name.rpartition(".")[0]
    return devices[name]


def dispatch(model: PreTrainedModel, devices: Mapping[str, torch.device]) -> PreTrainedModel:
    """Return `model`, whose parameters are on their devices already, with buffers there too and inputs of every part sent after it."""
    if len(devices) == 1:
        return model.to(next(iter(devices.values())))
    return dispatch_model(model, {name: str(device) for name, device in devices.items()}, force_hooks=True)


def _spread(skeleton: PreTrainedModel, dtype: torch.dtype) -> dict[str, object]:
    if not torch.cuda.is_available():
        return {"": "cpu"}
    room = {
        index: int(SHARE * available_memory(f"cuda:{index}")) for index in range(torch.cuda.device_count())
    }
    found = infer_auto_device_map(
        skeleton, room, no_split_module_classes=list(skeleton._no_split_modules or ()), dtype=dtype
    )
    if waiting := [name for name, device in found.items() if device in ("cpu", "disk")]:
        raise RuntimeError(
            f"the model does not fit the {len(room)} GPUs here, which have {sum(room.values()) / 1e9:.1f} GB for weights: {waiting[0]} and what follows find no place; stream it from disk, or take a smaller dtype"
        )
    return found


def _device(name: str, value: object) -> torch.device:
    try:
        device = torch.device(value if not isinstance(value, int) else f"cuda:{value}")
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ValueError(
            f"device_map puts {name!r} on {value!r}, which is no device that computes: parts that wait on disk cannot be pruned; stream the model instead"
        )
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device_map puts {name!r} on {device}, and there are {count} GPUs here")
    return torch.device("cpu") if device.type == "cpu" else device
