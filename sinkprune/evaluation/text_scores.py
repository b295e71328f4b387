"""Nats per token of sequences from several texts, in one table, for either kind of model.

Dimensions: N sequences, T tokens per sequence.
"""

from collections.abc import Sequence

import pandas as pd
import torch

from sinkprune.evaluation.likelihood import nelbo, nll
from sinkprune_core.language_model import LanguageModel

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

    `texts` has ids, int64 (N, T), by source; a source may say how sequences start, e.g. `natural/crop`.
    Columns: `sequence` (numbered through), `text`, `start` (where a source says it), `steps` (0 for None)
    and `value`: a diffusion model's NELBO, or its bound for so many steps, from `draws` noises; exact for
    an autoregressive model. Positions before `first_scored` are context.
    """
    ids_NT = torch.cat(list(texts.values()))
    sources = [name.partition("/") for name, of_text_NT in texts.items() for _ in of_text_NT]
    labels = {"text": [text for text, _, _ in sources]}
    if any(start for _, _, start in sources):
        labels["start"] = [start for _, _, start in sources]

    how = {"batch": batch, "progress": True, "first_scored": first_scored}
    if not lm.is_diffusion:
        return nll(lm, ids_NT, **how).assign(**labels, steps=0)

    parts = []
    for count in steps:
        by_draw = nelbo(lm, ids_NT, draws, seed, steps=count, **how)
        mean = by_draw.groupby("sequence", as_index=False).value.mean()
        parts.append(mean.assign(**labels, steps=count or 0))

    return pd.concat(parts, ignore_index=True)
