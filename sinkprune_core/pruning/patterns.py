"""From scores to pruned weights, with exact counts, and from one sparsity to one per layer.

Ties are pruned by lowest index first, everywhere.

Dimensions: O output features (rows), I input features (columns), P columns of a piece of a linear, L layers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

PATTERNS = ("row", "layer", "global", "structured")  # and N:M, e.g. 2:4
ALLOCATIONS = ("uniform", "owl", "linear", "linear-reverse")
RANKED = 1 << 20  # scores that are ranked together: what a processor's cache holds
Select = Callable[
    [torch.Tensor, int, int], torch.Tensor
]  # scores (O, P) of columns first … last, first, last -> bool (O, P)


def n_and_m(pattern: str) -> tuple[int, int] | None:
    """Return (N, M) of a pattern such as `2:4`, N zeros in every M consecutive inputs; None for another pattern.

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


def lowest(score_OP: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mask of the `count` lowest scores of every row, bool (O, P).

    Selection is by the k-th smallest value of each row instead of a full sort; equal values at the border are taken
    from the left.
    """
    if count == 0:
        return torch.zeros_like(score_OP, dtype=torch.bool)
    if score_OP.is_cpu and score_OP.dtype == torch.float32:
        border_O1 = torch.from_numpy(
            np.partition(score_OP.detach().numpy(), count - 1, axis=1)[:, count - 1 : count]
        )  # two to three times as fast as kthvalue
    else:
        border_O1 = score_OP.kthvalue(count, dim=1, keepdim=True).values
    within_OP = score_OP <= border_O1
    if int(torch.count_nonzero(within_OP)) == count * len(score_OP):
        return within_OP  # no row has a tie at its border
    below_OP, at_OP = score_OP < border_O1, score_OP == border_O1
    wanted_O1 = count - below_OP.sum(1, keepdim=True)
    return below_OP | (at_OP & (at_OP.cumsum(1) <= wanted_O1))


def n_of_m(score_OP: torch.Tensor, zeros: int, group: int) -> torch.Tensor:
    """Return the mask of the `zeros` lowest scores in every `group` consecutive columns, bool (O, P).

    Ranks come from comparing pairs inside a group, which beats sorting for the small groups hardware knows.
    """
    score_GM = score_OP.reshape(-1, group)  # G groups
    pruned_GM = torch.empty_like(score_GM, dtype=torch.uint8)
    size = max(1, RANKED // group)
    for part_GM, mask_GM in zip(score_GM.split(size), pruned_GM.split(size), strict=True):
        columns = part_GM.unbind(1)
        rank_MG = torch.arange(
            group, dtype=torch.uint8 if group < 256 else torch.int32, device=score_OP.device
        )[:, None].repeat(1, len(part_GM))
        for right in range(1, group):
            for left in range(right):
                right_lower_G = (columns[right] < columns[left]).view(torch.uint8)
                rank_MG[left] += right_lower_G
                rank_MG[right] -= right_lower_G  # a tie leaves the left one first
        for low_G, mask_G in zip(
            rank_MG.lt_(zeros), mask_GM.unbind(1), strict=True
        ):  # in place and byte by byte: several times faster than a transposed copy
            mask_G.copy_(low_G)
    return pruned_GM.view(torch.bool).view(score_OP.shape)


def select(pattern: str, sparsity: float, border: "GlobalThreshold | None" = None) -> Select:
    """Return the function that chooses what to prune in one linear, whole or column piece by column piece.

    Counts of pieces are differences of whole counts, so that they add up: floor(I x sparsity) zeros in every row for
    `row`, floor(O x I x sparsity) in the linear for `layer`.
    """
    if border is not None:
        return lambda score_OP, first, last: border.take(score_OP)
    if ratio := n_and_m(pattern):
        return lambda score_OP, first, last: n_of_m(score_OP, *ratio)
    if pattern == "row":
        return lambda score_OP, first, last: lowest(score_OP, int(last * sparsity) - int(first * sparsity))

    def layerwise(score_OP: torch.Tensor, first: int, last: int) -> torch.Tensor:
        rows = len(score_OP)
        return lowest(
            score_OP.reshape(1, -1), int(rows * last * sparsity) - int(rows * first * sparsity)
        ).view(score_OP.shape)

    return layerwise


class GlobalThreshold:
    """The one score that separates pruned from kept weights of a whole model, and how many of its equals are pruned.

    Found exactly in two passes over the scores, by histograms of the upper and the lower half of their float32 bits,
    which order non-negative numbers; no pass holds more than one linear's scores.
    """

    def __init__(self, scores: Callable[[], Iterable[torch.Tensor]], sparsity: float):
        upper = self._histogram(score.view(torch.int32) >> 16 for score in self._flat(scores()))
        count = int(int(upper.sum()) * sparsity)
        high, below = self._bin(upper, count)
        lower = self._histogram(
            bits[bits >> 16 == high] & 0xFFFF
            for bits in (score.view(torch.int32) for score in self._flat(scores()))
        )
        low, below_low = self._bin(lower, count - below)
        self.value = torch.tensor((high << 16) + low, dtype=torch.int32).view(torch.float32)
        self.ties = count - below - below_low  # equal scores that are still to be pruned

    @staticmethod
    def _flat(scores: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        for score_OI in scores:
            yield score_OI.float().flatten().contiguous().cpu() + 0.0  # no negative zero

    @staticmethod
    def _histogram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(1 << 16, dtype=torch.long)
        for part in parts:
            total += torch.bincount(part.long(), minlength=1 << 16)
        return total

    @staticmethod
    def _bin(histogram: torch.Tensor, count: int) -> tuple[int, int]:
        """Return the first bin whose running total reaches `count`, and the total before it."""
        running = histogram.cumsum(0)
        place = int(torch.searchsorted(running, max(count, 1)))
        return place, int(running[place] - histogram[place])

    def take(self, score_OI: torch.Tensor) -> torch.Tensor:
        """Return the mask of one linear, bool (O, I); call it once per linear, in order: ties are counted down."""
        value = self.value.to(score_OI.device)
        below_OI, at = score_OI < value, (score_OI == value).flatten()
        taken = at & (at.cumsum(0) <= self.ties)
        self.ties -= int(taken.sum())
        return below_OI | taken.view(score_OI.shape)


def allocate(
    allocation: str,
    sparsity: float,
    layers: int,
    owl_lambda: float,
    outliers_L: Sequence[float] | None = None,
) -> list[float]:
    """Return the sparsity of every layer; their mean is `sparsity`.

    `linear`: from sparsity + owl_lambda in the first layer to sparsity - owl_lambda in the last (early layers of LLaDA are the
    most redundant, Layer Collapse, arXiv 2605.06366); `linear-reverse`: the other way round. `owl`: layers with a
    larger share of outlier scores keep more (Yin et al. 2024), within twice `owl_lambda` of each other. Raises ValueError
    where a layer would leave [0, 1).
    """
    if allocation == "uniform":
        return [sparsity] * layers
    if allocation == "owl":
        ratio_L = torch.tensor(outliers_L, dtype=torch.float64)
        width = ratio_L.max() - ratio_L.min()
        kept_L = (
            (ratio_L - ratio_L.min()) / width * 2 * owl_lambda if width > 0 else torch.zeros_like(ratio_L)
        )
        sparsity_L = sparsity - (kept_L - kept_L.mean())
    else:
        slope_L = (
            torch.linspace(1, -1, layers, dtype=torch.float64)
            if layers > 1
            else torch.zeros(1, dtype=torch.float64)
        )
        sparsity_L = sparsity + owl_lambda * (slope_L if allocation == "linear" else -slope_L)
    for layer, value in enumerate(sparsity_L.tolist()):
        if not 0 <= value < 1:
            raise ValueError(
                f"allocation={allocation!r} with owl_lambda={owl_lambda} asks for sparsity {value:.3f} in layer {layer}, outside [0, 1): use a smaller owl_lambda"
            )
    return sparsity_L.tolist()


def outlier_share(scores: Iterable[torch.Tensor], times: float) -> float:
    """Return the share of a block's scores above `times` their mean: OWL's layer-wise owl_m distribution."""
    flat = torch.cat([score_OI.flatten() for score_OI in scores])
    return float((flat > times * flat.mean()).double().mean())
