"""What an interval would be if calibration draws counted that were seen to add nothing to its error.

Where the means of the draws scatter less than the rest would make them, the component of the draws is
estimated as 0, and the interval is that over sequences. Over all runs such intervals hold the mean as often
as they say, which `tests/evaluation/test_statistics.py` simulates; given that the estimate was 0, and the
draws do add something, they hold it less often. The interval here subtracts nothing for the rest, so it holds
the mean more often than it says.
"""

from dataclasses import replace

import numpy as np
from scipy import stats

from sinkprune.evaluation.intervals import CONFIDENCE, Estimate


def is_unseen(estimate: Estimate | None) -> bool:
    """Return whether an estimate rests on calibration draws, and what they add was estimated as 0."""
    return estimate is not None and estimate.draws is not None and estimate.error_draws == 0


def counted(estimate: Estimate) -> Estimate:
    """Return an estimate with draws that count in full where they were seen to add nothing; else as it is.

    The mean square of the draws is then at most that of the rest, which takes its place.
    """
    if estimate.draws is None or estimate.error_sequences is None or not is_unseen(estimate):
        return estimate

    sequences = estimate.error_sequences**2
    rest = estimate.standard_error**2 - sequences
    square_of_sequences = sequences + rest
    square_of_draws = rest
    variance = square_of_sequences + square_of_draws
    spread = square_of_sequences**2 / (estimate.units - 1) + square_of_draws**2 / (estimate.draws - 1)
    freedom = float(variance**2 / spread)

    reach = float(np.sqrt(variance) * stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    return replace(estimate, low=estimate.value - reach, high=estimate.value + reach, freedom=freedom)
