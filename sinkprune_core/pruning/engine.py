"""One loop for every method: `prune(lm, recipe, calibration) -> Report`.

Blocks are visited in order. Each receives calibration text, the statistics of what its linears receive are
taken, its linears are pruned, and the next block receives what the dense block or the pruned one makes.
"""

import time
from collections.abc import Sequence
from typing import Annotated

import pandas as pd
import torch
from pydantic import Field, InstanceOf

from sinkprune_core.blocks import with_bar
from sinkprune_core.calibration.dense_statistics import DenseStatistics, Origin, collect
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import StatisticsKey
from sinkprune_core.language_model import LanguageModel, check_finite
from sinkprune_core.pruning.choice import decide
from sinkprune_core.pruning.plan import check_dense, make_plan, reads_dense
from sinkprune_core.pruning.pruning_run import PruningRun, Statistics
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.report import Report
from sinkprune_core.values import Flag, checked_arguments


@checked_arguments
def prune(
    lm: InstanceOf[LanguageModel],
    recipe: InstanceOf[Recipe],
    calibration: InstanceOf[Calibration] | None = None,
    progress: Flag = True,
    statistics: InstanceOf[DenseStatistics] | None = None,
) -> Report:
    """Prune the weights that `recipe` chooses, in place; see `weights_kept` to have them back.

    `statistics` are those of this recipe from `dense_statistics` of this model, where they are known already.
    A structured recipe zeroes whole units, and `report.kept_units` says which stay.

    Raises ValueError before any work for a recipe that does not fit the model, its calibration text or the
    statistics, and, naming the model or the linear, for weights or activations that are not finite and for a
    Gram matrix that stays singular: linears before that one are pruned then.
    """
    plan = make_plan(lm, recipe, calibration)
    check_before(lm, recipe, calibration, statistics)
    if not lm.has_blocks_in_memory:
        raise ValueError(f"{lm.name} has no weights in memory: give this loop a model that has")

    return prune_blocks(PruningRun(lm, recipe, calibration, plan, progress, known=statistics))


@torch.no_grad()
def prune_blocks(run: PruningRun) -> Report:
    """Observe, choose, zero, go on: the loop, wherever blocks and statistics live."""
    started = time.perf_counter()

    source = Statistics(run)  # with dense propagation all statistics are taken now, in one pass

    choice = decide(run, source)  # it scores dense blocks: before any is pruned
    run.keep_decisions()

    inputs_of_next = run.resume(source.rows)  # finished blocks come back, if there are any
    source.begin(inputs_of_next)

    layers = range(run.progress.done, len(run.lm.blocks))
    what = f"prune {run.lm.name}: {run.recipe.name}"

    for layer in with_bar(layers, what, "block", run.shows_progress):
        with run.block(layer) as block:  # at the end of `with` it is finished, and on disk kept
            inputs = source.of_block(layer, block)
            choice.zero(layer, block, inputs)
            source.advance(layer, block)

    run.close()
    return report(run, source, time.perf_counter() - started)


def report(run: PruningRun, source: Statistics, seconds: float) -> Report:
    """Return what was done."""
    linears = pd.DataFrame(run.progress.table)
    parameters = sum(parameter.numel() for parameter in run.lm.model.parameters())
    seconds_before = run.known.seconds if run.known else 0.0

    return Report(
        recipe=run.recipe,
        model=run.lm.name,
        linears=linears,
        calibration_tokens=source.tokens,
        left_out_share=source.left_out_share,
        seconds=seconds_before + seconds,
        unpruned_parameters=parameters - int(linears.weights.sum()),
        kept_units=tuple(run.progress.kept_units),
    )


@checked_arguments
def dense_statistics(
    lm: InstanceOf[LanguageModel],
    recipes: Annotated[Sequence[InstanceOf[Recipe]], Field()],
    calibration: InstanceOf[Calibration],
    progress: Flag = True,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of the dense model that recipes read, by `recipe.statistics_key`.

    One pass serves all recipes with the same states of the text. Raises ValueError for a recipe that reads
    none: one with sequential propagation, or Gram matrices, which are too large to keep, and without OWL.
    """
    check_dense(lm, recipes, calibration)
    return collect(lm, [recipe.statistics_key for recipe in recipes], calibration, progress)


def check_before(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    statistics: DenseStatistics | None,
) -> None:
    """Raise ValueError for statistics of something else, and for weights outside the blocks that are damaged.

    Those of a block are checked when pruning comes to it. Weights that cannot be changed are refused, too.
    """
    if statistics is not None:
        if not reads_dense(recipe):
            raise ValueError(
                f"statistics are given, and recipe {recipe.name!r} reads none of the dense model: leave "
                "statistics out"
            )

        is_theirs = calibration is not None and statistics.origin == Origin.of(
            lm, recipe.statistics_key, calibration
        )
        if not is_theirs:
            raise ValueError(
                f"statistics are not those of recipe {recipe.name!r}, this calibration text and {lm.name}: "
                "take them from dense_statistics(lm, [recipe], calibration)"
            )

    inside = f"{lm.blocks_name}."
    outside = [named for named in lm.model.named_parameters() if not named[0].startswith(inside)]
    check_finite(lm, outside)
