"""Tests on paired differences: sources of chance, differences, equivalence, and corrections for families of
tests.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from sinkprune_core.evaluation.intervals import crossed_interval


@dataclass(frozen=True)
class Components:
    """Standard errors of a mean over repetitions and sequences by source of chance, in units of the values.

    With a single repetition `draws` and `residual` cannot be told from `sequences` and are NaN.
    """

    sequences: float
    """What the choice of sequences adds."""
    draws: float
    """What the choice of calibration draws adds."""
    residual: float
    """What the rest adds."""
    total: float
    """Root of the sum of the squares of these three."""
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
        return Components(error, np.nan, np.nan, error, sequences - 1)
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
    by_sequence, by_draw, by_rest = np.sqrt(variances / values_RN.size)
    total = np.sqrt(variances.sum() / values_RN.size)
    return Components(
        float(by_sequence),
        float(by_draw),
        float(by_rest),
        float(total),
        _freedom(squares, variances, freedoms),
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


def signed_rank(values_RN: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test that paired differences lie around 0.

    Differences are (R, N) or (N,). Its units are sequences, each the mean over repetitions, so it speaks
    about these calibration draws. Zeros are left out, and differences that are all zero give 1.
    """
    values_N = np.atleast_2d(np.asarray(values_RN, dtype=float)).mean(0)
    if not values_N.any():
        return 1.0
    return float(stats.wilcoxon(values_N).pvalue)


def equivalence(values_RN: np.ndarray, margin: float) -> float:
    """Return the p-value of two one-sided t tests (TOST) that a mean difference lies within ± `margin`.

    A small value is a finding: there is no difference of `margin` (nats per token, like the paired
    differences) or more. A large one says nothing. Standard error and degrees of freedom are those of
    `components`, so with several calibration draws both sources of chance count. Schuirmann (1987). Raises
    ValueError unless `margin` > 0.
    """
    if not margin > 0:
        raise ValueError(
            f"margin={margin} must be positive: the smallest difference that would matter, in nats per token"
        )
    found = components(values_RN)
    mean = float(np.mean(values_RN))
    if found.total == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / found.total, found.freedom))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for a family of claims, in order.

    Holm (1979) bounds the chance of any false finding. Raises ValueError for a value outside [0, 1].
    """
    p_values = np.asarray(p_values, dtype=float)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values {p_values.tolist()} must lie in [0, 1]")
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order, kind="stable")]


def family(values: Mapping[str, np.ndarray], margin: float, seed: int = 0) -> pd.DataFrame:
    """Return one row per paired effect, values (R, N) by name, of a family that is read together.

    An effect is a difference or a contrast of more. Columns: `comparison`; `value`, `low`, `high` (of
    `crossed_interval`); `p` and `p_holm` (`signed_rank`: there is a difference); `p_equivalent` and
    `p_equivalent_holm` (`equivalence` within `margin`: there is none); `error_sequences` and `error_draws`
    (`components`).
    """
    rows = []
    for name, values_RN in values.items():
        found = crossed_interval(values_RN, seed)
        errors = components(values_RN)
        row = {
            "comparison": name,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "p": signed_rank(values_RN),
            "p_equivalent": equivalence(values_RN, margin),
            "error_sequences": errors.sequences,
            "error_draws": errors.draws,
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table.p), p_equivalent_holm=holm(table.p_equivalent))
