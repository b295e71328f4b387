"""The interval of a crossed design by the formulas, in numpy and scipy alone."""

import numpy as np
from scipy import stats


def two_way_t_interval(values_RN: np.ndarray) -> tuple[float, float, float]:
    """Return mean, low and high of a crossed design, with Satterthwaite's degrees of freedom."""
    draws, sequences = values_RN.shape
    mean = values_RN.mean()
    by_draw = values_RN.mean(axis=1)
    by_sequence = values_RN.mean(axis=0)

    square_draws = sequences * ((by_draw - mean) ** 2).sum() / (draws - 1)
    square_sequences = draws * ((by_sequence - mean) ** 2).sum() / (sequences - 1)
    rest = values_RN - by_draw[:, None] - by_sequence[None, :] + mean
    square_rest = (rest**2).sum() / ((draws - 1) * (sequences - 1))

    variance = square_rest

    terms = []  # mean squares in the variance: factor x square, degrees of freedom
    factor_rest = 1
    for square, freedom in ((square_draws, draws - 1), (square_sequences, sequences - 1)):
        if square > square_rest:  # else the source adds nothing
            variance += square - square_rest
            terms.append((square, freedom))
            factor_rest -= 1
    terms.append((factor_rest * square_rest, (draws - 1) * (sequences - 1)))

    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    reach = stats.t.ppf(0.975, freedom) * (variance / values_RN.size) ** 0.5
    return mean, mean - reach, mean + reach
