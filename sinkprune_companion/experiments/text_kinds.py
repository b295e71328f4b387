"""The kind of text as a factor: an effect on each kind.

Effects are paired differences, (R, N): R repetitions (calibration draws), N sequences.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from sinkprune_companion.ledger.margins import with_share_of_damage
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval

KINDS = {
    "natural": "natural English",
    "samples": "samples of the AR model",
    "documentation": "documentation",
    "first_token": "natural English behind a special first token",
    "crop": "all text that begins in the middle",
    "beginning": "all text from its beginning",
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
    """Return every effect on every kind of text, `{effect}_{kind}`.

    The margin is a share of `damage` on that kind of text.
    """
    estimates = {}
    for kind in KINDS:
        part = of_kind(scores, kind)
        cost = float(damage(part).mean())
        for name, effect in effects.items():
            estimates[f"{name}_{kind}"] = with_share_of_damage(crossed_interval(effect(part)), cost)
    return estimates
