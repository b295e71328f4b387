"""Answers of the embedded models to the offline suite, as records."""

import pandas as pd

from sinkprune_companion.experiments.scoring import EVALUATION_SEED
from sinkprune_companion.harness import suite
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation import two_choice
from sinkprune_core.models.language_model import LanguageModel

REVISION = 1  # of `suite_answers`


def suite_answers(run: Run, lm: LanguageModel, fingerprint: str, items: int, draws: int) -> pd.DataFrame:
    """Return the record of one model's answers to about `items` items of the offline suite.

    Columns are those of `two_choice.accuracy`. Noise of a diffusion model depends on the item alone, so
    models and variants are compared in pairs.
    """

    def compute() -> pd.DataFrame:
        return two_choice.accuracy(lm, suite.sample(items), draws, EVALUATION_SEED, progress=True)

    return run.record(
        "suite",
        compute,
        REVISION,
        model=lm.name,
        kind=lm.kind,
        fingerprint=fingerprint,
        items=items,
        draws=draws,
        evaluation_seed=EVALUATION_SEED,
    )
