"""Nats per token of every sequence of some text: what all comparisons of variants rest on.

Dimensions: N sequences, T tokens per sequence.
"""

import hashlib
from collections.abc import Sequence

import pandas as pd
import torch

from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.language_model import LanguageModel

EVALUATION_SEED = 0  # the same noise for every variant of a model: differences are paired


def score_texts(
    lm: LanguageModel,
    texts: dict[str, torch.Tensor],
    draws: int,
    steps: Sequence[int | None] = (None,),
    batch: int = 32,
    seed: int = EVALUATION_SEED,
    first_scored: int = 1,
) -> pd.DataFrame:
    """Return nats per token of every sequence, one row per sequence and number of steps.

    `texts` holds ids, int64 (N, T), by source; a source may say how its sequences start, e.g. `natural/crop`.
    Columns: `sequence` (numbered through), `text`, `start` (where a source says it), `steps` (0 for None)
    and `value`: a diffusion model's NELBO, or its bound for generation in so many steps, from `draws` noise
    draws; exact for an autoregressive model. Positions before `first_scored` are context.
    """
    ids_NT = torch.cat(list(texts.values()))
    sources = [name.partition("/") for name, of_text_NT in texts.items() for _ in of_text_NT]
    labels = {"text": [text for text, _, _ in sources]}
    if any(start for _, _, start in sources):
        labels["start"] = [start for _, _, start in sources]
    if not lm.is_diffusion:
        exact = nll(lm, ids_NT, batch, progress=True, first_scored=first_scored)
        return exact.assign(**labels, steps=0)
    parts = []
    for count in steps:
        by_draw = nelbo(lm, ids_NT, draws, seed, batch, steps=count, progress=True, first_scored=first_scored)
        mean = by_draw.groupby("sequence", as_index=False).value.mean()
        parts.append(mean.assign(**labels, steps=count or 0))
    return pd.concat(parts, ignore_index=True)


def fingerprint_of(texts: dict[str, torch.Tensor]) -> str:
    """Return a SHA-256 prefix of texts and their names."""
    named = b"".join(name.encode() + ids.numpy().tobytes() for name, ids in texts.items())
    return hashlib.sha256(named).hexdigest()[:16]


def above_dense(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores less the dense model's under the same noise, of which one draw, of zeros, is left."""
    is_dense = scores.variant == "dense"
    dense = scores[is_dense].set_index(["seed", "sequence"]).value
    of_row = pd.MultiIndex.from_frame(scores[["seed", "sequence"]])
    above = scores.assign(value=scores.value - dense.loc[of_row].to_numpy())
    return above[~is_dense | (above.seed == above.seed[is_dense].min())]
