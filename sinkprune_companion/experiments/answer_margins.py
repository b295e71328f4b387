"""Accuracy without its steps: how much pruning takes from the margins by which items are answered.

A margin is the log-likelihood of the right ending minus that of the wrong one, in nats. Where accuracy only
counts its sign, its mean moves with every item, so far fewer items tell two variants apart.

Dimensions: R repetitions (calibration draws), N pairs of items of all benchmarks.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sinkprune_companion.experiments.variant_pairs import on_common_draws
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval

NAMES = ("benchmark", "variant", "pattern", "sparsity", "place", "seed", "calibration_tokens")


def margins(answers: pd.DataFrame) -> pd.DataFrame:
    """Return margins in nats by pair of items, as tables of scores are.

    `answers` is the table of `variant_answers`. Columns: those that are the same within a pair, `sequence`
    (the number of the pair within its benchmark and variant) and `value`.
    """
    names = [name for name in NAMES if name in answers]
    by_pair = answers.groupby([*names, "group", "pair"], sort=False).margin.mean().reset_index()
    number = by_pair.groupby(names, sort=False).cumcount()
    return by_pair.rename(columns={"margin": "value"}).assign(sequence=number)


def share_of_damage(
    by_pair: pd.DataFrame,
    variant: Mapping[str, object],
    other: Mapping[str, object],
    dense: Mapping[str, object],
) -> Estimate | None:
    """Return variant - other in shares of what `other` costs the dense model, pooled over benchmarks.

    Above zero the first keeps more of the margins. `by_pair` is the table of `margins`; sides are columns
    with their values, without the benchmark. A pair counts in shares of the mean damage of its benchmark, and
    every pair counts alike. The smallest share that matters is the estimate's margin. None where no benchmark
    has all three, or where `other` does no damage to one.
    """
    parts = []
    for benchmark in by_pair.benchmark.unique():
        sides = [{"benchmark": benchmark, **side} for side in (variant, other, dense)]
        values = on_common_draws(by_pair, *sides)
        if values is None:
            continue
        variant_RN, other_RN, dense_RN = values
        damage = float(dense_RN.mean() - other_RN.mean())
        if damage <= 0:
            return None
        parts.append((variant_RN - other_RN) / damage)
    if not parts:
        return None
    draws = {len(part) for part in parts}
    if len(draws) > 1:
        raise ValueError(f"benchmarks were answered on {sorted(draws)} calibration draws: give them as many")
    return crossed_interval(np.concatenate(parts, axis=1)).with_margin(share_that_matters())
