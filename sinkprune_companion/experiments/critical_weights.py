"""Which weights a choice of calibration tokens decides, and what comes back when they do.

Pruning per row keeps as many weights with any tokens left out: for every weight that leaves, another one of
its row stays. `lost_weights` ranks those that leave, `restored` exchanges some of them again.

Dimensions: O output features, I input features of a linear map, R calibration rows, T tokens, X lost weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
import torch

from sinkprune_companion.experiments.token_reach import linear_inputs
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.models.blocks import Rows, weights_kept
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning.criteria import wanda
from sinkprune_core.pruning.patterns import select
from sinkprune_core.pruning.recipe import Recipe

BATCH = 16  # rows that are sent through a block at a time
Place = tuple[int, str]  # number of a layer, name of a linear


def weights_of(lm: LanguageModel) -> dict[Place, torch.Tensor]:
    """Return the weights of all linears of the blocks, views (O, I) that write through."""
    weights = {}
    for layer, block in enumerate(lm.blocks):
        for name, linear in lm.linears(block).items():
            weights[layer, name] = weight_OI(linear).detach()
    return weights


def largest_inputs(lm: LanguageModel, rows: Rows) -> dict[Place, torch.Tensor]:
    """Return the largest |x| of every linear's inputs at the tokens of `rows` that weigh 0, float32 (I,).

    It is 0 where no token does. The model must be dense.
    """
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
    largest: Mapping[Place, torch.Tensor],
    count: int,
) -> pd.DataFrame:
    """Return the most important weights that some statistics keep and others do not, a row each, in order.

    The importance of a weight is its size times the `largest` input that it meets. The model is dense, and
    the recipe one of Wanda with zeros per row, so that both masks keep equally many weights in every row.
    Columns: `rank` (from 1), `layer`, `linear`, `output`, `input`, `weight`, `importance`; `lost`, the number
    of all such weights; and `replaced_by`, the input of a weight of the same output that only the second mask
    keeps. Of those, the n-th lost weight of an output has the one with the n-th lowest score.
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
        lost_OI = pruned_without_OI & ~pruned_OI
        lost += int(lost_OI.sum())
        output_X, input_X = lost_OI.nonzero(as_tuple=True)
        weight_X = weights_OI[output_X, input_X]
        importance_X = weight_X.float().abs() * largest[layer, name].to(weights_OI.device)[input_X]
        top_X = importance_X.argsort(descending=True, stable=True)[:count]
        top = {
            "layer": layer,
            "linear": name,
            "output": output_X[top_X].cpu().numpy(),
            "input": input_X[top_X].cpu().numpy(),
            "weight": weight_X[top_X].double().cpu().numpy(),
            "importance": importance_X[top_X].double().cpu().numpy(),
        }
        parts.append(pd.DataFrame(top))
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
    """Give lost weights their values back while a block runs, in a model that is pruned without them.

    The weights that replaced them become zero, so that as many weights stay pruned.
    """
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
