"""What more training would bring: a power law fitted to the learning curve, and the tokens of an hour of a
GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
from scipy.optimize import curve_fit

from sinkprune_core.costs import compute
from sinkprune_core.evaluation.intervals import CONFIDENCE
from sinkprune_core.models.language_model import LanguageModel

MIN_ROWS = 5  # of a log, to fit three parameters to


def flops_per_token(lm: LanguageModel, lengths: Sequence[int]) -> float:
    """Return the FLOPs of training on one token, a mean over crops of `lengths` tokens.

    A backward pass counts as two forwards (LoRA needs less: no gradients of frozen weights); half of all
    positions have logits.
    """
    costs = [3 * compute.forward_cost(lm, length, length // 2).total / length for length in lengths]
    return sum(costs) / len(costs)


def tokens_per_hour(lm: LanguageModel, lengths: Sequence[int]) -> float:
    """Return how many tokens one hour trains on at `compute.SPEED` FLOPs per second, an upper bound."""
    return compute.SPEED * 3600 / flops_per_token(lm, lengths)


def power_law(tokens: np.ndarray, floor: float, scale: float, exponent: float) -> np.ndarray:
    """Return floor + scale (tokens / 1e6)^-exponent, nats per token."""
    return floor + scale * (np.asarray(tokens, dtype=float) / 1e6) ** -exponent


@dataclass(frozen=True)
class Fit:
    """A power law fitted to part of a learning curve: parameters are floor, scale and exponent."""

    points: int
    best: np.ndarray  # parameters fitted to what was measured
    refitted: list[np.ndarray]  # parameters fitted to resampled residuals
    residual: float  # root mean square of the residuals, nats per token

    def summary(self, of: Callable[[np.ndarray], float]) -> dict[str, float | None]:
        """Return `value`, `low` and `high` of a function of the parameters; None stands for infinity."""
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        low, high = np.quantile([of(parameters) for parameters in self.refitted], tails, method="nearest")
        found = {"value": of(self.best), "low": low, "high": high}
        return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def fit_power_law(tokens: np.ndarray, values: np.ndarray, refits: int, seed: int = 0) -> Fit:
    """Fit a power law to losses in nats per token after so many tokens, and `refits` times to resampled
    residuals.
    """
    best = _fitted(tokens, values)
    residuals = (values - power_law(tokens, *best)) * np.sqrt(len(tokens) / (len(tokens) - 3))
    rng = np.random.default_rng(seed)
    refitted = []
    for _ in range(refits):
        resampled = power_law(tokens, *best) + rng.choice(residuals, len(tokens))
        refitted.append(_fitted(tokens, resampled))
    return Fit(len(tokens), best, refitted, float(np.sqrt(np.mean(residuals**2))))


def _fitted(tokens: np.ndarray, values: np.ndarray) -> np.ndarray:
    parameters, _ = curve_fit(
        power_law,
        tokens,
        values,
        p0=(0.8 * values.min(), 0.2 * values.min(), 0.3),
        bounds=([0, 0, 0.01], [values.min(), np.inf, 3]),
        max_nfev=2000,
    )
    return parameters


def flat_rows(log: Sequence[dict]) -> list[dict]:
    """Return the rows of a training log at its flat, highest learning rate."""
    flat_rate = max(row["learning_rate"] for row in log)
    return [row for row in log if row["learning_rate"] == flat_rate]


def extrapolate(
    log: Sequence[dict], column: str, ahead: Sequence[float], needed: float, refits: int, seed: int = 0
) -> dict:
    """Fit a power law to `column` of a training log at its flat learning rate, and say how far more tokens
    bring it.

    Returns `points`, the fitted `floor`, `scale` and `exponent`, `residual` (nats); `now`, the tokens of the
    log's last row; `gains`, for every number of tokens in `ahead` the fall of the curve from there, `value`,
    `low`, `high`; `needed`, and `tokens` at which the fall reaches it, each with 95 % intervals from refits
    to resampled residuals; None stands for never. An interval is about the fit: whether a power law goes on
    holding it cannot say. Raises ValueError for fewer than 5 rows at the flat rate.
    """
    flat = flat_rows(log)
    if len(flat) < MIN_ROWS:
        raise ValueError(
            f"the log has {len(flat)} rows at its flat learning rate, and three parameters need {MIN_ROWS} "
            "at least: train longer or log more often"
        )
    tokens = np.array([row["tokens"] for row in flat], dtype=float)
    fit = fit_power_law(tokens, np.array([row[column] for row in flat]), refits, seed)
    now = float(log[-1]["tokens"])

    def gain(parameters: np.ndarray, later: float) -> float:
        return float(power_law(now, *parameters) - power_law(later, *parameters))

    def reached_at(parameters: np.ndarray) -> float:
        floor, scale, exponent = parameters
        above_floor = power_law(now, *parameters) - needed - floor  # what may remain of the scaled term
        if above_floor <= 0:
            return np.inf
        return 1e6 * (above_floor / scale) ** (-1 / exponent)

    gains = [{"tokens": later, **fit.summary(partial(gain, later=later))} for later in ahead]
    return {
        "points": fit.points,
        "floor": fit.summary(itemgetter(0)),
        "scale": fit.summary(itemgetter(1)),
        "exponent": fit.summary(itemgetter(2)),
        "residual": fit.residual,
        "now": now,
        "gains": gains,
        "needed": needed,
        "tokens": fit.summary(reached_at),
    }
