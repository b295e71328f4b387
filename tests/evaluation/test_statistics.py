"""Intervals cover, tests are as often wrong as they say, and both agree with what a hand computes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sinkprune_core.evaluation.intervals import Estimate, compare, crossed_interval, interval, listed, pivot
from sinkprune_core.evaluation.significance import equivalence, family, holm, signed_rank
from sinkprune_core.evaluation.variance_components import components


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = [
        found.low <= 2 <= found.high
        for found in (interval(rng.normal(2, 1, 40), seed) for seed in range(100))
    ]
    assert 85 <= sum(inside) <= 100


def test_an_interval_needs_two_units_and_leaves_out_nan():
    with pytest.raises(ValueError, match="at least 2 units, got 1"):
        interval([1.0, float("nan")])
    constant = interval([2.0, 2.0, float("nan")])
    assert (constant.value, constant.low, constant.high, constant.units) == (2, 2, 2, 2)


def test_the_crossed_interval_sees_both_sources_of_chance():
    rng = np.random.default_rng(0)
    by_sequence, by_repetition = rng.normal(size=(1, 64)), rng.normal(size=(8, 1))

    def width(found: Estimate) -> float:
        return found.high - found.low

    sequences_only = crossed_interval(by_sequence + np.zeros((8, 1)))
    both = crossed_interval(by_sequence + by_repetition)
    assert width(both) > 1.5 * width(sequences_only)
    one = crossed_interval(by_sequence)
    assert "one calibration draw" in one.method and width(one) == pytest.approx(
        width(sequences_only), rel=0.1
    )
    with pytest.raises(ValueError, match="at least 2 sequences"):
        crossed_interval(np.zeros((3, 1)))


def test_pairing_removes_what_variants_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 50)
    rows = [
        {
            "variant": v,
            "seed": s,
            "sequence": n,
            "calibration_tokens": 64,
            "value": hard[n] + gain + 0.01 * rng.normal(),
        }
        for v, gain in (("a", 0.0), ("b", -0.1))
        for s in range(3)
        for n in range(50)
    ]
    frame = pd.DataFrame(rows)
    found = compare(frame, {"variant": "b"}, {"variant": "a"})
    assert found.high < 0 and found.value == pytest.approx(-0.1, abs=0.01)
    with pytest.raises(ValueError, match="no record"):
        pivot(frame[frame.variant == "c"])
    with pytest.raises(ValueError, match="not be paired"):
        pivot(frame[(frame.variant == "a")].iloc[1:])


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
    assert found.residual == pytest.approx((rest / 6) ** 0.5)
    assert found.total**2 == pytest.approx((by_draw + by_sequence - rest) / 6)
    assert found.freedom == pytest.approx(
        (by_draw + by_sequence - rest) ** 2 / (by_draw**2 / 1 + by_sequence**2 / 2 + rest**2 / 2)
    )


def test_components_find_what_went_in():
    rng = np.random.default_rng(0)
    many = [
        components(crossed_normal(rng, 6, 40, by_draw=0.5, by_sequence=2.0, rest=1.0)) for _ in range(300)
    ]
    squares = np.square([[c.draws, c.sequences, c.residual, c.total] for c in many]).mean(0)
    assert squares == pytest.approx([0.25 / 6, 4 / 40, 1 / 240, 0.25 / 6 + 4 / 40 + 1 / 240], rel=0.1)


def test_components_of_one_draw_are_the_ordinary_standard_error():
    values = np.random.default_rng(0).normal(size=20)
    found = components(values)
    assert found.total == found.sequences == pytest.approx(stats.sem(values)) and found.freedom == 19
    assert np.isnan(found.draws) and np.isnan(found.residual)
    alike = components(np.tile(values, (3, 1)))  # draws that change nothing
    assert (
        alike.total == pytest.approx(found.total) and alike.draws == 0 and alike.freedom == pytest.approx(19)
    )


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1.0, np.nan]], np.zeros((2, 2, 2))])
def test_components_need_complete_sequences(values):
    with pytest.raises(ValueError, match="at least 2 sequences"):
        components(values)


def test_signed_rank_by_hand():
    """Five positive differences: 2 of 32 equally likely signs are as one-sided. One negative adds two."""
    assert signed_rank([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert signed_rank([-1, 2, 3, 4, 5]) == pytest.approx(4 / 32)
    assert signed_rank(np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])) == pytest.approx(
        2 / 32
    )  # repetitions are averaged
    assert signed_rank(np.zeros(9)) == 1


def test_signed_rank_is_as_often_wrong_as_it_says_and_sees_a_shift():
    rng = np.random.default_rng(0)
    nothing = [signed_rank(rng.standard_t(3, 30)) < 0.05 for _ in range(3000)]
    assert np.mean(nothing) == pytest.approx(0.05, abs=0.012)  # three standard errors
    assert np.mean([signed_rank(rng.standard_t(3, 30) + 1) < 0.05 for _ in range(100)]) > 0.9


def test_equivalence_by_hand():
    """Mean 0.1, standard error 0.1: the nearer bound of ±0.4 is 3 errors away."""
    values = np.array([-0.1, 0.1, 0.3]) * np.sqrt(3) / 2 + 0.1 * (1 - np.sqrt(3) / 2)
    assert values.mean() == pytest.approx(0.1) and stats.sem(values) == pytest.approx(0.1)
    assert equivalence(values, 0.4) == pytest.approx(stats.t.sf(3, 2))
    assert equivalence(-values, 0.4) == equivalence(values, 0.4)
    both = [
        stats.ttest_1samp(values, bound, alternative=side).pvalue
        for bound, side in ((-0.4, "greater"), (0.4, "less"))
    ]
    assert equivalence(values, 0.4) == pytest.approx(max(both))
    assert equivalence(values, 0.05) > 0.5  # the mean itself lies outside
    assert (equivalence([0.1, 0.1], 0.2), equivalence([0.1, 0.1], 0.1)) == (0, 1)
    with pytest.raises(ValueError, match="margin=0 must be positive"):
        equivalence(values, 0)


@pytest.mark.parametrize(("repetitions", "by_draw"), [(1, 0.0), (5, 0.0), (5, 0.3), (8, 1.0)])
def test_equivalence_is_seldom_found_at_the_margin_and_often_within(repetitions, by_draw):
    rng = np.random.default_rng(repetitions)

    def draw(mean: float) -> np.ndarray:
        return crossed_normal(rng, repetitions, 30, mean=mean, by_draw=by_draw, rest=0.5)

    at_margin = np.mean([equivalence(draw(1.0), 1.0) < 0.05 for _ in range(500)])
    assert at_margin <= 0.075
    assert np.mean([equivalence(draw(0.0), 1.5) < 0.05 for _ in range(100)]) > 0.85
    if by_draw:  # leaving the draws out would claim too much: what the components are for
        naive = np.mean(
            [stats.ttest_1samp(draw(1.0).mean(0), 1.0, alternative="less").pvalue < 0.05 for _ in range(500)]
        )
        assert naive > at_margin + 0.02


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.02]).tolist() == [0.02] and holm([]).tolist() == []
    with pytest.raises(ValueError, match="must lie in"):
        holm([0.1, float("nan")])


def test_holm_keeps_a_family_honest_and_beats_bonferroni():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(2000, 8))
    assert np.mean([(holm(row) < 0.05).any() for row in values]) == pytest.approx(0.05, abs=0.015)
    assert np.mean((values < 0.05).any(1)) > 0.3
    assert all((holm(row) <= np.minimum(8 * row, 1)).all() for row in values[:50])


def test_a_family_of_claims_in_one_table():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 60)
    gains = {"dense": 0.0, "same": 0.0, "better": -0.2}
    rows = [
        {"variant": v, "seed": s, "sequence": n, "value": hard[n] + gain + 0.05 * rng.normal()}
        for v, gain in gains.items()
        for s in range(4)
        for n in range(60)
    ]
    frame = pd.DataFrame(rows)
    values = {
        name: pivot(frame[frame.variant == name]) - pivot(frame[frame.variant == "dense"])
        for name in ("same", "better")
    }
    table = family(values, margin=0.05).set_index("comparison")
    assert table.loc["better", "p_holm"] < 0.01 and table.loc["better", "p_equivalent"] > 0.99
    assert table.loc["same", "p_equivalent_holm"] < 0.01 and table.loc["same", "p_holm"] > 0.05
    expected = crossed_interval(values["better"])
    assert tuple(table.loc["better", ["value", "low", "high"]]) == (
        expected.value,
        expected.low,
        expected.high,
    )
    assert table.loc["same", "p_holm"] == pytest.approx(max(table.p)) and table.loc[
        "better", "p_holm"
    ] == pytest.approx(2 * min(table.p))
    parts = components(values["same"])
    assert tuple(table.loc["same", ["error_sequences", "error_draws"]]) == (parts.sequences, parts.draws)


def test_findings_are_listed_with_numbers_that_do_not_break():
    table = listed({"one_minus_other": interval([1.0, 1.1, 0.9]), "b": None}, equal=["time", "FLOPs"])
    assert table.index.tolist() == ["one minus other", "b"]
    number, missing = table["mean [95 % interval]"]
    assert (
        number.replace("\N{NO-BREAK SPACE}", " ") == str(interval([1.0, 1.1, 0.9]))
        and " " not in number[number.index("[") :]
    )
    assert missing == "None" and table.equal.tolist() == ["time", "FLOPs"]
