"""Answers of models and their variants to two-choice items, as records, and what pruning takes from them.

Dimensions: R repetitions (calibration draws), N pairs of items.
"""

import numpy as np
import pandas as pd

from sinkprune_companion.experiments.scoring import EVALUATION_SEED
from sinkprune_companion.experiments.variant_pairs import on_common_draws
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.harness import suite
from sinkprune_companion.harness.local_data import embedded_blimp
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation import two_choice
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval
from sinkprune_core.values import check_choice

BENCHMARKS = ("suite", "blimp")
NAMES = ("benchmark", "variant", "pattern", "sparsity", "place", "seed", "calibration_tokens")  # of answers
ANSWERS_REVISION = 1  # of `variant_answers`


def variant_answers(
    run: Run, variant: Variant, questions: dict[str, int], draws: int, /, **labels: object
) -> pd.DataFrame:
    """Return a variant's answers to items of BENCHMARKS, a record each; `questions` says how many of which.

    These are about so many items of the offline suite (`suite`), or the first so many minimal pairs of each
    BLiMP paradigm that the package brings (`blimp`). Columns are those of `two_choice.accuracy`, `benchmark`,
    `labels`, and `calibration_tokens`, 0 for a dense model. Maskings, `draws` of each ending, depend on the
    item alone, so variants are compared item by item. Raises ValueError for another benchmark.
    """
    parts = []
    for benchmark, items in questions.items():
        check_choice("benchmark", benchmark, BENCHMARKS)
        if benchmark == "suite":
            asked = suite.sample(items)
        else:
            paradigms = {name: pairs[:items] for name, pairs in embedded_blimp().items()}
            asked = suite.minimal_pairs(variant.lm.tokenizer, paradigms)

        def compute(asked: list[dict] = asked) -> pd.DataFrame:
            report = variant.ready()
            answers = two_choice.accuracy(variant.lm, asked, draws, EVALUATION_SEED, progress=True)
            return answers.assign(calibration_tokens=report.calibration_tokens if report else 0)

        key = {"benchmark": benchmark, "items": items, "draws": draws, "evaluation_seed": EVALUATION_SEED}
        parts.append(run.record("answers", compute, ANSWERS_REVISION, labels, **variant.key, **key))
    return pd.concat(parts, ignore_index=True)


def points(answers: pd.DataFrame) -> pd.DataFrame:
    """Return right answers in points (percent) by pair of items; see `means_by_pair`."""
    return means_by_pair(answers.assign(right=100 * answers.correct), "right")


def means_by_pair(answers: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the means of a column of `variant_answers` by pair of items, as tables of scores are.

    Columns: those of NAMES that it has, `sequence` (the number of the pair within these) and `value`.
    """
    names = [name for name in NAMES if name in answers]
    means = answers.groupby([*names, "group", "pair"], sort=False)[column].mean().reset_index(name="value")
    return means.assign(sequence=means.groupby(names, sort=False).cumcount())


def share_of_damage(by_pair: pd.DataFrame, *sides: dict[str, object]) -> Estimate | None:
    """Return variant - other in shares of what the other one costs the dense model, over all benchmarks.

    `by_pair` has margins in nats, those of the right ending above the wrong one. Accuracy counts their sign;
    their mean moves with every item, so fewer items tell two variants apart. `sides` are columns of variant,
    other and dense model with their values. A pair counts in shares of the mean damage of its benchmark. None
    where no benchmark has all three, or where the other one does no damage to one.
    """
    parts = []
    for _, of_benchmark in by_pair.groupby("benchmark", sort=False):
        values = on_common_draws(of_benchmark, *sides)
        if values is None:
            continue
        variant_RN, other_RN, dense_RN = values
        damage = float(dense_RN.mean() - other_RN.mean())
        if damage <= 0:
            return None
        parts.append((variant_RN - other_RN) / damage)
    if not parts:
        return None
    return crossed_interval(np.concatenate(parts, axis=1)).with_margin(share_that_matters())
