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
) -> pd.DataFrame:
    """Return nats per token of every sequence, one row per sequence and number of steps.

    `texts` holds ids, int64 (N, T), by source. Columns: `sequence` (numbered through), `text` (its source),
    `steps` and `value`. A diffusion model's value is its NELBO, or the bound for generation in so many
    `steps`, from `draws` noise draws; an autoregressive model's is exact and knows no steps. `steps` is 0
    where it is None.
    """
    ids_NT = torch.cat(list(texts.values()))
    sources = []
    for name, ids in texts.items():
        sources.extend([name] * len(ids))
    if not lm.is_diffusion:
        return nll(lm, ids_NT, batch, progress=True).assign(text=sources, steps=0)
    parts = []
    for count in steps:
        by_draw = nelbo(lm, ids_NT, draws, EVALUATION_SEED, batch, steps=count, progress=True)
        mean = by_draw.groupby("sequence", as_index=False).value.mean()
        parts.append(mean.assign(text=sources, steps=count or 0))
    return pd.concat(parts, ignore_index=True)


def fingerprint_of(texts: dict[str, torch.Tensor]) -> str:
    """Return a SHA-256 prefix of texts and their names."""
    named = b"".join(name.encode() + ids.numpy().tobytes() for name, ids in texts.items())
    return hashlib.sha256(named).hexdigest()[:16]
