"""Killed runs: whatever the moment, going on ends with the same bits and repeats no finished block."""

import math
from dataclasses import replace

import pytest
import torch
from naive import same, weights_of
from random_models.cases import CASES
from random_models.writing import write

from sinkprune import prune
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune_core import Recipe
from sinkprune_core.blocks import weights_kept

LAYERS = 3
RECIPES = {
    "magnitude global": Recipe("magnitude", pattern="global"),
    "wanda sequential": Recipe(exclude="all", inputs="noised", noise_levels=2),
    "wanda dense": Recipe(
        exclude="official",
        inputs="noised",
        noise="official",
        norm_reduction="sum",
        noise_levels=2,
        propagation="dense",
    ),
    "sparsegpt sequential": Recipe("sparsegpt", exclude="official", noise_levels=2, pattern="layer"),
    "sparsegpt dense": Recipe("sparsegpt", inputs="noised", noise_levels=2, propagation="dense"),
}


@pytest.fixture
def count_calls():
    """A function that counts how often every block of a model runs from now on."""

    def count(lm) -> list[int]:
        calls = [0] * len(lm.blocks)
        for layer, block in enumerate(lm.blocks):
            first = next(iter(lm.linears(block).values()))  # a block itself is called for its masks, too
            first.register_forward_pre_hook(
                lambda module, args, layer=layer: calls.__setitem__(layer, calls[layer] + 1)
            )
        return calls

    return count


def outcome(lm, report) -> tuple:
    return (
        weights_of(lm),
        report.linears.to_dict("list"),
        report.kept_units,
        report.calibration_tokens,
        report.left_out_share,
    )


def assert_same(one: tuple, other: tuple) -> None:
    assert same(one[0], other[0])
    assert one[1:] == other[1:]


MAIN = ("wanda sequential", "wanda dense", "sparsegpt sequential", "sparsegpt dense")


@pytest.mark.parametrize("name", MAIN)
def test_a_run_killed_at_every_block_in_turn_repeats_no_finished_one(
    make_lm, short_text, tmp_path, killed_at, count_calls, name
):
    recipe, straight = RECIPES[name], make_lm("diffusion")
    once = count_calls(straight)
    expected = outcome(straight, prune(straight, recipe, short_text, progress=False))

    for layer in range(LAYERS):
        with killed_at(layer):
            prune(make_lm("diffusion"), recipe, short_text, progress=False, work=tmp_path)

    again = make_lm("diffusion")
    calls = count_calls(again)
    assert_same(outcome(again, prune(again, recipe, short_text, progress=False, work=tmp_path)), expected)

    states = 2 if recipe.inputs == "noised" else 1
    captured = math.ceil(len(short_text.ids_NT) * states / short_text.batch)
    if recipe.propagation == "dense" and recipe.criterion == "wanda":
        captured = 0

    # no finished block computes anything, and nobody reads what the pruned last one makes
    assert calls == [0, 0, captured]
    assert once[1] > 0


def test_a_run_that_goes_on_leaves_parameters_in_place_and_trainable(
    make_family, short_text, tmp_path, killed_at
):
    recipe = Recipe("flap", pattern="structured", compensate=True)
    with killed_at(1):
        prune(make_family("llama-gqa"), recipe, short_text, progress=False, work=tmp_path)

    lm = make_family("llama-gqa")
    lm.model.requires_grad_(True)
    before = dict(lm.model.named_parameters())
    prune(lm, recipe, short_text, progress=False, work=tmp_path)
    after = dict(lm.model.named_parameters())

    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(parameter.requires_grad for parameter in before.values())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {"bias"}


def test_a_streamed_model_keeps_its_finished_blocks_when_a_run_fails_and_has_them_back(
    tmp_path, short_text, killed_at
):
    write(CASES["llada"], tmp_path / "llada")
    lm = stream(open_checkpoint(tmp_path / "llada"), "streamed", torch.float32)
    recipe, work = Recipe(), tmp_path / "work"

    with weights_kept(lm):
        prune(lm, recipe, short_text, progress=False, work=work)
        finished = dict(lm.finished)
        other = replace(short_text, seed=1)

        with pytest.raises(ValueError, match="belongs to"):
            prune(lm, recipe, other, progress=False, work=work)
        assert lm.finished == finished and len(finished) == len(lm.blocks)

    assert not lm.finished


def test_ties_at_a_global_border_are_counted_over_a_kill(make_lm, short_text, tmp_path, killed_at):
    """Weights of one size: all pruned ones are ties, and those of finished blocks must not be given again."""

    def coarse():
        lm = make_lm("diffusion")
        for linear in lm.all_linears().values():
            linear.weight.copy_(linear.weight.sign())
        return lm

    recipe, straight = RECIPES["magnitude global"], coarse()
    expected = outcome(straight, prune(straight, recipe, short_text, progress=False))
    with killed_at(2):
        prune(coarse(), recipe, short_text, progress=False, work=tmp_path)
    again = coarse()
    assert_same(outcome(again, prune(again, recipe, short_text, progress=False, work=tmp_path)), expected)
