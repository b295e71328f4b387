"""Estimates with 95 % intervals, and variants compared in pairs on the calibration draws that they share.

Every interval is a t interval: over independent units its standard error and degrees of freedom are the
ordinary ones; over calibration draws and sequences they come from the components of variance.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from sinkprune_core.evaluation.variance_components import components

CONFIDENCE = 0.95


# one estimate


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and what is known of its sources of chance.

    Raises ValueError for numbers that are not finite, an interval that ends before it begins, and a margin
    that is not positive.
    """

    value: float
    """The mean."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    units: int
    """Number of independent units, such as sequences, that it rests on."""
    method: str
    """How the interval was made, in words."""
    margin: float | None = None
    """The smallest difference that matters, in units of the mean; None where none was fixed."""
    draws: int | None = None
    """Number of calibration draws; None where there are none to choose."""
    error_draws: float | None = None
    """Standard error that the choice of calibration draws adds; None where it was not told apart."""
    error_sequences: float | None = None
    """Standard error that the choice of sequences adds; None where it was not told apart."""
    freedom: float | None = None
    """Degrees of freedom of the interval's t distribution; None for a normal one."""

    def __post_init__(self):
        if not np.isfinite([self.value, self.low, self.high]).all():
            raise ValueError(f"value={self.value}, low={self.low}, high={self.high} must be finite numbers")
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}: an interval goes from low to high")
        if self.margin is not None and not self.margin > 0:
            raise ValueError(
                f"margin={self.margin} must be positive, the smallest difference that matters, or None where "
                "none was fixed"
            )

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    @property
    def half_width(self) -> float:
        """Half of what the interval spans."""
        return (self.high - self.low) / 2

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return self.half_width / self.errors_at((1 + CONFIDENCE) / 2)

    def errors_at(self, share: float) -> float:
        """Return how many standard errors above the mean `share` of its distribution ends."""
        return float(stats.t.ppf(share, _or_infinite(self.freedom)))

    def p_value(self, against: float = 0.0) -> float:
        """Return the two-sided p-value of a t test that the mean is `against`."""
        distance = abs(self.value - against)
        if self.half_width == 0:
            return float(distance == 0)
        return float(2 * stats.t.sf(distance / self.standard_error, _or_infinite(self.freedom)))

    def with_margin(self, margin: float | None) -> "Estimate":
        """Return the same with the smallest difference that matters, in units of the mean."""
        return replace(self, margin=margin)


def _or_infinite(freedom: float | None) -> float:
    return np.inf if freedom is None else freedom


def interval(values: Sequence[float]) -> Estimate:
    """Return the mean of independent units with its 95 % t interval; NaN units are left out.

    Raises ValueError with fewer than two units: one lucky run has no interval.
    """
    units = np.asarray(values, dtype=float)
    units = units[~np.isnan(units)]
    if len(units) < 2:
        raise ValueError(f"an interval needs at least 2 units, got {len(units)}")
    return _t_interval(units[None], "t interval over units")


def crossed_interval(values_RN: np.ndarray) -> Estimate:
    """Return the mean over repetitions and sequences, with a 95 % t interval that knows the chance of both.

    Differences between two methods go in here as they are, on the same sequences and noise: the pairing
    removes what the methods share. Standard error and degrees of freedom are those of `components`. With a
    single repetition the interval is that over sequences, and `method` says so. Raises ValueError unless
    there are two sequences at least.
    """
    values_RN = np.asarray(values_RN, dtype=float)
    if values_RN.ndim != 2 or values_RN.shape[1] < 2:
        raise ValueError(f"values have shape {values_RN.shape}; expected (repetitions, at least 2 sequences)")
    if len(values_RN) == 1:
        return replace(_t_interval(values_RN, "t interval over sequences, one calibration draw"), draws=1)
    return _t_interval(values_RN, "t interval over calibration draws and sequences")


def _t_interval(values_RN: np.ndarray, method: str) -> Estimate:
    """Return the mean with its t interval; the sources of chance are told apart where R is above 1."""
    errors = components(values_RN)
    freedom = errors.freedom if np.isfinite(errors.freedom) else None
    reach = errors.total * stats.t.ppf((1 + CONFIDENCE) / 2, _or_infinite(freedom))
    repetitions, sequences = values_RN.shape
    mean = float(values_RN.mean())
    return Estimate(
        mean,
        float(mean - reach),
        float(mean + reach),
        sequences,
        method,
        draws=repetitions if repetitions > 1 else None,
        error_draws=errors.draws if repetitions > 1 else None,
        error_sequences=errors.sequences,
        freedom=freedom,
    )


# comparisons of variants in a table of scores


def pivot(
    frame: pd.DataFrame, repetition: str = "seed", unit: str = "sequence", value: str = "value"
) -> np.ndarray:
    """Return the values of one variant as an array (R, N).

    Raises ValueError when there are none or a cell is missing.
    """
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
    """Return the values of several variants, (R, N) each, on the calibration draws that all have.

    None where one was not measured. A variant without calibration (dense, magnitude) has one row, which
    serves every draw. Raises ValueError where calibrated variants have no draw in common.
    """
    parts = [rows_where(scores, where) for where in sides]
    if any(part.empty for part in parts):
        return None
    calibrated = [part.calibration_tokens.max() > 0 for part in parts]
    draws = [set(part.seed) for part, is_calibrated in zip(parts, calibrated, strict=True) if is_calibrated]
    common = set.intersection(*draws) if draws else set()
    if draws and not common:
        raise ValueError(f"variants {sides} share no calibration draw: their differences would not be paired")
    values = []
    for part, is_calibrated in zip(parts, calibrated, strict=True):
        if is_calibrated:
            values.append(pivot(part[part.seed.isin(common)]))
        else:
            values.append(pivot(part[part.seed == part.seed.min()]))
    return values


def compare(scores: pd.DataFrame, variant: dict[str, object], other: dict[str, object]) -> Estimate | None:
    """Return the mean of variant - other in `value`, paired by calibration draw and sequence.

    None where one of the two was not measured; draws are those of `on_common_draws`, None where neither
    variant is calibrated.
    """
    values = on_common_draws(scores, variant, other)
    if values is None:
        return None
    variant_RN, other_RN = values
    estimate = crossed_interval(variant_RN - other_RN)
    is_calibrated = max(rows_where(scores, side).calibration_tokens.max() for side in (variant, other)) > 0
    return estimate if is_calibrated else replace(estimate, draws=None)
