"""A second device on a machine that has one: tensors that say they are elsewhere and refuse to meet tensors of the CPU, as those of a GPU do.

Their numbers are computed by the CPU, so results are those of the CPU. Importing this changes torch for the whole process.
"""

from contextlib import contextmanager

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

backend_registration._setup_privateuseone_for_python_backend("elsewhere")
torch.__future__.set_swap_module_params_on_conversion(
    True
)  # or `module.to` would give the old tensors new data
PLACE = torch.device("elsewhere", 0)
ATEN = torch.ops.aten
MEETING = {
    ATEN.copy_.default,
    ATEN._to_copy.default,
    ATEN.to.other,
    ATEN.index.Tensor,
    ATEN.index_put_.default,
}  # take sources or indices of the CPU on every device


class Elsewhere(torch.Tensor):
    """A tensor that is elsewhere; `here` has its numbers and its memory."""

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=PLACE,
        )

    def __init__(self, here: torch.Tensor):
        self.here = here

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    def tolist(self) -> list:
        return self.here.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.here.untyped_storage()

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Elsewhere(TorchDispatchMode):
    """Catches what names the device without a tensor that is there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


def _computed(func, args: tuple, kwargs: dict):
    """Run an operation on the CPU; its results are where its tensors are, or where they were asked to be."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    asked = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)), None)
    if away and func is ATEN._fused_sdp_choice.default:
        return 0  # attention as matrix products, which every device has
    if (
        away
        and func not in MEETING
        and any(tensor.dim() for tensor in tensors if not isinstance(tensor, Elsewhere))
    ):
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, but found {', '.join(str(tensor.device) for tensor in tensors)}"
        )
    here_args, here_kwargs = tree_map(_here, (args, kwargs))
    result = func(*here_args, **here_kwargs)
    if func._schema.is_mutable:  # in place, or into `out`
        for one, plain in zip((*args, *kwargs.values()), (*here_args, *here_kwargs.values()), strict=True):
            if result is plain:
                return one
    stays = bool(away) if asked is None else asked.type == PLACE.type
    return (
        tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)
        if stays
        else result
    )


def _here(leaf: object) -> object:
    if isinstance(leaf, Elsewhere):
        return leaf.here
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == PLACE.type else leaf


@contextmanager
def second_device():
    """Inside, PLACE is a device."""
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=PLACE)` is made here and then sent
    try:
        with _Elsewhere():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
