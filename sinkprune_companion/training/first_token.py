"""Does a model hang on a first token? The same text with and without it, and with that key hidden.

A model that has always been shown one and the same first token can come to lean on it. Then what is measured
of its attention sinks is that habit.

Dimensions: N sequences, T tokens per sequence.
"""

import numpy as np
import torch

from sinkprune_core import corpus
from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks.hiding import Hiding, hiding_model

MEASURE = "first token"
CONDITIONS = (
    "without it",
    "with it",
    "without − with",
    "hiding position 0, without",
    "hiding position 0, with",
)


def first_token_rows(
    lm: LanguageModel, ids_NT: torch.Tensor, draws: int, seed: int, batch: int = 16
) -> list[dict]:
    """Return what the separator before a text does for a model, a row per one of CONDITIONS.

    `ids_NT`, int64, are sequences that begin with any other token; all values are nats per token of `ids_NT`
    but its first token, under the same masks in both conditions. Keys of a row are those of
    `quality.measure`. Hiding position 0 takes that key from every query but its own, in all layers and heads;
    its rows say what that costs.
    """
    behind_NT = corpus.with_first_token(ids_NT, lm.tokenizer)
    texts = {"without": (ids_NT, 1), "with": (behind_NT, 2)}
    values = {}
    for name, (text_NT, first_scored) in texts.items():
        dense_N = _nats(lm, text_NT, draws, seed, batch, first_scored)
        hiding = hiding_model(lm, Hiding(keys="first", count=1))
        hidden_N = _nats(hiding, text_NT, draws, seed, batch, first_scored)
        values[f"{name} it"] = dense_N
        values[f"hiding position 0, {name}"] = hidden_N - dense_N
    values["without − with"] = values["without it"] - values["with it"]
    return [_row(condition, lm.name, values[condition]) for condition in CONDITIONS]


def _nats(
    lm: LanguageModel, ids_NT: torch.Tensor, draws: int, seed: int, batch: int, first_scored: int
) -> np.ndarray:
    """Return nats per token by sequence, float64 (N,): the NELBO, or exact for an autoregressive model."""
    if lm.is_diffusion:
        scores = nelbo(lm, ids_NT, draws, seed, batch, progress=True, first_scored=first_scored)
        return scores.groupby("sequence").value.mean().to_numpy()
    return nll(lm, ids_NT, batch, progress=True, first_scored=first_scored).value.to_numpy()


def _row(condition: str, model: str, values_N: np.ndarray) -> dict:
    found = interval(values_N)
    row = {"measure": MEASURE, "on": condition, "level": None, "model": model}
    return row | {"value": found.value, "low": found.low, "high": found.high, "units": len(values_N)}
