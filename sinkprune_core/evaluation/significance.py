"""Tests on paired differences: sources of chance, differences, equivalence, and corrections for families of
tests.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sinkprune_core.evaluation.intervals import crossed_interval
from sinkprune_core.evaluation.variance_components import components


def signed_rank(values_RN: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test that paired differences lie around 0.

    Differences are (R, N) or (N,). Its units are sequences, each the mean over repetitions, so it speaks
    about these calibration draws. Zeros are left out, and differences that are all zero give 1.
    """
    values_N = np.atleast_2d(np.asarray(values_RN, dtype=float)).mean(0)
    if not values_N.any():
        return 1.0
    return float(stats.wilcoxon(values_N).pvalue)


def equivalence(values_RN: np.ndarray, margin: float | None) -> float:
    """Return the p-value of two one-sided t tests (TOST) that a mean difference lies within ± `margin`.

    A small value is a finding: there is no difference of `margin` (nats per token, like the paired
    differences) or more. A large one says nothing. Standard error and degrees of freedom are those of
    `components`, so with several calibration draws both sources of chance count. Schuirmann (1987). Without a
    margin no difference is too small to matter, and the value is 1. Raises ValueError unless `margin` > 0.
    """
    if margin is None:
        return 1.0
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


def family(values: Mapping[str, np.ndarray], margin: float | None, seed: int = 0) -> pd.DataFrame:
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
