"""The one rule by construction, in its order, and what would decide an open verdict."""

import numpy as np
import pytest

from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune.evaluation.verdict_rule import (
    ABOVE,
    BELOW,
    CONTRADICTED,
    DEPENDS,
    LEAST_DRAWS,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    TOO_FEW_DRAWS,
    UNDECIDED,
    deciding_factor,
    deciding_run,
    holm,
    on_claim,
    over_conditions,
    verdict,
    verdicts_on_losses,
)


def estimate(low: float, high: float, **more) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", **more)


@pytest.mark.parametrize(
    ("against", "margin", "interval", "expected"),
    [
        (0.0, 0.1, (-2, -0.5), BELOW),
        (0.0, 0.1, (0.5, 2), ABOVE),
        (0.0, 0.1, (-0.05, 0.09), NO_DIFFERENCE),
        (0.0, 0.1, (0.01, 0.09), NO_DIFFERENCE),  # surely above 0, and surely small
        (0.0, 0.1, (-0.05, 0.2), UNDECIDED),
        (0.0, 0.1, (-2, 0.0), UNDECIDED),  # touches `against`
        (0.0, 0.1, (-0.1, 0.05), UNDECIDED),  # touches the margin
        (0.0, None, (-0.05, 0.09), UNDECIDED),
        (0.5, 0.05, (0.6, 0.8), ABOVE),
        (0.5, 0.05, (0.46, 0.54), NO_DIFFERENCE),
    ],
)
def test_a_verdict_follows_from_the_interval(against, margin, interval, expected):
    assert verdict(estimate(*interval), margin, against) == expected


def test_the_order_is_not_run_draws_margin_side():
    assert verdict(None, 0.1) == NOT_RUN
    clear, small = (-2, -1), (-0.05, 0.05)
    for interval, decided in ((clear, BELOW), (small, NO_DIFFERENCE)):
        few, enough = (estimate(*interval, draws=draws) for draws in (LEAST_DRAWS - 1, LEAST_DRAWS))
        assert verdict(few, 0.1) == TOO_FEW_DRAWS and verdict(enough, 0.1) == decided
    assert verdict(estimate(*clear), 3.0) == NO_DIFFERENCE, "the margin goes before the side"


def test_a_side_and_a_null_need_corrected_p_values():
    clear, small = estimate(-2, -1), estimate(-0.05, 0.05)
    assert [verdict(clear, 0.1, p=p) for p in (0.049, 0.051, None)] == [BELOW, UNDECIDED, BELOW]
    decided = [verdict(small, 0.1, p_matters=p) for p in (0.049, 0.051, None)]
    assert decided == [NO_DIFFERENCE, UNDECIDED, NO_DIFFERENCE]


def test_differences_of_losses_are_corrected_over_all_that_are_given():
    weak = estimate(-0.09, 0.05, margin=0.1)
    noise = [estimate(-1.0, 1.2, margin=0.1)] * 9
    assert verdicts_on_losses([weak]) == [NO_DIFFERENCE]
    assert verdicts_on_losses([weak, *noise])[0] == UNDECIDED


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([REPRODUCED, UNDECIDED], REPRODUCED),
        ([CONTRADICTED], DEPENDS),
        ([UNDECIDED, NO_DIFFERENCE], DEPENDS),
        ([], REPRODUCED),
    ],
)
def test_a_claim_depends_on_the_condition_where_decided_answers_turn(others, expected):
    assert over_conditions([REPRODUCED, *others]) == expected


def test_a_claim_that_no_condition_reproduces_does_not_turn():
    assert over_conditions([UNDECIDED, CONTRADICTED, NO_DIFFERENCE]) == UNDECIDED
    assert over_conditions([CONTRADICTED, NO_DIFFERENCE]) == CONTRADICTED
    assert over_conditions([UNDECIDED, REPRODUCED, CONTRADICTED]) == DEPENDS


def test_every_interval_has_one_verdict_whichever_side_is_claimed():
    rng = np.random.default_rng(0)
    seen = set()

    for _ in range(2000):
        one = estimate(*sorted(rng.normal(0, 0.1, 2)))
        mirrored = estimate(-one.high, -one.low)
        given = on_claim(verdict(one, 0.05), "below")
        assert given == on_claim(verdict(mirrored, 0.05), "above")
        seen.add(given)

    assert seen == {REPRODUCED, CONTRADICTED, NO_DIFFERENCE, UNDECIDED}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.02]).tolist() == [0.02] and holm([]).tolist() == []


def test_holm_keeps_a_family_honest_and_beats_bonferroni():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(2000, 8))
    assert np.mean([(holm(row) < 0.05).any() for row in values]) == pytest.approx(0.05, abs=0.015)
    assert np.mean((values < 0.05).any(1)) > 0.3
    assert all((holm(row) <= np.minimum(8 * row, 1)).all() for row in values[:50])


# how open an open verdict is


@pytest.mark.parametrize(("mean", "margin"), [(0.05, 0.02), (0.004, 0.02), (0.0, 0.02), (-0.013, 0.02)])
def test_so_large_a_run_would_decide_and_a_smaller_one_would_not(mean, margin):
    half = 0.2
    factor = deciding_factor(estimate(mean - half, mean + half), 0.0, margin)
    for size, decides in ((factor, True), (0.9 * factor, False)):
        width = half * size**-0.5 * (1 - 1e-9)
        assert (verdict(estimate(mean - width, mean + width), margin) != UNDECIDED) == decides


def test_the_units_that_limit_are_those_of_the_larger_variance_component():
    draws = estimate(-0.3, 0.3, draws=5, error_draws=0.15, error_sequences=0.01)
    assert deciding_run(draws, 0.0, 0.1) == "45 draws instead of 5"

    both = estimate(-0.3, 0.3, draws=5, error_draws=0.12, error_sequences=0.09)
    assert deciding_run(both, 0.0, 0.1) == "45 draws instead of 5 and 81 sequences instead of 9"

    one_draw = estimate(-0.3, 0.3, draws=1, error_sequences=0.15)
    assert deciding_run(one_draw, 0.0, 0.1) == "81 sequences instead of 9"

    assert deciding_run(estimate(-9, 9), 0.0, 0.1) == "more than 1,000 times the units"

    rng = np.random.default_rng(0)
    measured = crossed_interval(rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(1, 40)))
    assert deciding_run(measured, 0.0, 0.5).endswith("draws instead of 6")
