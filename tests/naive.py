"""Pruning as the formulas say it, by lists and loops in float64: what the engine is compared with. It shares no code with it.

Dimensions: R calibration rows, T position, O output features, I input features.
"""

import copy
import math
import statistics

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Places = set[tuple[int, int]]  # pruned (row, column) of a linear


def linears_of(lm) -> dict[tuple[int, str], nn.Module]:
    """Return every linear of the blocks by layer and name."""
    blocks = lm.model.transformer.h if hasattr(lm.model, "transformer") else lm.model.model.layers
    return {
        (layer, name): module
        for layer, block in enumerate(blocks)
        for name, module in block.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }


def matrix(linear: nn.Module) -> np.ndarray:
    """Return the weight as float64 (O, I), copied."""
    weight = linear.weight.detach().double().numpy().copy()
    return weight.T.copy() if isinstance(linear, Conv1D) else weight


def zeros_of(lm) -> dict[tuple[int, str], Places]:
    return {
        place: {(int(row), int(column)) for row, column in zip(*np.nonzero(matrix(linear) == 0), strict=True)}
        for place, linear in linears_of(lm).items()
    }


def weights_of(lm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# inputs


def inputs_of(lm, ids_RT) -> dict[tuple[int, str], np.ndarray]:
    """Return what every linear receives in a full forward, (R, T, I)."""
    seen, handles = {}, []
    for place, linear in linears_of(lm).items():
        handles.append(
            linear.register_forward_pre_hook(
                lambda module, args, place=place: seen.__setitem__(place, args[0].double().numpy())
            )
        )
    lm.model.base_model(ids_RT, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def column_norms(input_RTI, weights, norm_reduction: str) -> list[float]:
    """Return the norm of every column of the weighted inputs: the root of all squares, or the sum of one norm per row."""
    per_row = []
    for rows, ws in zip(input_RTI.tolist(), weights, strict=True):
        sums = [0.0] * len(rows[0])
        for token, w in zip(rows, ws, strict=True):
            sums = [total + (w * value) ** 2 for total, value in zip(sums, token, strict=True)]
        per_row.append(sums)
    columns = list(zip(*per_row, strict=True))
    return [
        math.sqrt(sum(column)) if norm_reduction == "root" else sum(math.sqrt(value) for value in column)
        for column in columns
    ]


# which weights


def lowest(scores: list[float], count: int) -> list[int]:
    """Return the places of the lowest scores, ties by lowest place."""
    return sorted(range(len(scores)), key=lambda place: (scores[place], place))[:count]


def choose(scores, pattern: str, sparsity: float, first: int = 0) -> Places:
    """Return the pruned places of columns `first` … of one linear, (O, P) scores; counts of column pieces are differences of whole counts."""
    rows, last = len(scores), first + len(scores[0])
    if ":" in pattern:
        zeros, group = map(int, pattern.split(":"))
        return {
            (row, start + at)
            for row in range(rows)
            for start in range(0, last - first, group)
            for at in lowest(scores[row][start : start + group], zeros)
        }
    if pattern == "row":
        count = math.floor(last * sparsity) - math.floor(first * sparsity)
        return {(row, column) for row in range(rows) for column in lowest(scores[row], count)}
    count = math.floor(rows * last * sparsity) - math.floor(rows * first * sparsity)
    return {
        divmod(place, last - first) for place in lowest([value for row in scores for value in row], count)
    }


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
    """Return the places that magnitude or Wanda prunes; `weights` holds one number per row and token, `sparsity` may be a list by layer."""
    dense = _double(lm)
    work, pruned, kept_scores = _double(lm), {}, {}
    layers = 1 + max(layer for layer, _ in linears_of(lm))
    sparsities = sparsity if isinstance(sparsity, list) else [sparsity] * layers
    for layer in range(layers):
        inputs = (
            inputs_of(work if propagation == "sequential" else dense, ids_RT) if criterion == "wanda" else {}
        )
        for (at, name), linear in linears_of(work).items():
            if at != layer:
                continue
            norms = (
                column_norms(
                    inputs[at, name], weights or [[1.0] * ids_RT.shape[1]] * len(ids_RT), norm_reduction
                )
                if inputs
                else [1.0] * matrix(linear).shape[1]
            )
            scores = [
                [abs(value) * scale for value, scale in zip(row, norms, strict=True)]
                for row in matrix(linear).tolist()
            ]
            kept_scores[at, name] = scores
            if pattern != "global":
                pruned[at, name] = choose(scores, pattern, sparsities[layer])
                zero(linear, pruned[at, name])
    return pruned if pattern != "global" else choose_globally(kept_scores, sparsity)


def choose_globally(scores: dict, sparsity: float) -> dict[tuple[int, str], Places]:
    flat = [
        (value, order, place, row, column)
        for order, (place, rows) in enumerate(scores.items())
        for row, values in enumerate(rows)
        for column, value in enumerate(values)
    ]
    ranked = sorted(flat, key=lambda entry: (entry[0], entry[1], entry[3], entry[4]))[
        : math.floor(len(flat) * sparsity)
    ]
    return {place: {(row, column) for _, _, at, row, column in ranked if at == place} for place in scores}


def outlier_sparsities(lm, sparsity: float, ids_RT, times: float, owl_lambda: float) -> list[float]:
    """Return OWL's sparsity of every layer: layers with more Wanda scores above `times` their mean keep more."""
    inputs, shares = inputs_of(_double(lm), ids_RT), []
    for layer in range(1 + max(layer for layer, _ in linears_of(lm))):
        scores = []
        for (at, name), linear in linears_of(lm).items():
            if at == layer:
                norms = column_norms(inputs[at, name], [[1.0] * ids_RT.shape[1]] * len(ids_RT), "root")
                scores += [
                    abs(value) * scale
                    for row in matrix(linear).tolist()
                    for value, scale in zip(row, norms, strict=True)
                ]
        border = times * statistics.fmean(scores)
        shares.append(sum(score > border for score in scores) / len(scores))
    kept = [(share - min(shares)) / (max(shares) - min(shares)) * 2 * owl_lambda for share in shares]
    return [sparsity - value + statistics.fmean(kept) for value in kept]


# SparseGPT


def sparsegpt(
    weight_OI, gram_II, pattern: str, sparsity: float, damping: float = 0.01, block_size: int = 128
) -> tuple[np.ndarray, Places]:
    """Return new weights and pruned places of SparseGPT's Algorithm 1, column by column.

    No Cholesky factor: the inverse of the damped Gram matrix loses one column after the other by elimination, as in the
    derivation of optimal brain surgery (the paper's Eq. 4 and 5).
    """
    weight_OI, gram_II = weight_OI.astype(np.float64).copy(), gram_II.astype(np.float64).copy()
    rows, columns = weight_OI.shape
    dead = [column for column in range(columns) if gram_II[column, column] == 0]
    for column in dead:
        gram_II[column, column] = 1.0
    gram_II += damping * np.mean(np.diag(gram_II)) * np.eye(columns)
    inverse_II, steps = np.linalg.inv(gram_II), []
    for column in range(columns):
        steps.append(inverse_II[column].copy())
        inverse_II -= np.outer(inverse_II[:, column], inverse_II[column]) / inverse_II[column, column]
    step = int(pattern.split(":")[1]) if ":" in pattern else block_size
    pruned: Places = set()
    for column in range(columns):
        if column % step == 0:
            part = range(column, min(column + step, columns))
            scores = [
                [-1.0 if at in dead else weight_OI[row, at] ** 2 / steps[at][at] for at in part]
                for row in range(rows)
            ]
            pruned |= {(row, column + at) for row, at in choose(scores, pattern, sparsity, column)}
        for row in range(rows):
            if (row, column) in pruned:
                weight_OI[row, column:] -= (
                    weight_OI[row, column] / steps[column][column] * steps[column][column:]
                )
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
    dense, work, found = _double(lm), _double(lm), {}
    for layer in range(1 + max(layer for layer, _ in linears_of(lm))):
        inputs = inputs_of(work if propagation == "sequential" else dense, ids_RT)
        for (at, name), linear in linears_of(work).items():
            if at != layer:
                continue
            tokens = inputs[at, name].reshape(-1, inputs[at, name].shape[-1])
            gram_II = np.zeros((tokens.shape[1], tokens.shape[1]))
            for token, w in zip(
                tokens,
                [1.0] * len(tokens) if weights is None else [w for row in weights for w in row],
                strict=True,
            ):
                gram_II += np.outer(w * token, w * token)
            found[at, name], _ = sparsegpt(matrix(linear), gram_II, pattern, sparsity, damping, block_size)
            put(linear, found[at, name])
    return found


# token weights


def eager_masses(lm, ids_RT) -> list[list[float]]:
    """Return the official code's mass of every key, summed over layers, heads and queries, from transformers' own attention maps."""
    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    found = []
    for ids_T in ids_RT:
        maps = lm.model.base_model(ids_T[None], use_cache=False, output_attentions=True).attentions
        found.append(
            [sum(float(each[0, :, :, key].double().sum()) for each in maps) for key in range(len(ids_T))]
        )
    lm.model.set_attn_implementation(former)
    return found


def official_out(masses: list[float], sink_std: float = 2.0, alpha: float = 5.0) -> list[float]:
    """Return the official code's soft sink mask of one state: sigmoid(alpha (m - (mean + sink_std std)))."""
    border = statistics.fmean(masses) + sink_std * statistics.pstdev(masses)
    return [1 / (1 + math.exp(-min(max(alpha * (mass - border), -700), 700))) for mass in masses]


# helpers


def _double(lm):
    twin = copy.copy(lm)
    object.__setattr__(twin, "model", copy.deepcopy(lm.model).double())
    return twin


def put(linear: nn.Module, weight_OI: np.ndarray) -> None:
    value = torch.from_numpy(weight_OI).to(linear.weight.dtype)
    linear.weight.copy_(value.T if isinstance(linear, Conv1D) else value)


def zero(linear: nn.Module, places: Places) -> None:
    weight_OI = matrix(linear)
    for row, column in places:
        weight_OI[row, column] = 0.0
    put(linear, weight_OI)
