"""A second device that pretends to be a GPU: its tensors refuse to meet tensors of the CPU.

Their numbers are computed by the CPU, as its own are. Importing this changes torch for the whole process.
"""

from contextlib import contextmanager

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

backend_registration._setup_privateuseone_for_python_backend("pretend")
# or `module.to` would give the old tensors new data:
torch.__future__.set_swap_module_params_on_conversion(True)
DEVICE = torch.device("pretend", 0)
ATEN = torch.ops.aten
# operations that take sources or indices of the CPU on every device
MIXING = {ATEN.copy_.default, ATEN._to_copy.default, ATEN.to.other}
MIXING |= {ATEN.index.Tensor, ATEN.index_put_.default}


class PretendTensor(torch.Tensor):
    """A tensor that says it is on DEVICE; `on_cpu` has its numbers and its memory."""

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=DEVICE,
        )

    def __init__(self, on_cpu: torch.Tensor):
        self.on_cpu = on_cpu

    def __repr__(self) -> str:
        return f"PretendTensor({self.on_cpu!r})"

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = PretendTensor(self.on_cpu.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def tolist(self) -> list:
        return self.on_cpu.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.on_cpu.untyped_storage()

    def data_ptr(self) -> int:
        return self.on_cpu.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _PretendMode(TorchDispatchMode):
    """Catches operations that name the device without a tensor on it, such as `torch.zeros(device=...)`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


def _computed(func, args: tuple, kwargs: dict):
    """Run an operation on the CPU; its results are where its tensors are, or where they were asked to be."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    on_device = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    if on_device and func is ATEN._fused_sdp_choice.default:
        return 0  # attention as matrix products, which every device has
    if on_device and func not in MIXING:
        _refuse_cpu_tensors(func, tensors)

    cpu_args, cpu_kwargs = tree_map(_to_cpu, (args, kwargs))
    result = func(*cpu_args, **cpu_kwargs)

    if func._schema.is_mutable:  # in place, or into `out`: the result is one of the arguments
        given = (*args, *kwargs.values())
        used = (*cpu_args, *cpu_kwargs.values())
        for argument, on_cpu in zip(given, used, strict=True):
            if result is on_cpu:
                return argument

    asked = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)), None)
    stays = bool(on_device) if asked is None else asked.type == DEVICE.type
    return tree_map(_to_device, result) if stays else result


def _refuse_cpu_tensors(func, tensors: list[torch.Tensor]) -> None:
    """Raise RuntimeError as a GPU does; numbers without dimensions may come from anywhere."""
    if any(tensor.dim() > 0 and not isinstance(tensor, PretendTensor) for tensor in tensors):
        devices = ", ".join(str(tensor.device) for tensor in tensors)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found {devices}")


def _to_cpu(leaf: object) -> object:
    if isinstance(leaf, PretendTensor):
        return leaf.on_cpu
    if isinstance(leaf, torch.device) and leaf.type == DEVICE.type:
        return torch.device("cpu")
    return leaf


def _to_device(leaf: object) -> object:
    return PretendTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf


@contextmanager
def second_device():
    """Inside, DEVICE is a device."""
    # `torch.tensor(..., device=DEVICE)` is made on the CPU and then sent
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _PretendMode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
