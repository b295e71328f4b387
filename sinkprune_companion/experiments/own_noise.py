"""Scores of variants under another noise than that of all other measurements.

Every variant of a model is evaluated under the same noise, so that differences are paired. Where that is the
same for every calibration draw too, what chance it adds stays, however many draws there are. Noise of its own
for every draw keeps the variants of a draw paired, and draws average it.
"""

from typing import TYPE_CHECKING

import pandas as pd
import torch

from sinkprune_companion.experiments.scoring import EVALUATION_SEED, fingerprint_of, score_texts
from sinkprune_companion.experiments.variants import Variant

if TYPE_CHECKING:  # how a record is kept is no part of its key
    from sinkprune_companion.run.records import Run


def scores_under(
    run: "Run",
    variant: Variant,
    texts: dict[str, torch.Tensor],
    draws: int,
    noise: int,
    /,  # `variant` is a label too
    **labels: object,
) -> pd.DataFrame:
    """Return the record of a variant's nats per token under the noise with seed `noise`.

    Columns are those of `Variant.scores`; under EVALUATION_SEED it is that record. Of what pruning reported,
    only `calibration_tokens` is kept under other noise.
    """
    if noise == EVALUATION_SEED:
        return variant.scores(run, texts, draws, **labels)

    def compute() -> pd.DataFrame:
        report = variant.ready()
        tokens = 0 if report is None else report.calibration_tokens
        return score_texts(variant.lm, texts, draws, seed=noise).assign(calibration_tokens=tokens)

    return run.record(
        "scores",
        compute,
        **labels,
        **variant.key,
        data=fingerprint_of(texts),
        draws=draws,
        evaluation_seed=noise,
    )


def above_dense(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores with the dense model's under the same noise taken off `value`.

    What is left of the dense model is one draw of zeros, so that comparisons with it stay paired.
    """
    is_dense = scores.variant == "dense"
    dense = scores[is_dense].set_index(["seed", "sequence"]).value
    of_row = pd.MultiIndex.from_frame(scores[["seed", "sequence"]])
    above = scores.assign(value=scores.value - dense.loc[of_row].to_numpy())
    return above[~is_dense | (above.seed == above.seed[is_dense].min())]
