"""Torch's kernels for weights of which two of every four consecutive inputs are zero: on GPUs from Ampere on.

Dimensions: O output features, I input features.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import Parameter

from sinkprune_core.language_model import LanguageModel

GROUP, KEPT = 4, 2  # the pattern 2:4


def is_two_of_four(weight_OI: torch.Tensor) -> bool:
    """Return whether at most two of every four consecutive inputs of each output are not zero."""
    outputs, inputs = weight_OI.shape
    if inputs % GROUP:
        return False

    groups = weight_OI.reshape(outputs, inputs // GROUP, GROUP)
    return bool((groups.count_nonzero(-1) <= KEPT).all())


def has_kernels(lm: LanguageModel) -> bool:
    """Return whether torch has such kernels for a model where it is: half precision, a GPU from Ampere on."""
    is_half = lm.model.dtype in (torch.float16, torch.bfloat16)
    return lm.device.type == "cuda" and is_half and torch.cuda.get_device_capability(lm.device) >= (8, 0)


@contextmanager
def semi_structured(lm: LanguageModel) -> Iterator[LanguageModel]:
    """Run the linears of the blocks on these kernels within the context, and on their own weights after it.

    The weights stay beside their compressed form, so memory holds one and a half of them. Raises ValueError
    where a linear is not pruned 2:4, and for a model that is not on such a GPU in half precision.
    """
    linears = lm.all_linears()
    for (layer, name), linear in linears.items():
        if not is_two_of_four(linear.weight):
            raise ValueError(
                f"{name} of block {layer} has more than {KEPT} weights of {GROUP} that are not zero: "
                "prune with pattern='2:4'"
            )
    if not has_kernels(lm):
        raise ValueError(
            f"{lm.name} is in {lm.model.dtype} on {lm.device}: kernels for 2:4 zeros need half precision "
            "on a GPU from Ampere on"
        )

    dense = {linear: linear.weight for linear in linears.values()}
    try:
        for linear, weight in dense.items():
            compressed = torch.sparse.to_sparse_semi_structured(weight.detach())
            linear.weight = Parameter(compressed, requires_grad=False)
        yield lm
    finally:
        for linear, weight in dense.items():
            linear.weight = weight
