"""How much sequences, calibration draws and the rest each add to the error of a mean.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Standard errors of a mean over repetitions and sequences by source of chance, in units of the values.

    With a single repetition `draws` cannot be told from `sequences` and is NaN.
    """

    sequences: float
    """What the choice of sequences adds."""
    draws: float
    """What the choice of calibration draws adds."""
    total: float
    """Standard error of the mean, from these two and what the rest adds."""
    freedom: float
    """Degrees of freedom of `total`."""


def components(values_RN: np.ndarray) -> Components:
    """Return what sequences, calibration draws and the rest each add to the error of a mean.

    Values are (R, N) or (N,). Two-way random effects without replication, by mean squares; a component that
    would be negative counts as none. Degrees of freedom follow Satterthwaite (1946). Raises ValueError for
    fewer than 2 sequences or a missing value.
    """
    values_RN = np.atleast_2d(np.asarray(values_RN, dtype=float))
    if values_RN.ndim != 2 or values_RN.shape[1] < 2 or np.isnan(values_RN).any():
        raise ValueError(
            f"values have shape {values_RN.shape} and {np.isnan(values_RN).sum()} are missing; "
            "expected (repetitions, at least 2 sequences), complete"
        )

    repetitions, sequences = values_RN.shape
    square_of_sequences = repetitions * values_RN.mean(0).var(ddof=1)  # a mean square, as are the two below
    if repetitions == 1:
        error = float(np.sqrt(square_of_sequences / values_RN.size))
        return Components(error, np.nan, error, sequences - 1)

    square_of_draws = sequences * values_RN.mean(1).var(ddof=1)
    rest_RN = values_RN - values_RN.mean(0) - values_RN.mean(1, keepdims=True) + values_RN.mean()
    square_of_rest = np.square(rest_RN).sum() / ((repetitions - 1) * (sequences - 1))

    squares = np.array([square_of_sequences, square_of_draws, square_of_rest])
    freedoms = [sequences - 1, repetitions - 1, (repetitions - 1) * (sequences - 1)]
    variances = np.array(
        [
            max(square_of_sequences - square_of_rest, 0),
            max(square_of_draws - square_of_rest, 0),
            square_of_rest,
        ]
    )
    by_sequence, by_draw, _ = np.sqrt(variances / values_RN.size)
    total = np.sqrt(variances.sum() / values_RN.size)

    return Components(
        float(by_sequence), float(by_draw), float(total), _freedom(squares, variances, freedoms)
    )


def _freedom(squares: np.ndarray, variances: np.ndarray, freedoms: list[int]) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of variances that mean squares give.

    All are those of sequences, draws and the rest. The sum of the variances holds the mean squares with
    these factors: 1 for a source that adds something, 0 for one that adds nothing, and for the rest 1 less
    the number of sources that add something.
    """
    has_sequences = variances[0] > 0
    has_draws = variances[1] > 0
    factors = np.array([has_sequences, has_draws, 1 - has_sequences.astype(int) - has_draws.astype(int)])
    spread = ((factors * squares) ** 2 / freedoms).sum()
    if spread == 0:
        return np.inf
    return float(variances.sum() ** 2 / spread)
