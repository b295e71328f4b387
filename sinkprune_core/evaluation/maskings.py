"""How the endings of a two-choice item are masked: every way once, or a stratified draw on common random
numbers.

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
    """Return which tokens of each ending are masked, bool (S, L) each: the same where the endings agree.

    The number of masks is uniform on 1 … L and stratified over the draws. Tokens that both endings start or
    end with share their random numbers, and so do noise levels.
    """
    shortest, longest = sorted(len(ending) for ending in endings)
    first, second = (ending.flip(0)[:shortest] for ending in endings)
    common_end = int((first == second).long().cumprod(0).sum())  # tokens that both endings end with
    state = rng.get_state()
    counts = []
    for ending in endings:
        rng.set_state(state)
        counts.append(stratified_counts(draws, len(ending), rng))
    rank_SL = torch.rand(draws, longest, generator=rng, dtype=torch.float64)
    masks = []
    for ending, counts_S in zip(endings, counts, strict=True):
        start_SL = rank_SL[:, : len(ending) - common_end]
        end_SL = rank_SL[:, longest - common_end :]
        order_SL = torch.cat([start_SL, end_SL], dim=1).argsort(1).argsort(1)
        masks.append(order_SL < counts_S[:, None])
    return masks
