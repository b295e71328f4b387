"""Weights that leaving sinks out decides: which, in which order, and the zeros once they are back."""

from functools import partial

import pytest
import torch

from sinkprune_companion.experiments import stable_sinks
from sinkprune_companion.experiments.lost_weights import largest_inputs, lost_weights, restored
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import SinkContext, heads_of, rows_for, token_weights

LEVELS = 4
SPARSITY = 0.5


@pytest.fixture
def lm(make_anchored_lm):
    return make_anchored_lm("diffusion")


@pytest.fixture
def text(make_text_with_separators) -> Calibration:
    return make_text_with_separators(6)


@pytest.fixture
def by_name(lm):
    return stable_sinks.recipes(SPARSITY, LEVELS, stability_threshold=0.3)


@pytest.fixture
def shared(lm, by_name, text):
    return SharedStatistics(lm, by_name.values(), text)


@pytest.fixture
def largest(lm, by_name, text):
    rows = rows_for(lm, text, by_name["stable"].statistics_key, progress=False)
    return largest_inputs(lm, rows)


@pytest.fixture
def first_lost(lm, by_name, shared, largest):
    """A function that returns the first so many weights that leave with the stable sinks."""
    statistics = [shared.of(by_name[name]) for name in ("none", "stable")]
    return partial(lost_weights, lm, by_name["stable"], *statistics, largest)


def linears(lm):
    return {place: linear.weight for place, linear in lm.all_linears().items()}


def test_lost_weights_are_those_of_a_naive_search_in_its_order(
    lm, by_name, text, shared, largest, first_lost
):
    lost = first_lost(10_000)

    kept, kept_without = {}, {}
    for name, masks in {"none": kept, "stable": kept_without}.items():
        with Variant(lm, "tiny", by_name[name], text, shared) as variant:
            variant.ready()
            masks |= {place: weights != 0 for place, weights in linears(lm).items()}

    expected = []
    for place, weights in linears(lm).items():
        for output in range(len(weights)):
            for column in range(weights.shape[1]):
                if kept[place][output, column] and not kept_without[place][output, column]:
                    size = float(weights[output, column].abs() * largest[place][column])
                    expected.append((-size, *place, output, column))

    expected.sort(key=lambda row: row[0])

    assert len(expected) == lost.lost.iloc[0] == len(lost) > 20
    assert lost.importance.tolist() == pytest.approx([-row[0] for row in expected], rel=1e-5)
    found = set(lost[["layer", "linear", "output", "input"]].itertuples(index=False, name=None))
    assert found == {row[1:] for row in expected}

    assert first_lost(7).equals(lost.head(7).reset_index(drop=True)), (
        "a shorter list is the start of a longer one"
    )


def test_restoring_keeps_the_number_of_zeros_and_ends_with_the_block(lm, by_name, text, shared, first_lost):
    lost = first_lost(3)
    dense = {place: weights.clone() for place, weights in linears(lm).items()}

    with Variant(lm, "tiny", by_name["stable"], text, shared) as variant:
        variant.ready()
        pruned = {place: weights.clone() for place, weights in linears(lm).items()}
        zeros = sum(int((weights == 0).sum()) for weights in pruned.values())

        already_zero = 0  # replacements that the dense model has as zeros: what goes was nothing
        for row in lost.itertuples():
            already_zero += int(dense[row.layer, row.linear][row.output, row.replaced_by] == 0)

        with restored(lm, lost):
            now = linears(lm)
            assert zeros - sum(int((weights == 0).sum()) for weights in now.values()) == already_zero
            for row in lost.itertuples():
                place = row.layer, row.linear
                assert now[place][row.output, row.input] == dense[place][row.output, row.input]

        assert all(torch.equal(linears(lm)[place], pruned[place]) for place in pruned)


def test_as_many_random_tokens_as_stable_sinks_leave_at_every_step(lm, by_name, text):
    profiles = sink_profiles(lm, text, LEVELS, progress=False)
    counts = {}

    for name in ("stable", "random, as many as stable"):
        key = by_name[name].statistics_key
        weight_RT = token_weights(SinkContext(*profiles, key, heads_of(lm), text.seed))
        counts[name] = (weight_RT == 0).sum(1)
        alone = SinkContext(profiles[0][2:3], profiles[1], key, heads_of(lm), text.seed, 2)
        assert torch.equal(token_weights(alone), weight_RT[2 * LEVELS : 3 * LEVELS])

    assert torch.equal(*counts.values()) and counts["stable"].sum() > 0
