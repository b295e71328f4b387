"""Estimates with 95 % intervals.

Every interval is a t interval: over independent units its standard error and degrees of freedom are the
ordinary ones; over calibration draws and sequences they come from the components of variance.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sinkprune.evaluation.variance_components import components

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and what is known of its sources of chance.

    Raises ValueError for numbers not finite, an interval that ends before it begins, a margin not above 0.
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
    p_matters: float | None = None
    """p-value of a difference from 0 that matters, where the margin is an estimate with an error of its own;
    None where the margin is a fixed number."""

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

    def p_of_a_difference(self, margin: float | None, against: float = 0.0) -> float:
        """Return the p-value of a difference that matters: the mean lies `margin` or more from `against`.

        It is the larger one of two, each of a two-sided test of one end of the margin. So with a fixed margin
        it is below .05 where the 95 % interval lies within; a margin with an error of its own was tested as
        `p_matters` says. It is 1 without a margin, and for a mean outside it.
        """
        if margin is None or abs(self.value - against) >= margin:
            return 1.0
        if self.p_matters is not None and against == 0:
            return self.p_matters

        return max(self.p_value(against - margin), self.p_value(against + margin))

    def with_margin(self, margin: float | None) -> "Estimate":
        """Return the same with the smallest difference that matters, in units of the mean."""
        return replace(self, margin=margin, p_matters=None)


def _or_infinite(freedom: float | None) -> float:
    return np.inf if freedom is None else freedom


def interval(values: ArrayLike) -> Estimate:
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


def within_share(values_RN: np.ndarray, scale_RN: np.ndarray, share: float) -> Estimate:
    """Return the `crossed_interval` of a difference whose margin is a `share` of another mean, the scale.

    Both are (R, N), on the same repetitions and sequences; a scale of one repetition serves all. The margin
    carries the error of the scale: `p_matters` tests the differences `values - share * scale` and
    `values + share * scale` instead of the ends of a fixed margin. There is no margin where the interval of
    the scale does not lie above 0. Raises what `crossed_interval` raises.
    """
    estimate = crossed_interval(values_RN)
    scale = crossed_interval(scale_RN)
    if scale.low <= 0:
        return estimate

    margin_RN = share * np.asarray(scale_RN, dtype=float)
    below = crossed_interval(values_RN - margin_RN)
    above = crossed_interval(values_RN + margin_RN)

    is_within = below.value < 0 < above.value
    p_matters = max(below.p_value(), above.p_value()) if is_within else 1.0
    return replace(estimate, margin=share * scale.value, p_matters=p_matters)


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
