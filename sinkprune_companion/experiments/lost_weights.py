"""The weights that leave with the stable sinks: which are the most important, and what they are worth.

Dimensions: O output features, I input features of a linear map, N calibration tokens, X weights.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch

from sinkprune.evaluation.text_scores import score_texts
from sinkprune_companion.experiments.linear_inputs import linear_inputs
from sinkprune_companion.experiments.masks import weights_of
from sinkprune_companion.experiments.robustness import training_of
from sinkprune_companion.experiments.variants import SharedStatistics, Variant, fingerprint_of
from sinkprune_companion.run.records import Run
from sinkprune_core import Calibration, LanguageModel, Recipe, weights_kept
from sinkprune_core.blocks import Rows
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.language_model import LinearAt
from sinkprune_core.pruning.criteria import wanda
from sinkprune_core.pruning.patterns import select

CRITICAL_REVISION = 1  # of `critical`
RESTORED_REVISION = 1  # of `restored_scores`
BATCH = 16  # rows that are sent through a block at a time


def critical(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    kept_by: Recipe,
    without: Recipe,
    text: Calibration,
    shared: SharedStatistics,
    sequences: int,
    count: int,
    **labels: object,
) -> pd.DataFrame:
    """Return the record of the `count` first `lost_weights`, which `kept_by` keeps and `without` does not.

    The inputs are those at tokens that `without` leaves out of the first `sequences`; `lm` must be dense.
    """

    def compute() -> pd.DataFrame:
        few = replace(text, ids_NT=text.ids_NT[:sequences])
        rows = rows_for(lm, few, without.statistics_key, progress=False)
        largest = largest_inputs(lm, rows)
        return lost_weights(lm, without, shared.of(kept_by), shared.of(without), largest, count)

    key = {"model": lm.name, "fingerprint": fingerprint, "kept_by": kept_by, "without": without}
    key |= {"calibration": text.fingerprint, "sequences": sequences, "count": count}
    return run.record("critical", compute, CRITICAL_REVISION, labels, **key)


def largest_inputs(lm: LanguageModel, rows: Rows) -> dict[LinearAt, torch.Tensor]:
    """Return the largest |x| of a dense model's inputs at the tokens of `rows` that weigh 0, (I,); else 0."""
    is_left_out_N = (rows.weight_RT == 0).flatten()
    largest = {}
    for layer, inputs in linear_inputs(lm, rows.ids_RT, range(len(lm.blocks)), BATCH, progress=False):
        for name, input_NI in inputs.items():
            size_XI = input_NI[is_left_out_N].abs().float()
            largest[layer, name] = size_XI.amax(0) if len(size_XI) else torch.zeros(input_NI.shape[1])

    return largest


def lost_weights(
    lm: LanguageModel,
    recipe: Recipe,
    statistics: DenseStatistics,
    without: DenseStatistics,
    largest: Mapping[LinearAt, torch.Tensor],
    count: int,
) -> pd.DataFrame:
    """Return the most important weights that some statistics keep and others do not, a row each, in order.

    The model is dense, and the recipe one of Wanda with zeros per row. Columns: `layer`, `linear`, `output`,
    `input`, `weight`; `importance`, its size times the `largest` input that it meets; `rank`, from 1; `lost`,
    how many there are in all; and `replaced_by`, the input of a weight of the same output that only the
    second mask keeps, the lowest score first.
    """
    choose = select(recipe.pattern, recipe.sparsity)
    weights = weights_of(lm)

    gained = {}
    parts = []
    lost = 0
    for (layer, name), weights_OI in weights.items():
        pruned_OI, pruned_without_OI = (
            choose(wanda(weights_OI, each.layers[layer][name]), 0, weights_OI.shape[1])
            for each in (statistics, without)
        )
        gained[layer, name] = pruned_OI & ~pruned_without_OI
        output_X, input_X = (pruned_without_OI & ~pruned_OI).nonzero(as_tuple=True)
        lost += len(output_X)
        weight_X = weights_OI[output_X, input_X]
        importance_X = weight_X.float().abs() * largest[layer, name].to(weights_OI.device)[input_X]
        top_X = importance_X.argsort(descending=True, stable=True)[:count]
        columns = {"output": output_X, "input": input_X}
        columns |= {"weight": weight_X.double(), "importance": importance_X.double()}
        top = {column: values_X[top_X].cpu().numpy() for column, values_X in columns.items()}
        parts.append(pd.DataFrame({"layer": layer, "linear": name, **top}))

    ranked = pd.concat(parts).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    ranked = ranked.head(count)

    ranked = ranked.assign(rank=ranked.index + 1, lost=lost, replaced_by=-1)
    for (layer, name, output), of_output in ranked.groupby(["layer", "linear", "output"], sort=False):
        score_I = wanda(weights[layer, name][[output]], without.layers[layer][name])[0]
        score_I = score_I.masked_fill(~gained[layer, name][output], torch.inf)
        lowest_first = score_I.argsort(stable=True)
        ranked.loc[of_output.index, "replaced_by"] = lowest_first[: len(of_output)].tolist()

    return ranked


@contextmanager
def restored(lm: LanguageModel, lost: pd.DataFrame) -> Iterator[None]:
    """Exchange lost weights and those that replaced them while a block runs, in a pruned model."""
    weights = weights_of(lm)
    with weights_kept(lm):
        for place, part in lost.groupby(["layer", "linear"], sort=False):
            weights_OI = weights[place]
            outputs, inputs, replaced, values = (
                torch.tensor(part[column].to_numpy(), device=weights_OI.device)
                for column in ("output", "input", "replaced_by", "weight")
            )
            weights_OI[outputs, inputs] = values.to(weights_OI.dtype)
            weights_OI[outputs, replaced] = 0

        yield


def restored_scores(
    run: Run,
    variant: Variant,
    lost: pd.DataFrame,
    counts: Sequence[int],
    texts: dict[str, torch.Tensor],
    draws: int,
    noise: int,
    **labels: object,
) -> pd.DataFrame:
    """Return a variant's `score_texts` with the first so many `critical` weights back, a record per count."""
    places = lost[["rank", "layer", "linear", "output", "input", "replaced_by"]].to_csv(index=False)
    key = {**variant.key, "weights": hashlib.sha256(places.encode()).hexdigest()[:16]}
    key |= {"data": fingerprint_of(texts), "draws": draws, "evaluation_seed": noise}

    frames = []
    for count in counts:

        def compute(first: pd.DataFrame = lost[lost["rank"] <= count]) -> pd.DataFrame:
            variant.ready()
            with restored(variant.lm, first):
                return score_texts(variant.lm, texts, draws, seed=noise)

        frames.append(run.record("restored", compute, RESTORED_REVISION, labels, **key, restored=count))

    return pd.concat(frames, ignore_index=True)


def count_of(lost: pd.DataFrame, lm: LanguageModel) -> pd.DataFrame:
    """Return how many weights are lost, and their share of all that a mask keeps, by model, share and draw.

    `lost` are records of `critical`, each with its `pair`, `share` and `seed`; all models have `lm`'s shape.
    """
    named = lost.assign(model=lost.pair.map(training_of))
    by_draw = named.groupby(["model", "share", "seed"]).lost.first().reset_index()
    by_draw["of the kept (%)"] = 100 * by_draw.lost / (lm.prunable_weights * (1 - by_draw.share))
    return by_draw.set_index(["model", "share", "seed"]).unstack("seed").round(3)
