"""FLOPs from shapes agree with torch's own counter, and zeros are counted where they are."""

import pytest
import torch

from sinkprune import prune
from sinkprune.models.shrinking import shrink
from sinkprune_companion.experiments import compute
from sinkprune_core import Calibration, preset


def where(length: int, positions: int) -> torch.Tensor:
    return (torch.arange(length) >= length - positions)[None]


@pytest.mark.parametrize(("length", "positions"), [(8, 3), (16, 15)])
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


@pytest.mark.parametrize("steps", [3, 8, 9])
def test_affordable_steps_are_the_last_within_the_budget(steps):

    def cost(count: int) -> float:
        return 1.5 * count + 1

    assert compute.affordable_steps(cost, cost(steps), 8) == min(steps, 8)
    assert compute.affordable_steps(cost, cost(steps) - 0.1, 8) == min(steps - 1, 8)
    assert compute.affordable_steps(cost, 0.0, 8) == 1, "one step is the least there is"


@pytest.mark.parametrize("family", ["llama-gqa", "qwen2"])
def test_the_account_adds_up_to_parameters_and_counted_flops_dense_and_pruned(make_family, make_ids, family):
    lm, ids_BT = make_family(family), make_ids(2, 10)

    dense = compute.account(lm, ids_BT, where(10, 4).expand(2, -1))
    total = dense.loc["total"]
    assert total.parameters == sum(parameter.numel() for parameter in lm.model.parameters())
    assert total.bytes == 4 * total.parameters
    assert total.flops == total.counted_flops == total.effective_flops

    report = prune(lm, preset("structured", sparsity=0.4), Calibration(make_ids(3, 12)), progress=False)
    masked = compute.account(lm, ids_BT, where(10, 4).expand(2, -1))
    smaller = compute.account(shrink(lm, report.kept_units), ids_BT, where(10, 4).expand(2, -1))

    assert masked.loc["total"].flops == total.flops, "dense kernels multiply zeros"
    for kind in ("self_attn linears", "mlp linears"):
        assert masked.loc[kind].nonzero == smaller.loc[kind].parameters < dense.loc[kind].nonzero
        assert masked.loc[kind].effective_flops == pytest.approx(smaller.loc[kind].flops)

    assert smaller.loc["total"].flops == smaller.loc["total"].counted_flops < total.flops
    assert smaller.loc["embeddings and head"].equals(dense.loc["embeddings and head"])
