"""Which weights a choice of calibration tokens decides, and what comes back when they do.

Pruning per row keeps as many weights with any tokens left out: for every weight that leaves, another one of
its row stays. `lost_weights` ranks those that leave, `restored` puts some of them back, and takes their
places away again so that the number of zeros stays.

Dimensions: O output features, I input features of a linear map, R calibration rows, T tokens, X lost weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
import torch
from torch import nn

from sinkprune_companion.experiments.token_reach import linear_inputs
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.models.blocks import Rows, weights_kept
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import select
from sinkprune_core.pruning.recipe import Recipe

Place = tuple[int, str]  # number of a layer, name of a linear


@torch.no_grad()
def kept_weights(lm: LanguageModel, recipe: Recipe, statistics: DenseStatistics) -> dict[Place, torch.Tensor]:
    """Return which weights of the blocks' linears a recipe keeps, bool (O, I).

    The recipe is one of Wanda with dense propagation and zeros per row, `statistics` are its own, and the
    model is dense.
    """
    choose = select(recipe.pattern, recipe.sparsity)
    kept = {}
    for place, linear in _linears(lm).items():
        score_OI = _score(linear, statistics, place)
        kept[place] = ~choose(score_OI, 0, score_OI.shape[1])
    return kept


def _score(linear: nn.Module, statistics: DenseStatistics, place: Place) -> torch.Tensor:
    layer, name = place
    return CRITERIA["wanda"].score(weight_OI(linear), statistics.layers[layer][name])


def _linears(lm: LanguageModel) -> dict[Place, nn.Module]:
    linears = {}
    for layer, block in enumerate(lm.blocks):
        for name, linear in lm.linears(block).items():
            linears[layer, name] = linear
    return linears


def largest_inputs(lm: LanguageModel, rows: Rows, batch: int = 16) -> dict[Place, torch.Tensor]:
    """Return the largest |x| of every linear's inputs at the tokens of `rows` that weigh 0, float32 (I,).

    It is 0 where no token does. The model must be dense.
    """
    is_left_out_N = (rows.weight_RT == 0).flatten()
    largest = {}
    for layer, inputs in linear_inputs(lm, rows.ids_RT, range(len(lm.blocks)), batch):
        for name, input_NI in inputs.items():
            size_XI = input_NI[is_left_out_N].abs().float()
            largest[layer, name] = size_XI.amax(0) if len(size_XI) else torch.zeros(input_NI.shape[1])
    return largest


@torch.no_grad()
def lost_weights(
    lm: LanguageModel,
    kept: Mapping[Place, torch.Tensor],
    kept_without: Mapping[Place, torch.Tensor],
    without: DenseStatistics,
    largest: Mapping[Place, torch.Tensor],
    count: int,
) -> pd.DataFrame:
    """Return the most important weights that one mask keeps and another does not, a row each, in order.

    The importance of a weight is its size times the `largest` input that it meets. `kept` and `kept_without`
    are two masks of the dense model `lm`, bool (O, I), with equally many weights in every row; `without` are
    the statistics behind the second. Columns: `rank` (from 1), `layer`, `linear`,
    `output`, `input`, `weight`, `importance`; `lost`, the number of all such weights; and `replaced_by`, the
    input of a weight of the same output that only the second mask keeps. Of those, the n-th lost weight of an
    output has the one with the n-th lowest score.
    """
    linears = _linears(lm)
    parts = []
    lost = 0
    for place, linear in linears.items():
        weights_OI = weight_OI(linear)
        lost_OI = kept[place] & ~kept_without[place]
        lost += int(lost_OI.sum())
        value_OI = weights_OI.float().abs() * largest[place].to(weights_OI.device)
        output_X, input_X = lost_OI.nonzero(as_tuple=True)
        value_X = value_OI[output_X, input_X]
        top_X = value_X.argsort(descending=True, stable=True)[:count]
        columns = {
            "layer": place[0],
            "linear": place[1],
            "output": output_X[top_X].cpu().numpy(),
            "input": input_X[top_X].cpu().numpy(),
            "weight": weights_OI[output_X, input_X][top_X].double().cpu().numpy(),
            "importance": value_X[top_X].double().cpu().numpy(),
        }
        parts.append(pd.DataFrame(columns))
    ranked = pd.concat(parts, ignore_index=True)
    ranked = ranked.sort_values("importance", ascending=False, kind="stable").head(count)
    ranked = ranked.assign(rank=range(1, len(ranked) + 1), lost=lost)
    ranked["replaced_by"] = _replacements(linears, kept, kept_without, without, ranked)
    return ranked.reset_index(drop=True)


def _replacements(
    linears: Mapping[Place, nn.Module],
    kept: Mapping[Place, torch.Tensor],
    kept_without: Mapping[Place, torch.Tensor],
    without: DenseStatistics,
    ranked: pd.DataFrame,
) -> pd.Series:
    """Return the input whose weight goes when a lost weight comes back, see `lost_weights`."""
    inputs = pd.Series(-1, index=ranked.index)
    for (layer, name), of_linear in ranked.groupby(["layer", "linear"], sort=False):
        place = layer, name
        score_OI = _score(linears[place], without, place)
        gained_OI = kept_without[place] & ~kept[place]
        for output, of_row in of_linear.groupby("output", sort=False):
            score_I = score_OI[output].masked_fill(~gained_OI[output], torch.inf)
            lowest_first = score_I.argsort(stable=True)[: len(of_row)]
            inputs[of_row.index] = lowest_first.tolist()
    return inputs


@contextmanager
def restored(lm: LanguageModel, lost: pd.DataFrame) -> Iterator[None]:
    """Give lost weights their values back while a block runs, in a model that is pruned without them.

    The weights that replaced them become zero, so that as many weights stay pruned.
    """
    linears = _linears(lm)
    with weights_kept(lm):
        for (layer, name), part in lost.groupby(["layer", "linear"], sort=False):
            weights_OI = weight_OI(linears[layer, name]).detach()
            outputs, inputs, replaced, values = (
                torch.tensor(part[column].to_numpy(), device=weights_OI.device)
                for column in ("output", "input", "replaced_by", "weight")
            )
            weights_OI[outputs, inputs] = values.to(weights_OI.dtype)
            weights_OI[outputs, replaced] = 0
        yield
