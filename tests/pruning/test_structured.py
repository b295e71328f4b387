"""Structured pruning: units by naive ownership, scores by loops in float64, and exact counts."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import same, weights_of
from tiny_units import (
    COMPENSATED,
    FAMILIES,
    WEIGHT_N,
    counts,
    inputs_of,
    masked,
    owned,
    some_kept,
    statistics_of,
)
from transformers import LlamaConfig, LlamaForCausalLM

from sinkprune.models.shrinking import shrink
from sinkprune_core import Recipe
from sinkprune_core.blocks import weights_kept
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.recipe import as_settings
from sinkprune_core.pruning.structured import choose, group_counts, mask, removable, scores, unit_counts

UNIT_CRITERIA = [name for name, criterion in CRITERIA.items() if criterion.unit_score is not None]


# scores


def naive_scores(lm, layer: int, kind: str, criterion: str, inputs, weight_N) -> list[float]:
    """Return a score per unit by loops over lists, from the formulas."""
    linears = lm.linears(lm.blocks[layer])
    found = []

    for unit in range(counts(lm)[kind]):
        total = 0.0
        for name, (rows, columns) in owned(lm, kind, unit).items():
            weight = linears[name].weight.double()
            if criterion == "magnitude":
                total += sum(value * value for row in rows for value in weight[row].tolist())

            for column in columns:
                tokens = inputs[name][:, column].tolist()
                total += naive_column_score(criterion, weight[:, column].tolist(), tokens, weight_N.tolist())

        found.append(math.sqrt(total) if criterion == "magnitude" else total)

    return found


def naive_column_score(criterion: str, values: list, tokens: list, token_weights: list) -> float:
    """Return what a column adds to the score of its unit, from its weights, its inputs and their weights."""
    squares = sum(value * value for value in values)
    if criterion == "magnitude":
        return squares

    weighted = list(zip(token_weights, tokens, strict=True))
    if criterion == "wanda":
        return sum(abs(value) for value in values) * math.sqrt(sum((w * x) ** 2 for w, x in weighted))

    count = sum(w * w for w in token_weights)
    mean = sum(w * w * x for w, x in weighted) / count
    variance = sum(w * w * (x - mean) ** 2 for w, x in weighted) / count
    return squares * variance


@pytest.mark.parametrize("criterion", UNIT_CRITERIA)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_loops_over_what_a_unit_owns(make_family, make_ids, family, criterion):
    lm, ids_BT = make_family(family), make_ids(3, 11)
    statistics = statistics_of(lm, 1, ids_BT, WEIGHT_N) if CRITERIA[criterion].calibrated else None
    found = scores(lm, lm.blocks[1], CRITERIA[criterion].unit_score, statistics)
    assert set(found) == set(counts(lm))
    for kind, score_U in found.items():
        expected = torch.tensor(naive_scores(lm, 1, kind, criterion, inputs_of(lm, 1, ids_BT), WEIGHT_N))
        torch.testing.assert_close(score_U, expected, rtol=1e-4, atol=1e-6)
        assert score_U.dtype == torch.float32


@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=30), share=st.floats(0, 0.99))
@settings(max_examples=100, deadline=None)
def test_the_lowest_scores_leave_and_ties_go_by_lowest_index(values, share):
    removed = int(len(values) * share)
    leaving = sorted(range(len(values)), key=lambda unit: (values[unit], unit))[:removed]
    assert choose(torch.tensor(values).float(), removed).tolist() == [
        unit for unit in range(len(values)) if unit not in leaving
    ]


# how many units leave


def on_meta(make_lm, config) -> LanguageModel:
    """Return a model of real size that holds no weights."""
    with torch.device("meta"):
        return dataclasses.replace(make_lm("autoregressive"), model=LlamaForCausalLM(config), name="large")


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.62])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_ratio_reached_is_counted_exactly(make_family, family, ratio):
    lm = make_family(family)
    planned = unit_counts(lm, ratio)

    kept = [
        {kind: torch.arange(planned.removed[kind], count) for kind, count in counts(lm).items()}
        for _ in lm.blocks
    ]
    smaller = shrink(lm, kept)
    before = lm.prunable_weights

    assert before - smaller.prunable_weights == planned.weights_removed * len(lm.blocks)
    assert before == planned.weights * len(lm.blocks)
    assert planned.reached == (before - smaller.prunable_weights) / before

    linears = masked(lm, kept).all_linears().values()
    zeros = sum(int((linear.weight == 0).sum()) for linear in linears)
    assert zeros == planned.weights_removed * len(lm.blocks)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_plan_comes_nearer(make_family, family):
    """Of the numbers of groups that the MLP can make up for, that nearest to the ratio, then in total."""
    lm = make_family(family)
    sizes = {name: linear.weight.numel() for name, linear in lm.linears(lm.blocks[0]).items()}
    channels_in_all = counts(lm)["mlp"]
    groups_in_all = counts(lm).get("attention", 1)
    total = sum(sizes.values())
    mlp = sum(size for name, size in sizes.items() if "mlp" in name)
    channel = mlp / channels_in_all
    group = (total - mlp) / groups_in_all

    totals = {}
    for groups in group_counts(lm.model.config):
        for channels in range(channels_in_all):
            totals[groups, channels] = groups * group + channels * channel

    for ratio in torch.linspace(0.03, 0.62, 60, dtype=torch.float64).tolist():
        distances = []
        for (groups, channels), value in totals.items():
            if abs(value - ratio * total) <= channel / 2 + 1e-6:
                of_groups = abs(groups - ratio * groups_in_all)
                distances.append((of_groups, abs(value - ratio * total), groups, channels))

        _, _, groups, channels = min(distances)
        planned = unit_counts(lm, ratio)
        expected = {"attention": groups, "mlp": channels}
        assert planned.removed == {kind: expected[kind] for kind in counts(lm)}

        assert planned.weights_removed == totals[groups, channels]


def test_llama_gives_up_only_numbers_of_heads_that_divide_its_width(make_lm):
    """The shape of LLaDA-8B, whose config refuses 22 of 32 heads: half of attention leaves instead."""
    lm = on_meta(
        make_lm,
        LlamaConfig(
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=1,
            num_attention_heads=32,
            num_key_value_heads=32,
        ),
    )

    assert [32 - removed for removed in group_counts(lm.model.config)] == [32, 16, 8, 4, 2, 1]
    planned = unit_counts(lm, 0.3)
    assert planned.removed["attention"] == 16 and planned.reached == pytest.approx(0.3, abs=1e-4)

    with pytest.raises(Exception, match="not a multiple"):
        LlamaConfig(hidden_size=4096, num_attention_heads=22, num_key_value_heads=22, head_dim=128)


def wide(make_lm, channels: int) -> LanguageModel:
    sizes = {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
    return on_meta(make_lm, LlamaConfig(**sizes, intermediate_size=channels, num_hidden_layers=1))


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("channels", [511, 512, 1536, 1500])
def test_the_mlp_keeps_a_multiple_of_64_channels_where_it_has_eight_times_as_many(make_lm, channels, ratio):
    lm = wide(make_lm, channels)
    exact, rounded = unit_counts(lm, ratio), unit_counts(lm, ratio, 64)

    assert rounded.removed["attention"] == exact.removed["attention"]
    kept = channels - rounded.removed["mlp"]

    if channels < 512:
        assert rounded == exact
    else:
        assert kept % 64 == 0 or kept == channels
        assert abs(rounded.removed["mlp"] - exact.removed["mlp"]) <= 32
        assert kept >= 64


def test_a_structured_recipe_rounds_to_64_unless_told_otherwise(make_lm):
    lm = wide(make_lm, 1536)
    removed = {
        round_to: make_plan(
            lm, Recipe("magnitude", pattern="structured", round_to=round_to), None
        ).units.removed
        for round_to in (None, 1, 64, 128)
    }

    assert removed[None] == removed[64]
    assert [1536 - removed[round_to]["mlp"] for round_to in (1, 64, 128)] == [683, 704, 640]
    assert Recipe(pattern="structured").round_to == 64 and Recipe().round_to is None

    with pytest.raises(
        ValueError, match="round_to=64 has no effect on this recipe: only pattern='structured'"
    ):
        Recipe(round_to=64)

    with pytest.raises(ValueError, match=r"^round_to=0 "):
        Recipe(pattern="structured", round_to=0)


def test_a_key_names_the_width_only_where_earlier_recipes_had_another():
    """Records of structured recipes were taken of widths that are not rounded."""
    exact = Recipe(pattern="structured", round_to=1)
    assert "round_to" not in as_settings(exact) and "round_to" not in as_settings(Recipe())
    assert as_settings(Recipe(pattern="structured"))["round_to"] == 64
    for recipe in (exact, Recipe(pattern="structured"), Recipe()):
        assert Recipe(**recipe.card()) == recipe


# masks and compensation


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_zeroes_what_the_units_own_and_nothing_else(make_family, family):
    lm = make_family(family)
    before = weights_of(lm)
    kept = some_kept(lm)

    with weights_kept(lm):
        masked(lm, kept)
        for block, stays in zip(lm.blocks, kept, strict=True):
            linears = lm.linears(block)
            expected = {name: torch.zeros(each.weight.shape) > 0 for name, each in linears.items()}
            for kind, count in counts(lm).items():
                for unit in set(range(count)) - set(stays[kind].tolist()):
                    for name, (rows, columns) in owned(lm, kind, unit).items():
                        expected[name][list(rows)] = True
                        expected[name][:, list(columns)] = True

            for name, linear in linears.items():
                assert torch.equal(linear.weight == 0, expected[name])

    assert same(weights_of(lm), before)


@pytest.mark.parametrize("family", COMPENSATED)
def test_compensation_adds_the_mean_of_what_is_removed(make_family, make_ids, family):
    lm, ids_BT = make_family(family), make_ids(3, 11)
    kept, statistics = some_kept(lm)[1], statistics_of(lm, 1, ids_BT, WEIGHT_N)
    linears = lm.linears(lm.blocks[1])
    expected = {}

    for kind, count in counts(lm).items():
        reader = removable(lm)[kind].columns
        weight = linears[reader].weight.double()
        bias = [0.0] * len(weight)
        if linears[reader].bias is not None:
            bias = linears[reader].bias.tolist()

        for unit in set(range(count)) - set(kept[kind].tolist()):
            for column in owned(lm, kind, unit)[reader][1]:
                mean = float(statistics[reader].mean_I[column])
                added = [mean * value for value in weight[:, column].tolist()]
                bias = [total + value for total, value in zip(bias, added, strict=True)]

        expected[reader] = bias

    mask(lm, lm.blocks[1], kept, statistics)
    for reader, bias in expected.items():
        torch.testing.assert_close(linears[reader].bias, torch.tensor(bias), atol=1e-5, rtol=1e-4)


def test_a_bias_that_compensation_changed_comes_back(make_family, make_ids):
    lm = make_family("llama-biased")
    kept, statistics = some_kept(lm)[1], statistics_of(lm, 1, make_ids(3, 11), WEIGHT_N)
    biases = [lm.linears(lm.blocks[1])[units.columns].bias for units in removable(lm).values()]
    numbers = [bias.clone() for bias in biases]

    with weights_kept(lm):
        mask(lm, lm.blocks[1], kept, statistics)
        assert not any(torch.equal(bias, was) for bias, was in zip(biases, numbers, strict=True))

    for units, bias, was in zip(removable(lm).values(), biases, numbers, strict=True):
        assert lm.linears(lm.blocks[1])[units.columns].bias is bias
        assert torch.equal(bias, was)


# errors


def test_a_ratio_that_removes_nothing_is_refused(tiny_dlm):
    said = r"ratio=0\.001 leaves nothing to remove: one MLP channel of tiny-diffusion is 0\.0130 of a block"
    with pytest.raises(ValueError, match=said):
        unit_counts(tiny_dlm, 0.001)
    with pytest.raises(ValueError, match="whose blocks keep a unit of each kind"):
        unit_counts(tiny_dlm, 0.999)
