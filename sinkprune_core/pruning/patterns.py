"""From scores to masks with exact counts, and from one sparsity to one per layer.

`select` says which weights of one linear are pruned, `GlobalThreshold` compares those of all linears, and
`allocate` gives every layer its sparsity. Ties are pruned by lowest index first, everywhere.

Dimensions: O output features (rows), C those with a choice between ties, I input features (columns), P
consecutive columns of a linear, G groups of M columns, L layers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from sinkprune_core.values import share_of

PATTERNS = ("row", "layer", "global", "structured")  # and N:M, e.g. 2:4
RANKED = 1 << 20  # scores that are ranked together: what a processor's cache holds
LARGEST_IN_PAIRS = 8  # columns of a group up to which comparing all pairs is faster than a partition

Select = Callable[[torch.Tensor, int, int], torch.Tensor]
"""From the scores (O, P) of columns, the first of them and the one after the last to a mask, bool (O, P)."""


def n_and_m(pattern: str) -> tuple[int, int] | None:
    """Return (N, M) of a pattern such as `2:4`, N zeros in every M consecutive inputs; None for another one.

    Raises ValueError unless 1 <= N < M.
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    if not found:
        return None

    zeros, group = int(found[1]), int(found[2])
    if not 1 <= zeros < group:
        raise ValueError(
            f"pattern={pattern!r} must have 1 <= N < M: N of every M consecutive inputs become zero"
        )

    return zeros, group


# one linear


def select(pattern: str, sparsity: float, threshold: "GlobalThreshold | None" = None) -> Select:
    """Return the function that chooses what to prune in one linear, all columns at once or block by block.

    `row` prunes floor(I x sparsity) weights of every row, `layer` floor(O x I x sparsity) of the linear, N:M
    as many as it says of every group. With a `threshold`, what lies below it is pruned.
    """
    if threshold is not None:
        return lambda score_OP, first, last: threshold.take(score_OP)

    ratio = n_and_m(pattern)
    if ratio is not None:
        return lambda score_OP, first, last: n_of_m(score_OP, *ratio)
    if pattern == "row":
        return partial(_of_rows, sparsity)
    return partial(_of_layer, sparsity)


def _of_rows(sparsity: float, score_OP: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Choose in every row on its own; the counts of blocks of columns add up to that of the row."""
    count = share_of(last, sparsity) - share_of(first, sparsity)
    return lowest(score_OP, count)


def _of_layer(sparsity: float, score_OP: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Choose in all rows together; the counts of blocks of columns add up to that of the linear."""
    rows = len(score_OP)
    count = share_of(rows * last, sparsity) - share_of(rows * first, sparsity)
    return lowest(score_OP.reshape(1, -1), count).view(score_OP.shape)


def lowest(score_OP: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mask of the `count` lowest scores of every row, bool (O, P).

    Selection is by the k-th smallest value of each row instead of a full sort; ties are taken from the left.
    """
    if count == 0:
        return torch.zeros_like(score_OP, dtype=torch.bool)

    largest_O1 = _kth_smallest(score_OP, count)
    within_OP = score_OP <= largest_O1
    if int(torch.count_nonzero(within_OP)) == count * len(score_OP):
        return within_OP

    has_choice_O = within_OP.sum(1) > count  # between ties
    rows_C = has_choice_O.nonzero().flatten()
    score_CP = score_OP[rows_C]
    largest_C1 = largest_O1[rows_C]
    below_CP = score_CP < largest_C1
    tied_CP = score_CP == largest_C1
    wanted_C1 = count - below_CP.sum(1, keepdim=True)
    within_OP[rows_C] = below_CP | (tied_CP & (tied_CP.cumsum(1, dtype=torch.int32) <= wanted_C1))

    return within_OP


def _kth_smallest(score_OP: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k-th smallest value of every row, (O, 1)."""
    is_numpys = score_OP.is_cpu and score_OP.dtype == torch.float32
    if not is_numpys:
        return score_OP.kthvalue(k, dim=1, keepdim=True).values

    # NumPy is two to three times as fast; it takes a copy, so only of some rows at once
    rows_together = max(1, RANKED // score_OP.shape[1])
    found = []
    for part_OP in score_OP.detach().split(rows_together):
        ordered_OP = np.partition(part_OP.numpy(), k - 1, axis=1)
        found.append(ordered_OP[:, k - 1 : k])

    return torch.from_numpy(np.concatenate(found))


def n_of_m(score_OP: torch.Tensor, zeros: int, group: int) -> torch.Tensor:
    """Return the mask of the `zeros` lowest scores in every `group` consecutive columns, bool (O, P).

    P is a multiple of `group`.
    """
    groups_of_rows = score_OP.unflatten(1, (-1, group))  # a group never reaches into the next row
    score_GM = groups_of_rows.flatten(0, 1)

    choose = _lowest_by_pairs if group <= LARGEST_IN_PAIRS else lowest
    return choose(score_GM, zeros).view(score_OP.shape)


def _lowest_by_pairs(score_GM: torch.Tensor, count: int) -> torch.Tensor:
    """Return what `lowest` returns, bool (G, M), for the small groups that hardware knows.

    It compares all pairs of a group's columns, which takes a sixth of the time for groups of four.
    """
    pruned_GM = torch.empty_like(score_GM, dtype=torch.uint8)
    groups_together = max(1, RANKED // score_GM.shape[1])

    parts = zip(score_GM.split(groups_together), pruned_GM.split(groups_together), strict=True)
    for part_GM, mask_GM in parts:
        pruned_MG = _ranks(part_GM).lt_(count)  # in place and byte by byte: faster than a transposed copy
        for pruned_G, mask_G in zip(pruned_MG, mask_GM.unbind(1), strict=True):
            mask_G.copy_(pruned_G)

    return pruned_GM.view(torch.bool)


def _ranks(score_GM: torch.Tensor) -> torch.Tensor:
    """Return the rank of every score in its group, 0 for the lowest, uint8 (M, G).

    Of equal scores the left is lower.
    """
    groups, group = score_GM.shape
    rank_M1 = torch.arange(group, dtype=torch.uint8, device=score_GM.device)[:, None]
    rank_MG = rank_M1.repeat(1, groups)
    columns = score_GM.unbind(1)

    for right in range(1, group):
        for left in range(right):
            right_is_lower_G = (columns[right] < columns[left]).view(torch.uint8)
            rank_MG[left] += right_is_lower_G
            rank_MG[right] -= right_is_lower_G

    return rank_MG


# all linears


class GlobalThreshold:
    """The one score that separates pruned from kept weights of a whole model.

    Found exactly in two passes over the scores, by histograms of the upper and the lower half of their
    float32 bits, which order non-negative numbers. No pass holds more than the scores of one linear.
    """

    def __init__(self, value: float, ties: int):
        self.value = torch.tensor(value, dtype=torch.float32)
        self.ties = ties
        """How many of the scores that equal `value` are still to be pruned."""

    @classmethod
    def of(cls, scores: Callable[[], Iterable[torch.Tensor]], sparsity: float) -> "GlobalThreshold":
        """Find the threshold that prunes a share `sparsity` of all scores."""
        upper = _histogram(bits >> 16 for bits in _bits_of(scores()))
        count = share_of(int(upper.sum()), sparsity)
        high, below_high = _bin_of(upper, count)
        lower = _histogram(bits[bits >> 16 == high] & 0xFFFF for bits in _bits_of(scores()))
        low, below_low = _bin_of(lower, count - below_high)
        value = torch.tensor((high << 16) + low, dtype=torch.int32).view(torch.float32)

        return cls(float(value), count - below_high - below_low)

    def take(self, score_OI: torch.Tensor) -> torch.Tensor:
        """Return the mask of a linear, or of some rows of it, bool (O, I).

        Call it once for every row of every linear, in order: ties are counted down.
        """
        value = self.value.to(score_OI.device)
        tied = (score_OI == value).flatten()
        pruned_ties = tied & (tied.cumsum(0) <= self.ties)
        self.ties -= int(pruned_ties.sum())
        return (score_OI < value) | pruned_ties.view(score_OI.shape)


def _bits_of(scores: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the float32 bits of every linear's scores as int32, flat, on the CPU."""
    for score_OI in scores:
        flat = score_OI.float().flatten().contiguous().cpu() + 0.0  # the sum has no negative zero
        yield flat.view(torch.int32)


def _histogram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return how often each of the numbers 0 … 65535 occurs in all parts together."""
    total = torch.zeros(1 << 16, dtype=torch.long)
    for part in parts:
        total += torch.bincount(part.long(), minlength=1 << 16)
    return total


def _bin_of(histogram: torch.Tensor, count: int) -> tuple[int, int]:
    """Return the first bin whose running total reaches `count`, and the total before it."""
    running = histogram.cumsum(0)
    place = int(torch.searchsorted(running, max(count, 1)))
    return place, int(running[place] - histogram[place])


# layers


def allocate(
    allocation: str,
    sparsity: float,
    layers: int,
    owl_lambda: float,
    outliers_L: Sequence[float] = (),
) -> list[float]:
    """Return the sparsity of every layer, in [0, 1); their mean is `sparsity`.

    `uniform`: the same for all. `owl`: as `outliers_L`, the outlier shares of the layers, say (Yin et al.
    2024; here with a smaller `owl_lambda` where a layer could leave [0, 1)).
    """
    if allocation == "uniform":
        return [sparsity] * layers

    shift_L = _owl_shifts(outliers_L, min(owl_lambda, sparsity / 2, (1 - sparsity) / 2))
    return (sparsity + shift_L).tolist()


def _owl_shifts(outliers_L: Sequence[float], owl_lambda: float) -> torch.Tensor:
    """Return how far each layer's sparsity lies from the mean: layers with more outliers keep more.

    Layers lie within twice `owl_lambda` of each other.
    """
    share_L = torch.tensor(outliers_L, dtype=torch.float64)
    width = share_L.max() - share_L.min()
    if width == 0:
        return torch.zeros_like(share_L)

    kept_L = (share_L - share_L.min()) / width * 2 * owl_lambda
    return kept_L.mean() - kept_L


def outlier_share(scores: Iterable[torch.Tensor], owl_m: float) -> float:
    """Return the share of a layer's scores above `owl_m` times their mean, over all its linears (OWL)."""
    flat = torch.cat([score_OI.flatten() for score_OI in scores])
    return int(torch.count_nonzero(flat > owl_m * flat.mean())) / len(flat)
