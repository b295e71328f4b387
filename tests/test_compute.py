"""FLOPs from shapes agree with torch's own counter, and zeros are counted where they are."""

import pytest
import torch

from sinkprune_core import compute
from sinkprune_core.pruning import preset, prune


def where(length: int, positions: int) -> torch.Tensor:
    return (torch.arange(length) >= length - positions)[None]


@pytest.mark.parametrize("length, positions", [(8, 3), (16, 15)])
def test_forward_flops_equal_the_count_of_a_real_forward(tiny_dlm, length, positions):
    ids_BT = torch.arange(length)[None] % 20
    expected = compute.forward_cost(tiny_dlm, length, positions).total
    assert compute.counted_flops(tiny_dlm, ids_BT, where(length, positions)) == expected
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


def test_effective_flops_shrink_with_the_zeros_of_the_linears_only(tiny_dlm):
    cost = compute.forward_cost(tiny_dlm, 8, 4)
    assert cost.effective(0) == cost.total
    assert cost.total - cost.effective(0.5) == cost.linears / 2


def test_generation_costs_add_up_over_steps(tiny_dlm):
    by_hand = sum(compute.forward_cost(tiny_dlm, 2 + 8, left).effective(0.25) for left in (8, 6, 4, 2))
    assert compute.generation_flops(tiny_dlm, 8, 2, 4, 0.25) == pytest.approx(by_hand)
    assert compute.generation_flops(tiny_dlm, 8, 2, 8) > 1.9 * compute.generation_flops(tiny_dlm, 8, 2, 4)


def test_parameters_and_zeros_are_counted(tiny_dlm):
    total = sum(parameter.numel() for parameter in tiny_dlm.model.parameters())
    assert compute.parameters(tiny_dlm).parameters.sum() == total
    assert compute.sparsity(tiny_dlm) == 0
    report = prune(tiny_dlm, preset("magnitude", sparsity=0.5), progress=False)
    assert compute.sparsity(tiny_dlm) == pytest.approx(report.sparsity, abs=1e-12)
    assert compute.parameters(tiny_dlm).loc["embeddings"].nunique() == 1, "embeddings are never pruned"
