"""Five verdicts by construction, in their order, and what would decide an open one."""

import numpy as np
import pytest
from scipy import stats

from sinkprune_core.evaluation import verdict_rule
from sinkprune_core.evaluation.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    deciding_factor,
    deciding_run,
    limiting_units,
    note,
    p_value,
    smallest_effect,
    verdict,
)
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval


def estimate(low: float, high: float, **more) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", **more)


@pytest.mark.parametrize(
    ("side", "against", "margin", "interval", "expected"),
    [
        ("below", 0.0, 0.1, (-2, -0.5), REPRODUCED),
        ("below", 0.0, 0.1, (0.5, 2), CONTRADICTED),
        ("below", 0.0, 0.1, (-0.05, 0.09), NO_DIFFERENCE),
        ("below", 0.0, 0.1, (-0.05, 0.2), UNDECIDED),
        ("below", 0.0, 0.1, (-2, 0.0), UNDECIDED),  # touches `against`
        ("below", 0.0, 0.1, (-0.1, 0.05), UNDECIDED),  # touches the margin
        ("below", 0.0, None, (-0.05, 0.09), UNDECIDED),
        ("above", 0.5, 0.05, (0.6, 0.8), REPRODUCED),
        ("above", 0.5, 0.05, (0.2, 0.4), CONTRADICTED),
        ("above", 0.5, 0.05, (0.46, 0.54), NO_DIFFERENCE),
        ("above", 0.5, 0.05, (0.4, 0.54), UNDECIDED),
    ],
)
def test_a_verdict_follows_from_the_interval(side, against, margin, interval, expected):
    assert verdict(estimate(*interval), side, against, margin) == expected


def test_without_a_finding_nothing_was_run():
    assert verdict(None, "below", 0.0, 0.1) == NOT_RUN and note(None, "below", 0.0, 0.1) == ""


@pytest.mark.parametrize(("interval", "side"), [((-0.05, -0.01), REPRODUCED), ((0.01, 0.05), CONTRADICTED)])
def test_a_side_goes_before_equivalence_and_says_that_it_is_small(interval, side):
    found = estimate(*interval)
    assert verdict(found, "below", 0.0, 0.1) == side
    assert note(found, "below", 0.0, 0.1) == "smaller than what matters"
    assert note(found, "below", 0.0, 0.04) == ""


def test_every_interval_has_exactly_one_verdict():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(2000):
        found = estimate(*sorted(rng.normal(0, 0.1, 2)))
        one = verdict(found, "below", 0.0, 0.1)
        mirrored = verdict(estimate(-found.high, -found.low), "above", 0.0, 0.1)
        assert one == mirrored, "the two sides follow one rule"
        seen.add(one)
    assert seen == {REPRODUCED, CONTRADICTED, NO_DIFFERENCE, UNDECIDED}


def test_the_smallest_effect_is_seen_in_four_of_five_runs():
    found = estimate(-0.98, 0.98)  # a standard error of 0.5
    assert smallest_effect(found) == pytest.approx(1.43 * found.half_width, rel=1e-3)
    assert smallest_effect(found) == pytest.approx(2.80 * 0.5, rel=2e-3)
    means = np.random.default_rng(0).normal(smallest_effect(found), found.standard_error, 20_000)
    assert np.mean(np.abs(means) > found.half_width) == pytest.approx(0.8, abs=0.01)


def test_the_run_that_would_decide_brings_the_half_width_down_to_the_margin():
    wide = estimate(-0.3, 0.3)
    assert deciding_factor(wide, 0.0, 0.1) == pytest.approx(9)
    assert deciding_run(wide, 0.0, 0.1) == "81 units instead of 9"
    at_the_edge = estimate(-0.01, 0.13)  # narrow enough, but the mean lies near the margin
    factor = deciding_factor(at_the_edge, 0.0, 0.1)
    needed = at_the_edge.half_width / factor**0.5
    assert factor > 1 and needed == pytest.approx(at_the_edge.value), "then it leaves `against` out"
    assert deciding_run(estimate(-9, 9), 0.0, 0.1) == "more than 1,000 times the units"


def test_the_units_that_limit_are_those_of_the_larger_variance_component():
    draws = estimate(-0.3, 0.3, draws=5, error_draws=0.15, error_sequences=0.01)
    assert limiting_units(draws, 0.1) == ["calibration draws"]
    assert deciding_run(draws, 0.0, 0.1) == "45 calibration draws instead of 5"
    both = estimate(-0.3, 0.3, draws=5, error_draws=0.12, error_sequences=0.09)
    assert limiting_units(both, 0.1) == ["calibration draws", "sequences"]
    one_draw = estimate(-0.3, 0.3, draws=1, error_sequences=0.15)
    assert deciding_run(one_draw, 0.0, 0.1) == "81 sequences instead of 9"
    rng = np.random.default_rng(0)
    measured = crossed_interval(rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(1, 40)))
    assert limiting_units(measured, 0.5) == ["calibration draws"] and measured.draws == 6


def test_an_open_verdict_says_how_open_it_is():
    said = note(estimate(-0.3, 0.3), "below", 0.0, 0.1)
    assert said == "half-width 0.3; could have seen 0.43; would decide: 81 units instead of 9"
    assert "no margin was stored" in note(estimate(-0.3, 0.3), "below", 0.0, None)


def test_p_values_come_from_the_interval_or_from_the_finding():
    found = estimate(-0.98 + 0.98, 0.98 + 0.98)  # touches 0: p is 0.05
    assert p_value(found, 0.0) == pytest.approx(0.05, rel=1e-3)
    assert p_value(found, found.value) == 1
    assert p_value(estimate(0.0, 1.96, p=0.3), 0.0) == 0.3
    assert p_value(estimate(1, 1), 1.0) == 1 and p_value(estimate(1, 1), 0.0) == 0
    two_sided = 2 * stats.norm.sf(abs(found.value - 3) / found.standard_error)
    assert p_value(found, 3.0) == pytest.approx(two_sided)


def test_a_number_of_units_is_rounded_up_to_two_digits():
    counts = (1.2, 12.1, 121.1, 98_765.0)
    assert [verdict_rule._rounded_up(count) for count in counts] == [2, 13, 130, 99_000]
