"""Intervals in which calibration draws count although they were seen to add nothing."""

import numpy as np
import pytest

from sinkprune.evaluation.intervals import crossed_interval, interval
from sinkprune_companion.ledger import draw_terms

DRAWS = 5
SEQUENCES = 40


def differences(by_draw: float, by_sequence: float, seed: int) -> np.ndarray:
    """Return differences with a mean of 2 over draws and sequences, and a rest of standard deviation 1."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(0, by_draw, (DRAWS, 1))
    sequences = rng.normal(0, by_sequence, (1, SEQUENCES))
    return 2 + draws + sequences + rng.normal(0, 1, (DRAWS, SEQUENCES))


@pytest.mark.parametrize("by_sequence", [0.0, 1.0])
def test_the_variance_is_that_of_sequences_and_draws_with_nothing_subtracted(by_sequence):
    values = differences(0.0, by_sequence, seed=0)
    values -= values.mean(1, keepdims=True)  # all draws have the same mean
    found = crossed_interval(values)
    assert draw_terms.is_unseen(found)

    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    square_of_rest = np.square(rest).sum() / ((DRAWS - 1) * (SEQUENCES - 1))
    square_of_sequences = max(DRAWS * values.mean(0).var(ddof=1), square_of_rest)
    wider = draw_terms.counted(found)
    assert wider.value == found.value and wider.margin == found.margin
    assert wider.standard_error**2 == pytest.approx((square_of_sequences + square_of_rest) / values.size)
    assert wider.freedom < found.freedom


def test_what_knows_its_draws_or_has_none_stays_as_it_is():
    seen = crossed_interval(differences(3.0, 1.0, seed=0))
    for estimate in (seen, crossed_interval(differences(0.0, 1.0, seed=0)[:1]), interval([1.0, 2.0, 3.0])):
        assert not draw_terms.is_unseen(estimate)
        assert draw_terms.counted(estimate) is estimate
    assert not draw_terms.is_unseen(None)


def test_where_draws_add_something_and_are_seen_to_add_nothing_these_intervals_hold_the_mean_more_often():
    ordinary, counted, runs = 0, 0, 0

    for seed in range(2000):
        found = crossed_interval(differences(0.2, 0.5, seed))
        if draw_terms.is_unseen(found):
            wider = draw_terms.counted(found)
            ordinary += found.low <= 2 <= found.high
            counted += wider.low <= 2 <= wider.high
            runs += 1

    assert runs > 200
    assert ordinary / runs < 0.9 < counted / runs
