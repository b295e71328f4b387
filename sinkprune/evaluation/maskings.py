"""How the endings of a two-choice item are masked: every way once, or by stratified common random numbers.

Dimensions: L tokens of an ending, M distinct maskings, S draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sinkprune_core.diffusion.noise import stratified_counts


@dataclass(frozen=True)
class Maskings:
    """The distinct ways in which an ending is masked.

    The mean of any quantity over maskings is its sum with the weights `share_M`.
    """

    mask_ML: torch.Tensor
    """Which tokens are masked, bool (M, L)."""
    share_M: torch.Tensor
    """Weight of each masking, float64 (M,); they sum to 1."""
    masking_S: torch.Tensor | None = None
    """The masking of every draw, int64 (S,); None where nothing was drawn, and the mean is exact."""


def whole(length: int) -> Maskings:
    """Return the one masking that has every token of an ending."""
    return Maskings(torch.ones(1, length, dtype=torch.bool), torch.ones(1, dtype=torch.float64))


def maskings(endings: Sequence[torch.Tensor], draws: int, rng: torch.Generator) -> list[Maskings]:
    """Return the maskings of each ending, int64 (L,), on common random numbers.

    The number of masks is uniform on 1 … L, and so is the choice of so many tokens. An ending that can be
    masked in no more than `draws` ways is masked in all of them. Others are drawn, see `drawn_masks`.
    """
    found = []
    for masks_SL in drawn_masks(endings, draws, rng):
        length = masks_SL.shape[1]
        if 2**length - 1 <= draws:
            found.append(_every_masking(length))
            continue
        mask_ML, masking_S, times_M = masks_SL.unique(dim=0, return_inverse=True, return_counts=True)
        found.append(Maskings(mask_ML, times_M.double() / draws, masking_S))

    return found


def _every_masking(length: int) -> Maskings:
    """Return all maskings of an ending; those with k masks share a weight of 1 / length."""
    number_M1 = torch.arange(1, 2**length)[:, None]
    mask_ML = (number_M1 >> torch.arange(length)) % 2 == 1
    shares = [1 / (length * math.comb(length, count)) for count in mask_ML.sum(1).tolist()]
    return Maskings(mask_ML, torch.tensor(shares, dtype=torch.float64))


def drawn_masks(endings: Sequence[torch.Tensor], draws: int, rng: torch.Generator) -> list[torch.Tensor]:
    """Return which tokens of each ending are masked, bool (S, L) each, on common random numbers.

    The number of masks is uniform on 1 … L and stratified over the draws, and given that number so is the
    choice of tokens. Tokens are in a random order on a circle, and a draw masks those of an arc that begins
    where the arc before it ended: over all draws every token is masked about equally often, which leaves much
    less to chance than independent choices. Endings share their noise levels, and those of one length share
    their masks.
    """
    state = rng.get_state()
    counts = []
    for ending in endings:
        rng.set_state(state)
        counts.append(stratified_counts(draws, len(ending), rng))

    place_L = torch.rand(max(map(len, endings)), generator=rng, dtype=torch.float64)
    masks = []
    for ending, counts_S in zip(endings, counts, strict=True):
        length = len(ending)
        order_L = place_L[:length].argsort().argsort()
        arc_start_S1 = (counts_S.cumsum(0) - counts_S)[:, None]
        masks.append((order_L - arc_start_S1) % length < counts_S[:, None])

    return masks
