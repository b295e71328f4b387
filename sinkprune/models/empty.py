"""Models whose parameters have shapes and no numbers, made in one thread while others make whole ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

_of_thread = threading.local()


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Put every parameter that this thread gives to a module inside the block on the meta device.

    Buffers keep their numbers, and modules of other threads keep all of theirs. accelerate's
    `init_empty_weights` empties those of every thread, and of the whole process from then on where two
    threads leave it in the order in which they entered.
    """
    former = getattr(_of_thread, "makes_empty", False)
    _of_thread.makes_empty = True
    try:
        yield
    finally:
        _of_thread.makes_empty = former


def _emptied(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
    """Return what a module keeps in the place of a parameter; None: the parameter itself."""
    if not getattr(_of_thread, "makes_empty", False) or parameter.is_meta:
        return None
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


# Once and for all: a hook that comes and goes would disturb threads that make modules meanwhile.
# torch declares it as one that returns nothing, and takes what it returns in the parameter's place.
register_module_parameter_registration_hook(cast(Any, _emptied))
