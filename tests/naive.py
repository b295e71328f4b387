"""Pruning as the formulas say it, by lists and loops in float64, to compare the library with.

It shares no code with the library.

Dimensions: R calibration rows, T position, O output features, I input features.
"""

import copy
import math
import statistics
from functools import partial

import numpy as np
import torch
from naive_attention import eager
from torch import nn

Places = set[tuple[int, int]]  # pruned (row, column) of a linear


def blocks_of(lm) -> nn.ModuleList:
    """Return the blocks, by what models call them."""
    named = dict(lm.model.base_model.named_modules())
    paths = ("h", "layers", "blocks", "decoder.layers", "encoder.layer", "transformer.layer")
    return next(named[path] for path in paths if path in named)


def linears_of(lm, *layers: int) -> dict[tuple[int, str], nn.Module]:
    """Return the linears of some blocks, or of all, by layer and name."""
    return {
        (layer, name): module
        for layer, block in enumerate(blocks_of(lm))
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and (not layers or layer in layers)
    }


def matrix(linear: nn.Module) -> np.ndarray:
    """Return the weight as float64 (O, I), copied."""
    return linear.weight.detach().double().numpy().copy()


def zeros_of(lm) -> dict[tuple[int, str], Places]:
    """Return the places of all zeros, by layer and name of a linear."""
    return {
        place: set(map(tuple, np.argwhere(matrix(linear) == 0).tolist()))
        for place, linear in linears_of(lm).items()
    }


def weights_of(lm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def block_weights_of(lm) -> dict[str, torch.Tensor]:
    """Return all parameters of the blocks, one block in memory at a time: also of a streamed model."""
    weights = {}
    for layer in range(len(lm.blocks)):
        with lm.resident(layer) as block:
            for name, value in block.named_parameters():
                weights[f"{layer}.{name}"] = value.clone()
    return weights


def same(one: dict, other: dict) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# inputs


def inputs_of(lm, ids_RT) -> dict[tuple[int, str], np.ndarray]:
    """Return what every linear receives in a full forward, (R, T, I)."""
    inputs = {}

    def keep(module, args, place):
        inputs[place] = args[0].reshape(*ids_RT.shape, -1).double().numpy()  # OPT joins rows

    handles = [
        linear.register_forward_pre_hook(partial(keep, place=place))
        for place, linear in linears_of(lm).items()
    ]
    lm.model.base_model(ids_RT, use_cache=False)
    for handle in handles:
        handle.remove()
    return inputs


def column_norms(input_RTI, weights, norm_reduction: str) -> list[float]:
    """Return the norm of every column of the weighted inputs.

    `root`: of all squares; `sum`: one norm per row, summed over rows.
    """
    squares_per_row = []
    for tokens, token_weights in zip(input_RTI.tolist(), weights, strict=True):
        squares = [0.0] * len(tokens[0])
        for token, w in zip(tokens, token_weights, strict=True):
            squares = [total + (w * value) ** 2 for total, value in zip(squares, token, strict=True)]
        squares_per_row.append(squares)

    columns = list(zip(*squares_per_row, strict=True))

    if norm_reduction == "root":
        return [math.sqrt(sum(column)) for column in columns]
    return [sum(math.sqrt(value) for value in column) for column in columns]


def equal_weights(ids_RT) -> list[list[float]]:
    """Return a weight of 1 for every token."""
    return [[1.0] * ids_RT.shape[1]] * len(ids_RT)


# which weights


def share_of(total: int, share: float) -> int:
    """Return how many of `total` a share is, rounded down: as many as make no larger share."""
    count = math.ceil(total * share) + 1
    while count > total or (count > 0 and count / total > share):
        count -= 1
    return count


def lowest(scores: list[float], count: int) -> list[int]:
    """Return the places of the lowest scores, ties by lowest place."""
    return sorted(range(len(scores)), key=lambda place: (scores[place], place))[:count]


def choose(scores, pattern: str, sparsity: float, first: int = 0) -> Places:
    """Return the pruned places of one linear from the scores (O, P) of its columns from `first` on.

    Counts of some columns are differences of the counts up to them.
    """
    rows = len(scores)
    last = first + len(scores[0])
    pruned: Places = set()

    if ":" in pattern:
        zeros, group = map(int, pattern.split(":"))
        for row in range(rows):
            for start in range(0, last - first, group):
                places = lowest(scores[row][start : start + group], zeros)
                pruned |= {(row, start + place) for place in places}
    elif pattern == "row":
        count = share_of(last, sparsity) - share_of(first, sparsity)
        for row in range(rows):
            pruned |= {(row, column) for column in lowest(scores[row], count)}
    else:
        count = share_of(rows * last, sparsity) - share_of(rows * first, sparsity)
        flat = [value for row in scores for value in row]
        pruned = {divmod(place, last - first) for place in lowest(flat, count)}

    return pruned


def prune(
    lm,
    criterion: str,
    sparsity,
    pattern: str = "row",
    ids_RT=None,
    weights=None,
    propagation: str = "sequential",
    norm_reduction: str = "root",
) -> dict[tuple[int, str], Places]:
    """Return the places that magnitude or Wanda prunes, by layer and name.

    `weights` holds one number per row and token, `sparsity` may be a list by layer.
    """
    dense, pruned_lm = _double(lm), _double(lm)
    pruned, all_scores = {}, {}
    sparsities = sparsity if isinstance(sparsity, list) else [sparsity] * len(blocks_of(lm))

    for layer, share in enumerate(sparsities):
        inputs = {}
        if criterion == "wanda":
            inputs = inputs_of(pruned_lm if propagation == "sequential" else dense, ids_RT)

        for place, linear in linears_of(pruned_lm, layer).items():
            norms = [1.0] * matrix(linear).shape[1]
            if inputs:
                norms = column_norms(inputs[place], weights or equal_weights(ids_RT), norm_reduction)
            all_scores[place] = scaled(linear, norms)
            if pattern != "global":
                pruned[place] = choose(all_scores[place], pattern, share)
                zero(linear, pruned[place])

    if pattern == "global":
        return choose_globally(all_scores, sparsity)

    return pruned


def scaled(linear: nn.Module, norms: list[float]) -> list[list[float]]:
    """Return the absolute weights (O, I), every column times its norm."""
    score_OI = np.abs(matrix(linear)) * np.array(norms)
    return score_OI.tolist()


def choose_globally(scores: dict, sparsity: float) -> dict[tuple[int, str], Places]:
    """Return the places of the lowest scores of all linears together, ties by order, row and column."""
    flat = []
    for order, rows in enumerate(scores.values()):
        for row, values in enumerate(rows):
            flat += [(value, order, row, column) for column, value in enumerate(values)]

    pruned = sorted(flat)[: share_of(len(flat), sparsity)]

    chosen = {}
    for order, place in enumerate(scores):
        chosen[place] = {(row, column) for _, at, row, column in pruned if at == order}

    return chosen


def outlier_sparsities(lm, sparsity: float, ids_RT, times: float, owl_lambda: float) -> list[float]:
    """Return OWL's sparsity of every layer: one with more scores above `times` their mean keeps more."""
    inputs = inputs_of(_double(lm), ids_RT)
    shares = []

    for layer in range(len(blocks_of(lm))):
        scores = []
        for place, linear in linears_of(lm, layer).items():
            norms = column_norms(inputs[place], equal_weights(ids_RT), "root")
            scores += [score for row in scaled(linear, norms) for score in row]

        least = times * statistics.fmean(scores)
        shares.append(sum(score > least for score in scores) / len(scores))

    kept = [(share - min(shares)) / (max(shares) - min(shares)) * 2 * owl_lambda for share in shares]
    return [sparsity - value + statistics.fmean(kept) for value in kept]


# SparseGPT


def sparsegpt(
    weight_OI, gram_II, pattern: str, sparsity: float, damping: float = 0.01, block_size: int = 128
) -> tuple[np.ndarray, Places]:
    """Return new weights and pruned places of SparseGPT's Algorithm 1, column by column.

    No Cholesky factor: the inverse of the damped Gram matrix loses one column after the other by elimination,
    as in the derivation of optimal brain surgery (the paper's Eq. 4 and 5).
    """
    weight_OI = weight_OI.astype(np.float64).copy()
    gram_II = gram_II.astype(np.float64).copy()
    rows, columns = weight_OI.shape
    dead = [column for column in range(columns) if gram_II[column, column] == 0]

    for column in dead:
        gram_II[column, column] = 1.0
    gram_II += damping * np.mean(np.diag(gram_II)) * np.eye(columns)

    inverse_II = np.linalg.inv(gram_II)

    steps = []  # a row per column, taken just before that column is eliminated
    for column in range(columns):
        steps.append(inverse_II[column].copy())
        inverse_II -= np.outer(inverse_II[:, column], inverse_II[column]) / inverse_II[column, column]

    chosen_together = int(pattern.split(":")[1]) if ":" in pattern else block_size
    pruned: Places = set()

    for column in range(columns):
        if column % chosen_together == 0:
            last = min(column + chosen_together, columns)
            diagonal_P = np.array([steps[at][at] for at in range(column, last)])
            score_OP = weight_OI[:, column:last] ** 2 / diagonal_P
            score_OP[:, [at - column for at in dead if column <= at < last]] = -1.0
            chosen = choose(score_OP.tolist(), pattern, sparsity, column)
            pruned |= {(row, column + at) for row, at in chosen}

        for row in range(rows):
            if (row, column) in pruned:
                error = weight_OI[row, column] / steps[column][column]
                weight_OI[row, column:] -= error * steps[column][column:]
                weight_OI[row, column] = 0.0

    return weight_OI, pruned


def prune_by_sparsegpt(
    lm,
    pattern: str,
    sparsity: float,
    ids_RT,
    weights=None,
    propagation: str = "sequential",
    damping: float = 0.01,
    block_size: int = 128,
):
    """Return the new weights (O, I) of every linear, each solved on its own."""
    dense, pruned_lm = _double(lm), _double(lm)
    found = {}

    for layer in range(len(blocks_of(lm))):
        inputs = inputs_of(pruned_lm if propagation == "sequential" else dense, ids_RT)
        for place, linear in linears_of(pruned_lm, layer).items():
            gram_II = gram(inputs[place], weights or equal_weights(ids_RT))
            found[place], _ = sparsegpt(matrix(linear), gram_II, pattern, sparsity, damping, block_size)
            put(linear, found[place])

    return found


def gram(input_RTI, weights) -> np.ndarray:
    """Return the sum of (w x)(w x)^T over all tokens x of weight w, (I, I)."""
    features = input_RTI.shape[-1]
    gram_II = np.zeros((features, features))
    for tokens, token_weights in zip(input_RTI, weights, strict=True):
        for token, w in zip(tokens, token_weights, strict=True):
            gram_II += np.outer(w * token, w * token)
    return gram_II


# token weights


def eager_masses(lm, ids_RT) -> list[list[float]]:
    """Return the official code's mass of every key, from transformers' own attention maps.

    It is summed over layers, heads and queries.
    """
    _, maps_RLHQK = eager(lm, ids_RT)
    return maps_RLHQK.double().sum((1, 2, 3)).tolist()


def official_out(masses: list[float], sink_std: float = 2.0, alpha: float = 5.0) -> list[float]:
    """Return the official code's soft sink mask of one state: sigmoid(alpha (m - (mean + sink_std std)))."""
    threshold = statistics.fmean(masses) + sink_std * statistics.pstdev(masses)
    shares = []
    for mass in masses:
        exponent = min(max(alpha * (mass - threshold), -700), 700)
        shares.append(1 / (1 + math.exp(-exponent)))
    return shares


# helpers


def _double(lm):
    twin = copy.copy(lm)
    object.__setattr__(twin, "model", copy.deepcopy(lm.model).double())
    return twin


def put(linear: nn.Module, weight_OI: np.ndarray) -> None:
    linear.weight.copy_(torch.from_numpy(weight_OI).to(linear.weight.dtype))


def zero(linear: nn.Module, places: Places) -> None:
    weight_OI = matrix(linear)
    for row, column in places:
        weight_OI[row, column] = 0.0
    put(linear, weight_OI)
