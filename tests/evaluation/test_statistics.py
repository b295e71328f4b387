"""Intervals cover as often as they say, and agree with what a hand computes."""

from dataclasses import replace

import numpy as np
import pytest
from naive_interval import two_way_t_interval
from scipy import stats

from sinkprune.evaluation.intervals import crossed_interval, interval, within_share
from sinkprune.evaluation.variance_components import components

pytestmark = pytest.mark.slow


def test_an_interval_over_units_is_the_t_interval():
    values = np.random.default_rng(0).normal(2, 1, 12)
    found = interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)

    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert (found.units, found.draws, found.freedom) == (12, None, 11)
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert found.p_value(1.5) == pytest.approx(stats.ttest_1samp(values, 1.5).pvalue)

    constant = interval([0.0, 0.0])
    assert (constant.p_value(), constant.p_value(1.0)) == (1, 0)


def test_an_interval_needs_two_units_and_leaves_out_nan():
    with pytest.raises(ValueError, match="at least 2 units, got 1"):
        interval([1.0, float("nan")])
    constant = interval([2.0, 2.0, float("nan")])
    assert (constant.value, constant.low, constant.high, constant.units) == (2, 2, 2, 2)


def test_a_crossed_interval_of_one_draw_is_that_over_sequences():
    values_1N = np.random.default_rng(0).normal(size=(1, 64))
    one, plain = crossed_interval(values_1N), interval(values_1N[0])
    assert "one calibration draw" in one.method and one.draws == 1
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high))
    with pytest.raises(ValueError, match="at least 2 sequences"):
        crossed_interval(np.zeros((3, 1)))
    two_draws = crossed_interval(np.eye(2))  # two sequences are enough
    assert (two_draws.value, two_draws.draws) == (0.5, 2) and two_draws.error_draws is not None


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan")])
def test_a_margin_is_above_zero(margin):
    found = interval([0.0, 1.0])
    assert replace(found, margin=1e-9).margin == 1e-9
    with pytest.raises(ValueError, match=f"margin={margin} must be positive"):
        replace(found, margin=margin)


def test_a_margin_that_is_a_share_of_a_mean_carries_its_error():
    rng = np.random.default_rng(0)
    cost_RN = rng.normal(1.0, 0.5, (5, 40))
    values_RN = rng.normal(0.0, 0.02, (5, 40))

    found = within_share(values_RN, cost_RN, 0.05)
    below, above = (crossed_interval(values_RN + sign * 0.05 * cost_RN) for sign in (-1, 1))
    assert found.margin == pytest.approx(0.05 * cost_RN.mean())
    assert found.p_matters == pytest.approx(max(below.p_value(), above.p_value()))
    assert found.p_of_a_difference(found.margin) == found.p_matters

    fixed = found.with_margin(found.margin)
    assert fixed.p_of_a_difference(fixed.margin) < found.p_matters, "without the error of the cost"

    assert within_share(values_RN + 1, cost_RN, 0.05).p_matters == 1, "it lies beyond the margin"
    assert within_share(values_RN, cost_RN - 1, 0.05).margin is None, "a cost that is not told from zero"


def crossed_normal(
    rng,
    repetitions: int,
    sequences: int,
    mean: float = 0.0,
    by_draw: float = 0.0,
    by_sequence: float = 1.0,
    rest: float = 0.0,
) -> np.ndarray:
    """Return values (R, N) with known standard deviations of draws, sequences and the rest."""
    return (
        mean
        + by_draw * rng.normal(size=(repetitions, 1))
        + by_sequence * rng.normal(size=(1, sequences))
        + rest * rng.normal(size=(repetitions, sequences))
    )


def test_components_by_hand():
    """Row means 2 and 5, column means 2, 3, 5.5; the rest is 0.5, -0.5 and 0, then with the other sign."""
    found = components([[1, 1, 4], [3, 5, 7]])
    by_draw, by_sequence = 3 * (1.5**2 + 1.5**2), 2 * (1.5**2 + 0.5**2 + 2**2) / 2
    rest = 2 * (0.5**2 + 0.5**2 + 0**2) / 2

    assert found.draws == pytest.approx(((by_draw - rest) / 6) ** 0.5)
    assert found.sequences == pytest.approx(((by_sequence - rest) / 6) ** 0.5)
    assert found.total**2 == pytest.approx((by_draw + by_sequence - rest) / 6)
    assert found.freedom == pytest.approx(
        (by_draw + by_sequence - rest) ** 2 / (by_draw**2 / 1 + by_sequence**2 / 2 + rest**2 / 2)
    )


@pytest.mark.parametrize("by_draw", [0.0, 0.5])
@pytest.mark.parametrize("by_sequence", [0.0, 2.0])
def test_a_crossed_interval_is_that_of_the_formulas(by_draw, by_sequence):
    rng = np.random.default_rng(0)
    for _ in range(20):
        values_RN = crossed_normal(rng, 5, 30, by_draw=by_draw, by_sequence=by_sequence, rest=1.0)
        found = crossed_interval(values_RN)
        assert (found.value, found.low, found.high) == pytest.approx(two_way_t_interval(values_RN), rel=1e-9)


def test_components_of_one_draw_are_the_ordinary_standard_error():
    values = np.random.default_rng(0).normal(size=20)
    found = components(values)
    assert found.total == found.sequences == pytest.approx(stats.sem(values)) and found.freedom == 19
    assert np.isnan(found.draws)
    alike = components(np.tile(values, (3, 1)))  # draws that change nothing
    assert (
        alike.total == pytest.approx(found.total) and alike.draws == 0 and alike.freedom == pytest.approx(19)
    )


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1.0, np.nan]], np.zeros((2, 2, 2))])
def test_components_need_complete_sequences(values):
    with pytest.raises(ValueError, match="at least 2 sequences"):
        components(values)


# coverage


def coverage(draws: int, by_draw: float, by_sequence: float, rest: float, sequences: int = 264) -> float:
    """Return how often intervals over so many draws hold the mean that went in, of 1,000."""
    rng = np.random.default_rng([draws, round(100 * by_draw)])
    inside = 0

    for _ in range(1000):
        values = crossed_normal(
            rng, draws, sequences, mean=2.0, by_draw=by_draw, by_sequence=by_sequence, rest=rest
        )
        found = crossed_interval(values)
        inside += found.low <= 2.0 <= found.high

    return inside / 1000


@pytest.mark.parametrize("draws", [5, 10])
@pytest.mark.parametrize("parts", [(1.0, 0.5, 0.5), (0.05, 0.1, 1.0), (0.2, 1.0, 1.0)])
def test_intervals_over_five_draws_and_more_cover_as_often_as_they_say(draws, parts):
    """Draws dominate, as at 75 % sparsity; the rest does, as at 50 %; none does."""
    assert 0.93 <= coverage(draws, *parts) <= 0.97


def test_intervals_over_two_draws_cover_less_which_is_why_they_give_no_verdict():
    assert coverage(2, 1.0, 0.5, 0.5) < 0.93
