"""Models whose cost notebook 04 accounts for: pruned, smaller where units go, sharing what they can."""

import pytest
import torch

from sinkprune_companion.experiments.cost_models import cost_models
from sinkprune_core.pruning.recipe import preset

KINDS = {
    "unstructured": preset("magnitude", sparsity=0.5),
    "2:4": preset("magnitude", pattern="2:4"),
    "structured": preset("structured-magnitude", sparsity=0.5),
}


@pytest.fixture
def lm(make_lm):
    return make_lm("diffusion", "gqa-24")


def test_every_kind_is_pruned_and_the_model_itself_is_not(lm):
    before = lm.fingerprint()
    counts = {name: parameters(pruned) for name, pruned in cost_models(lm, KINDS)}
    zeros = {name: blocks_zeros(pruned) for name, pruned in cost_models(lm, KINDS)}
    whole = parameters(lm)
    assert counts["unstructured"] == counts["2:4"] == whole > counts["structured"]
    assert 0.48 < zeros["unstructured"] < 0.52 and zeros["structured"] < 0.01
    assert lm.fingerprint() == before and blocks_zeros(lm) < 0.01


def parameters(lm) -> int:
    return sum(parameter.numel() for parameter in lm.model.parameters())


def blocks_zeros(lm) -> float:
    weights = [linear.weight for block in lm.blocks for linear in lm.linears(block).values()]
    return float(torch.cat([weight.flatten() for weight in weights]).eq(0).double().mean())
