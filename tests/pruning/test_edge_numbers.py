"""Numbers at the edge of float32, bfloat16 and float16: pruned as stated, or refused by name."""

import pytest
import torch

from sinkprune_core import Calibration, preset, prune

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
RECIPES = {
    "magnitude": preset("magnitude"),
    "wanda": preset("wanda"),
    "unstable": preset("unstable", noise_levels=2),
    "sparsegpt": preset("sparsegpt", block_size=16),
    "2:4": preset("wanda", pattern="2:4"),
    "global": preset("magnitude", pattern="global"),
    "structured": preset("structured"),
}


def largest(weight, info):
    weight.view(-1)[::7] = info.max


def smallest(weight, info):
    weight.copy_(weight.sign() * info.smallest_normal * 2.0**-3)  # below what is normal


def far_apart(weight, info):
    weight.view(-1)[::2] = info.max / 4
    weight.view(-1)[1::2] = info.tiny


def zeros(weight, info):
    weight.zero_()


def equal(weight, info):
    weight.fill_(0.5)


def edge(lm, change) -> None:
    """Change the weights of two linears of the middle block."""
    block = lm.blocks[1]
    for linear in (block.self_attn.q_proj, block.mlp.down_proj):
        change(linear.weight, torch.finfo(linear.weight.dtype))


@pytest.mark.parametrize("change", [largest, smallest, far_apart, zeros, equal])
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_model_is_pruned_as_stated_or_refused_by_name(make_lm, make_ids, dtype, name, change):
    lm = make_lm("diffusion", "gqa-24")
    lm.model.to(dtype)
    edge(lm, change)
    recipe = RECIPES[name]

    try:
        report = prune(lm, recipe, Calibration(make_ids(4, 12), batch=4), progress=False)
    except ValueError as refused:
        said = str(refused)
        sure = "\n" not in said and ("block " in said or "is not finite: its weights are damaged" in said)
        if change is equal or not sure:
            raise
        return

    assert report.sparsity == pytest.approx(recipe.sparsity, abs=0.08 if name == "structured" else 0.01)
    for row in report.linears.itertuples():
        weight = lm.linears(lm.blocks[row.layer])[row.name].weight
        assert bool(torch.isfinite(weight).all()), (row.layer, row.name)
        found = int((weight == 0).sum())
        assert found >= row.zeros, (row.layer, row.name)

        if name == "2:4":
            left = (weight.view(len(weight), -1, 4) != 0).sum(-1)
            assert int(left.max()) <= 2, (row.layer, row.name)


@pytest.mark.parametrize("name", ["magnitude", "wanda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("power", [-9, 8])
def test_scores_that_differ_by_a_power_of_two_prune_the_same(make_lm, make_ids, dtype, name, power):
    """As long as all numbers are normal: nothing is rounded on the way from weights to a choice."""
    masks = []

    for factor in (1.0, 2.0**power):
        lm = make_lm("diffusion", "gqa-24", layers=1)
        lm.model.to(dtype)
        weight = lm.blocks[0].self_attn.o_proj.weight
        weight.copy_(torch.where(weight.abs() < 0.05, 0.05, weight))
        weight.mul_(factor)
        prune(lm, RECIPES[name], Calibration(make_ids(4, 12), batch=4), progress=False)
        masks.append(weight == 0)

    assert torch.equal(*masks)


def test_new_weights_that_overflow_are_refused(make_lm, make_ids):
    lm = make_lm("diffusion", "gqa-24")
    lm.model.to(torch.float16)
    lm.blocks[-1].mlp.down_proj.weight.sign_().mul_(6e4)
    with pytest.raises(ValueError, match=r"block 2 mlp\.down_proj"):
        prune(lm, RECIPES["sparsegpt"], Calibration(make_ids(4, 12)), progress=False)
