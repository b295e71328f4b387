"""The kind of text as a factor: an effect on each kind, and how it differs between kinds.

Effects are paired differences, (R, N): R repetitions (calibration draws), N sequences.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from sinkprune_companion.ledger.margins import with_share_of_damage
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval, crossed_interval_between

KINDS = {
    "natural": "natural English",
    "samples": "samples of the AR model",
    "documentation": "documentation",
    "first_token": "natural English behind a special first token",
    "crop": "all text that begins in the middle",
    "beginning": "all text from its beginning",
}
CONTRASTS = {
    "samples_minus_natural": ("samples", "natural"),
    "documentation_minus_natural": ("documentation", "natural"),
    "first_token_minus_natural": ("first_token", "natural"),
    "beginning_minus_crop": ("beginning", "crop"),
}

# From a table of scores to an effect, (R, N).
Effect = Callable[[pd.DataFrame], np.ndarray]


def of_kind(scores: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the scores of one of KINDS; kinds that name a domain hold its crops alone.

    Raises ValueError for another kind.
    """
    if kind in ("crop", "beginning"):
        return scores[scores.start == kind]
    if kind == "first_token":
        return scores[(scores.text == "natural") & (scores.start == "beginning")]
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return scores[(scores.text == kind) & (scores.start == "crop")]


def by_kind(scores: pd.DataFrame, effects: Mapping[str, Effect], damage: Effect) -> dict[str, Estimate]:
    """Return every effect on every kind of text, `{effect}_{kind}`, and between kinds.

    The margin is a share of `damage` on that kind of text; between two kinds, of the mean of both. Effects
    between kinds are named by CONTRASTS.
    """
    costs = {kind: float(damage(of_kind(scores, kind)).mean()) for kind in KINDS}
    found = {}
    for name, effect in effects.items():
        values = {kind: effect(of_kind(scores, kind)) for kind in KINDS}
        for kind, values_RN in values.items():
            found[f"{name}_{kind}"] = with_share_of_damage(crossed_interval(values_RN), costs[kind])
        for label, (one, other) in CONTRASTS.items():
            between = crossed_interval_between(values[one], values[other])
            cost = (costs[one] + costs[other]) / 2
            found[f"{name}_{label}"] = with_share_of_damage(between, cost)
    return found
