"""What more training would bring: a power law fitted to the learning curve, and how many tokens an hour of a GPU trains on."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import curve_fit

from sinkprune_core.companion import published
from sinkprune_core.diffusion import compute
from sinkprune_core.evaluation.intervals import CONFIDENCE
from sinkprune_core.models.language_model import LanguageModel


def tokens_per_hour(lm: LanguageModel, length: int) -> float:
    """Return how many tokens one hour trains on at `published.SPEED` FLOPs per second, an upper bound.

    A backward pass counts as two forwards (LoRA needs less: no gradients of frozen weights); half of all positions have logits.
    """
    return published.SPEED * 3600 / (3 * compute.forward_cost(lm, length, length // 2).total / length)


def power_law(tokens: np.ndarray, floor: float, scale: float, exponent: float) -> np.ndarray:
    """Return floor + scale (tokens / 1e6)^-exponent, nats per token."""
    return floor + scale * (np.asarray(tokens, dtype=float) / 1e6) ** -exponent


def extrapolate(
    log: Sequence[dict], column: str, ahead: Sequence[float], needed: float, refits: int, seed: int = 0
) -> dict:
    """Fit a power law to `column` of a training log at its flat learning rate, and say how far more tokens would bring it.

    Returns `points`, the fitted `floor`, `scale` and `exponent`, `residual` (nats); `gains`, for every number of tokens
    in `ahead` the fall of the curve from the log's last row, `value`, `low`, `high`; `needed`, and `tokens` at which the fall
    reaches it, each with 95 % intervals from refits to resampled residuals; None stands for never. An interval is about the
    fit: whether a power law goes on holding it cannot say. Raises ValueError for fewer than 5 rows at the flat rate.
    """
    flat = [row for row in log if row["learning_rate"] == max(each["learning_rate"] for each in log)]
    if len(flat) < 5:
        raise ValueError(
            f"the log has {len(flat)} rows at its flat learning rate, and three parameters need 5 at least: train longer or log more often"
        )
    x, y, now = (
        np.array([row["tokens"] for row in flat], dtype=float),
        np.array([row[column] for row in flat]),
        float(log[-1]["tokens"]),
    )

    def fit(values: np.ndarray) -> np.ndarray:
        return curve_fit(
            power_law,
            x,
            values,
            p0=(0.8 * values.min(), 0.2 * values.min(), 0.3),
            bounds=([0, 0, 0.01], [values.min(), np.inf, 3]),
            max_nfev=2000,
        )[0]

    best = fit(y)
    residual = (y - power_law(x, *best)) * np.sqrt(len(x) / (len(x) - 3))
    rng = np.random.default_rng(seed)
    refitted = [fit(power_law(x, *best) + rng.choice(residual, len(x))) for _ in range(refits)]
    gain = lambda parameters, tokens: float(power_law(now, *parameters) - power_law(tokens, *parameters))

    def reach(parameters: np.ndarray) -> float:
        floor, scale, exponent = parameters
        left = power_law(now, *parameters) - needed - floor  # what may remain above the floor
        return 1e6 * (left / scale) ** (-1 / exponent) if left > 0 else np.inf

    def summary(of) -> dict:
        low, high = np.quantile(
            [of(parameters) for parameters in refitted],
            [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2],
            method="nearest",
        )
        return {
            name: None if not np.isfinite(value) else float(value)
            for name, value in (("value", of(best)), ("low", low), ("high", high))
        }

    return {
        "points": len(x),
        **{
            name: summary(lambda parameters, place=place: parameters[place])
            for place, name in enumerate(("floor", "scale", "exponent"))
        },
        "residual": float(np.sqrt(np.mean(residual**2))),
        "now": now,
        "gains": [
            {"tokens": tokens, **summary(lambda parameters, tokens=tokens: gain(parameters, tokens))}
            for tokens in ahead
        ],
        "needed": needed,
        "tokens": summary(reach),
    }
