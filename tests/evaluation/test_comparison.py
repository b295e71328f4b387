"""Paired comparisons of two models: differences by hand, flips counted, and the verdict's one rule."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments.comparison import (
    MARGIN,
    accuracy_difference,
    flips,
    nats_difference,
    outcome,
)
from sinkprune_core.evaluation.intervals import Estimate


def texts(values) -> pd.DataFrame:
    return pd.DataFrame({"sequence": range(len(values)), "value": values})


def answers(correct: list[bool]) -> pd.DataFrame:
    """Return answers to pairs of items, the first half of them of one group."""
    count = len(correct)
    pair = np.arange(count) // 2
    return pd.DataFrame(
        {"group": np.where(np.arange(count) < count // 2, "a", "b"), "pair": pair, "correct": correct}
    )


def estimate(low: float, high: float, units: int = 100) -> Estimate:
    return Estimate((low + high) / 2, low, high, units, "by hand")


def test_nats_are_paired_by_sequence():
    rng = np.random.default_rng(0)
    value = rng.normal(4, 1, 50)
    found = nats_difference(texts(value), texts(value + rng.normal(0.1, 0.01, 50)))
    assert found.a == pytest.approx(value.mean())
    assert found.b - found.a == pytest.approx(found.difference.value) == pytest.approx(0.1, abs=0.01)
    assert found.difference.units == 50
    assert found.difference.high - found.difference.low < 0.01  # unpaired it would be about 0.8
    shuffled = texts(value).sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="score both models on the same texts"):
        nats_difference(texts(value), shuffled)
    with pytest.raises(ValueError, match="50 and 49 rows and not the same sequence"):
        nats_difference(texts(value), texts(value[:-1]))
    with pytest.raises(ValueError, match="at least 2 units"):
        nats_difference(texts(value[:1]), texts(value[:1]))


def test_accuracy_is_paired_by_item_and_a_pair_is_one_unit():
    a = answers([True, True, True, False, False, False, True, False])
    b = answers([False, True, False, True, False, False, True, True])
    found = accuracy_difference(a, b)
    assert (found.a, found.b) == (4 / 8, 4 / 8) and found.difference.units == 4
    assert found.difference.value == 0  # pairs: -1/2, 0, 0, 1/2
    reach = 3.182446 * (1 / 6) ** 0.5 / 4**0.5  # t of 3 degrees of freedom, times the standard error
    assert (found.difference.low, found.difference.high) == pytest.approx((-reach, reach))
    with pytest.raises(ValueError, match="not the same group, pair, item"):
        accuracy_difference(a, b[:6])


def test_flips_are_counted_item_by_item():
    a = answers([True, True, True, False, False, False, True, False])
    b = answers([False, True, False, True, False, False, True, False])
    found = flips(a, b)
    assert (found.only_a, found.only_b, found.both, found.neither) == (2, 1, 2, 3)
    swapped = flips(b, a)
    assert (swapped.only_a, swapped.only_b, swapped.both, swapped.neither) == (1, 2, 2, 3)


def test_equal_scores_differ_by_exactly_nothing():
    value = np.random.default_rng(0).normal(4, 1, 20)
    difference = nats_difference(texts(value), texts(value)).difference
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert outcome(difference) == "no difference that matters"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.019, 0.019, "no difference that matters"),
        (0.001, 0.015, "no difference that matters"),  # surely above 0, and surely small
        (0.001, 0.021, "A is better"),
        (0.5, 0.7, "A is better"),
        (-0.021, -0.001, "B is better"),
        (-0.022, 0.0, "undecided (half-width 0.011;"),
        (-0.002, 0.03, "undecided (half-width 0.016;"),
        (-0.5, 0.6, "undecided (half-width 0.55;"),
    ],
)
def test_the_verdict_is_one_rule(low, high, said):
    assert outcome(estimate(low, high), MARGIN).startswith(said)
    mirrored = said.replace("A is", "X is").replace("B is", "A is").replace("X is", "B is")
    assert outcome(estimate(-high, -low), MARGIN).startswith(mirrored)


def test_another_margin_is_another_verdict():
    difference = estimate(-0.01, 0.06)
    assert outcome(difference, 0.1) == "no difference that matters"
    assert outcome(difference, 0.02).startswith("undecided")
    for margin in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"margin=.* must be positive"):
            outcome(difference, margin)


def test_the_verdict_errs_rarely_where_there_is_no_difference():
    """Of 200 comparisons of equal models, few find one of them better: about 5 % by their intervals."""
    rng = np.random.default_rng(0)
    said = []
    for _ in range(200):
        value = rng.normal(4, 1, 64)
        noisy = value + rng.normal(0, 0.3, 64)
        said.append(outcome(nats_difference(texts(value), texts(noisy)).difference))
    wrong = sum("is better" in words for words in said)
    assert wrong <= 20
    assert sum(words.startswith("undecided") for words in said) >= 180
