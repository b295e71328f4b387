"""From scores to pruned weights, with exact counts. Ties are pruned by lowest index first.

Dimensions: O output features (rows), I input features (columns).
"""

from collections.abc import Callable

import torch


def rowwise(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the mask of pruned weights, bool (O, I): exactly floor(I * sparsity) per row, the lowest scores.

    Selection is by the k-th smallest value of each row instead of a full sort; equal values at the border are taken
    from the left.
    """
    count = int(score_OI.shape[1] * sparsity)
    if count == 0:
        return torch.zeros_like(score_OI, dtype=torch.bool)
    border_O1 = score_OI.kthvalue(count, dim=1, keepdim=True).values
    below_OI, at_OI = score_OI < border_O1, score_OI == border_O1
    wanted_O1 = count - below_OI.sum(1, keepdim=True)
    return below_OI | (at_OI & (at_OI.cumsum(1) <= wanted_O1))


PATTERNS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {"row": rowwise}
