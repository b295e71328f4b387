"""Answers of models and their variants to two-choice items, as records, and what pruning does to them.

Dimensions: R repetitions (calibration draws), N pairs of items.
"""

from collections.abc import Sequence

import pandas as pd

from sinkprune_companion.experiments.comparison import flips
from sinkprune_companion.experiments.scoring import EVALUATION_SEED
from sinkprune_companion.experiments.variant_pairs import on_common_draws, rows_where
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.harness import quality, suite
from sinkprune_companion.harness.public_data import embedded_blimp
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation import two_choice
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval
from sinkprune_core.models.language_model import LanguageModel

BENCHMARKS = ("suite", "blimp")
ANSWERS_REVISION = 1  # of `variant_answers`
SUITE_REVISION = 1  # of `suite_answers`


def variant_answers(
    run: Run, variant: Variant, questions: dict[str, int], draws: int, /, **labels: object
) -> pd.DataFrame:
    """Return a variant's answers to items of BENCHMARKS, a record each; `questions` says how many of which.

    These are about so many items of the offline suite (`suite`), or the first so many minimal pairs of each
    BLiMP paradigm that the package brings (`blimp`). Columns are those of `two_choice.accuracy`, `benchmark`,
    `labels`, and `calibration_tokens`, 0 for a dense model. Maskings of a diffusion model, `draws` of each
    ending, depend on the item alone, so variants are compared item by item. Raises ValueError for another
    benchmark.
    """
    parts = []
    for benchmark, items in questions.items():
        task = _task(benchmark, items, draws)

        def compute(task: quality.Task = task) -> pd.DataFrame:
            report = variant.ready()
            return task(variant.lm).assign(calibration_tokens=report.calibration_tokens if report else 0)

        key = {"benchmark": benchmark, "items": items, "draws": draws, "evaluation_seed": EVALUATION_SEED}
        parts.append(run.record("answers", compute, ANSWERS_REVISION, labels, **variant.key, **key))
    return pd.concat(parts, ignore_index=True)


def _task(benchmark: str, items: int, draws: int) -> quality.Task:
    if benchmark == "suite":
        return quality.offline_suite(items, draws, EVALUATION_SEED, progress=True)
    if benchmark == "blimp":
        paradigms = {name: pairs[:items] for name, pairs in embedded_blimp().items()}
        return quality.minimal_pairs(paradigms, draws, EVALUATION_SEED, progress=True)
    raise ValueError(f"benchmark={benchmark!r} is unknown; choose one of {', '.join(BENCHMARKS)}")


def suite_answers(run: Run, lm: LanguageModel, fingerprint: str, items: int, draws: int) -> pd.DataFrame:
    """Return the record of one model's answers to about `items` items of the offline suite.

    Columns are those of `two_choice.accuracy`. Noise of a diffusion model depends on the item alone, so
    models are compared in pairs.
    """

    def compute() -> pd.DataFrame:
        return two_choice.accuracy(lm, suite.sample(items), draws, EVALUATION_SEED, progress=True)

    return run.record(
        "suite",
        compute,
        SUITE_REVISION,
        model=lm.name,
        kind=lm.kind,
        fingerprint=fingerprint,
        items=items,
        draws=draws,
        evaluation_seed=EVALUATION_SEED,
    )


def points(answers: pd.DataFrame) -> pd.DataFrame:
    """Return right answers in points (percent) by pair of items, as tables of scores are.

    Columns: those of `answers` that are the same within a pair, `sequence` (the number of the pair within its
    benchmark and variant) and `value` (0, 50 or 100 where a pair has two items).
    """
    names = ["benchmark", "variant", "pattern", "sparsity", "seed", "calibration_tokens"]
    by_pair = answers.groupby([*names, "group", "pair"], sort=False).correct.mean().reset_index()
    number = by_pair.groupby(names, sort=False).cumcount()
    return by_pair.assign(sequence=number, value=100 * by_pair.correct)


def accuracy_difference(
    by_pair: pd.DataFrame, variant: dict[str, object], other: dict[str, object], dense: dict[str, object]
) -> tuple[Estimate, float] | None:
    """Return variant - other in points and how many points `other` costs the dense model.

    `by_pair` is the table of `points`; sides are columns with their values. None where one was not measured.
    Intervals resample calibration draws and pairs of items together.
    """
    values = on_common_draws(by_pair, variant, other, dense)
    if values is None:
        return None
    variant_RN, other_RN, dense_RN = values
    return crossed_interval(variant_RN - other_RN), float(dense_RN.mean() - other_RN.mean())


def flip_table(
    answers: pd.DataFrame, pairs: Sequence[tuple[dict[str, object], dict[str, object]]]
) -> pd.DataFrame:
    """Return how many items two variants answer differently, a row per pair of variants that was measured.

    Columns: `benchmark`, `sparsity`, `variant`, `other`, `items`, `only_variant` (right with the first alone)
    and `only_other`. Items are counted in every calibration draw that both have.
    """
    rows = []
    for variant, other in pairs:
        of_variant = dict(list(rows_where(answers, variant).groupby("seed")))
        of_other = dict(list(rows_where(answers, other).groupby("seed")))
        is_dense = bool(of_other) and rows_where(answers, other).calibration_tokens.max() == 0
        counted = []
        for seed, one in of_variant.items():
            second = next(iter(of_other.values())) if is_dense else of_other.get(seed)
            if second is not None:
                counted.append((len(one), flips(second, one)))
        if not counted:
            continue
        row = {
            "benchmark": variant["benchmark"],
            "sparsity": variant["sparsity"],
            "variant": variant["variant"],
            "other": other["variant"],
            "items": sum(items for items, _ in counted),
            "only_variant": sum(counts.only_b for _, counts in counted),
            "only_other": sum(counts.only_a for _, counts in counted),
        }
        rows.append(row)
    return pd.DataFrame(rows)
