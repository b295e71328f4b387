"""Estimates with intervals: variants compared in pairs on common draws, sources of chance, equivalence, families of tests.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, how many units it rests on and how the interval was made."""

    value: float
    low: float
    high: float
    units: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interval(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean of independent units with a 95 % percentile bootstrap interval; NaN units are left out.

    Raises ValueError with fewer than two units: one lucky run has no interval.
    """
    units = np.asarray(values, dtype=float)
    units = units[~np.isnan(units)]
    if len(units) < 2:
        raise ValueError(f"an interval needs at least 2 units, got {len(units)}")
    if np.ptp(units) == 0:
        low = high = float(units[0])
    else:
        low, high = stats.bootstrap(
            (units,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Estimate(float(units.mean()), float(low), float(high), len(units), "bootstrap over units")


def crossed_interval(values_RN: np.ndarray, seed: int = 0) -> Estimate:
    """Return the mean over repetitions x sequences, 95 % bootstrap interval resampling both sides at once.

    Differences between two methods go in here as they are, on the same sequences and noise: the pairing removes what
    the methods share. Resampling repetitions and sequences together counts both sources of chance (Owen 2007, the
    pigeonhole bootstrap, is conservative). Raises ValueError unless there are two sequences at least; with a single
    repetition only sequences are resampled, and `method` says so.
    """
    values_RN = np.asarray(values_RN, dtype=float)
    if values_RN.ndim != 2 or values_RN.shape[1] < 2:
        raise ValueError(f"values have shape {values_RN.shape}; expected (repetitions, at least 2 sequences)")
    rng, (repetitions, sequences) = np.random.default_rng(seed), values_RN.shape
    times_R = (
        rng.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=RESAMPLES) / repetitions
    )
    times_N = rng.multinomial(sequences, np.full(sequences, 1 / sequences), size=RESAMPLES) / sequences
    means = np.einsum("br,rn,bn->b", times_R, values_RN, times_N, optimize=True)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    method = (
        "bootstrap over calibration draws and sequences"
        if repetitions > 1
        else "bootstrap over sequences, one calibration draw"
    )
    return Estimate(float(values_RN.mean()), float(low), float(high), sequences, method)


def pivot(
    frame: pd.DataFrame, repetition: str = "seed", unit: str = "sequence", value: str = "value"
) -> np.ndarray:
    """Return the values of one variant as an array (R, N); raises ValueError when there are none or a cell is missing."""
    if frame.empty:
        raise ValueError(
            "no record of a variant that is to be compared: measure it first, or leave the comparison out"
        )
    values_RN = frame.pivot(index=repetition, columns=unit, values=value).to_numpy()
    if np.isnan(values_RN).any():
        raise ValueError("some repetitions lack some sequences: differences would not be paired")
    return values_RN


def rows_where(frame: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
    """Return the rows of a table in which every column of `where` has its value."""
    return frame[np.logical_and.reduce([frame[column] == value for column, value in where.items()])]


def on_common_draws(scores: pd.DataFrame, *sides: dict[str, object]) -> list[np.ndarray] | None:
    """Return the values of several variants, (R, N) each, on the calibration draws that all have; None where one was not measured.

    A variant without calibration (dense, magnitude) has one row, which serves every draw. Raises ValueError where
    calibrated variants have no draw in common.
    """
    parts = [rows_where(scores, where) for where in sides]
    if any(part.empty for part in parts):
        return None
    calibrated = [part.calibration_tokens.max() > 0 for part in parts]
    draws = [set(part.seed) for part, has_draws in zip(parts, calibrated, strict=True) if has_draws]
    common = set.intersection(*draws) if draws else set()
    if draws and not common:
        raise ValueError(f"variants {sides} share no calibration draw: their differences would not be paired")
    return [
        pivot(part[part.seed.isin(common)] if has_draws else part[part.seed == part.seed.min()])
        for part, has_draws in zip(parts, calibrated, strict=True)
    ]


def compare(scores: pd.DataFrame, variant: dict[str, object], other: dict[str, object]) -> Estimate | None:
    """Return the mean of variant - other in `value` with its interval, paired by calibration draw and sequence.

    None where one of the two was not measured; draws are those of `on_common_draws`.
    """
    values = on_common_draws(scores, variant, other)
    return values and crossed_interval(values[0] - values[1])


def growth(
    scores: pd.DataFrame,
    variant: dict[str, object],
    other: dict[str, object],
    column: str,
    start: object,
    end: object,
) -> Estimate | None:
    """Return how much variant - other in `value` grows as `column` goes from `start` to `end`, with its interval.

    None where one of the four was not measured, or start and end are the same.
    """
    if start == end:
        return None
    values = on_common_draws(
        scores, *({**where, column: place} for place in (end, start) for where in (variant, other))
    )
    return values and crossed_interval((values[0] - values[1]) - (values[2] - values[3]))


def forest_table(estimates: dict[str, Estimate]) -> pd.DataFrame:
    """Return the data of a forest plot: `comparison`, `value`, `low`, `high`, `sequences`, `interval` (how it was made)."""
    return pd.DataFrame(
        [
            {
                "comparison": label,
                "value": e.value,
                "low": e.low,
                "high": e.high,
                "sequences": e.units,
                "interval": e.method,
            }
            for label, e in estimates.items()
        ]
    )


def listed(estimates: dict[str, Estimate | None], **columns: object) -> pd.DataFrame:
    """Return findings to read, a row each: the name in words, which wrap where a name does not, the number with an unbroken interval, and `columns` (a value per finding)."""
    numbers = [str(estimate).replace(", ", ",\N{NO-BREAK SPACE}") for estimate in estimates.values()]
    return pd.DataFrame(
        {"mean [95 % interval]": numbers, **columns},
        index=pd.Index([name.replace("_", " ") for name in estimates], name="finding"),
    )


@dataclass(frozen=True)
class Components:
    """Standard errors of a mean over repetitions x sequences by source of chance, in units of the values.

    `total` adds the squares of the three; `freedom` is its degrees of freedom. With a single repetition `draws` and
    `residual` cannot be told from `sequences` and are NaN.
    """

    sequences: float
    draws: float
    residual: float
    total: float
    freedom: float


def components(values_RN: np.ndarray) -> Components:
    """Return the variance components of values (R, N) or (N,): what sequences, calibration draws and the rest each add.

    Two-way random effects without replication, by mean squares; a component that would be negative counts as none.
    Degrees of freedom follow Satterthwaite (1946). Raises ValueError for fewer than 2 sequences or a missing value.
    """
    values_RN = np.atleast_2d(np.asarray(values_RN, dtype=float))
    if values_RN.ndim != 2 or values_RN.shape[1] < 2 or np.isnan(values_RN).any():
        raise ValueError(
            f"values have shape {values_RN.shape} and {np.isnan(values_RN).sum()} are missing; expected (repetitions, at least 2 sequences), complete"
        )
    repetitions, sequences = values_RN.shape
    cells, by_sequence = (
        values_RN.size,
        repetitions * values_RN.mean(0).var(ddof=1),
    )  # mean squares, here and below
    if repetitions == 1:
        error = float(np.sqrt(by_sequence / cells))
        return Components(error, np.nan, np.nan, error, sequences - 1)
    by_draw = sequences * values_RN.mean(1).var(ddof=1)
    rest_RN = values_RN - values_RN.mean(0) - values_RN.mean(1, keepdims=True) + values_RN.mean()
    rest = np.square(rest_RN).sum() / ((repetitions - 1) * (sequences - 1))
    parts = np.array([max(by_sequence - rest, 0), max(by_draw - rest, 0), rest])
    signs = np.array(
        [parts[0] > 0, parts[1] > 0, 1 - (parts[0] > 0) - (parts[1] > 0)]
    )  # of each mean square in their sum
    spread = (
        (signs * [by_sequence, by_draw, rest]) ** 2
        / [sequences - 1, repetitions - 1, (repetitions - 1) * (sequences - 1)]
    ).sum()
    return Components(
        *map(float, np.sqrt(parts / cells)),
        float(np.sqrt(parts.sum() / cells)),
        float(parts.sum() ** 2 / spread) if spread else np.inf,
    )


def signed_rank(values_RN: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test that paired differences (R, N) or (N,) lie around 0.

    Its units are sequences, each the mean over repetitions, so it speaks about these calibration draws; zeros are left
    out, and differences that are all zero give 1.
    """
    values_N = np.atleast_2d(np.asarray(values_RN, dtype=float)).mean(0)
    return float(stats.wilcoxon(values_N).pvalue) if values_N.any() else 1.0


def equivalence(values_RN: np.ndarray, margin: float) -> float:
    """Return the p-value of two one-sided t tests (TOST) that the mean of paired differences lies within ± `margin`.

    A small value is a finding: there is no difference of `margin` (nats per token, like the differences) or more. A
    large one says nothing. Standard error and degrees of freedom are those of `components`, so with several
    calibration draws both sources of chance count. Schuirmann (1987). Raises ValueError unless `margin` > 0.
    """
    if not margin > 0:
        raise ValueError(
            f"margin={margin} must be positive: the smallest difference that would matter, in nats per token"
        )
    found, mean = components(values_RN), float(np.mean(values_RN))
    if found.total == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / found.total, found.freedom))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for a family of claims, in order: Holm (1979) bounds the chance of any false finding.

    Raises ValueError for a value outside [0, 1].
    """
    p_values = np.asarray(p_values, dtype=float)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values {p_values.tolist()} must lie in [0, 1]")
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order, kind="stable")]


def family(values: Mapping[str, np.ndarray], margin: float, seed: int = 0) -> pd.DataFrame:
    """Return one row per paired effect {name: (R, N)} of a family that is read together, be they differences or contrasts of more.

    Columns: `comparison`; `value`, `low`, `high` (of `crossed_interval`); `p` and `p_holm` (`signed_rank`: there is a
    difference); `p_equivalent` and `p_equivalent_holm` (`equivalence` within `margin`: there is none);
    `error_sequences` and `error_draws` (`components`).
    """
    rows = []
    for name, values_RN in values.items():
        found, parts = crossed_interval(values_RN, seed), components(values_RN)
        rows.append(
            {
                "comparison": name,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "p": signed_rank(values_RN),
                "p_equivalent": equivalence(values_RN, margin),
                "error_sequences": parts.sequences,
                "error_draws": parts.draws,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table.p), p_equivalent_holm=holm(table.p_equivalent))
