"""Samplers: the settings by which a diffusion model turns masks into text, and those of published models."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from sinkprune_core.diffusion.noise import even_split
from sinkprune_core.values import (
    AtLeastZero,
    Count,
    PositiveShare,
    Temperature,
    check_fields,
    share_of,
)

LAST_TIME = 1e-3  # of the time grid from 1 on, as in Dream's sampler: its last step reveals what is left
Order = Literal["low_confidence", "entropy", "random"]
Schedule = Literal["even", "time"]
Proposal = Literal["gumbel", "filtered"]


@dataclass(frozen=True)
class Sampler:
    """How a diffusion model turns masks into text.

    Raises ValueError for a setting that cannot work, and says which.

    Differences from the published samplers: the mask is never proposed; entropies lack Dream's 1e-10; Dream's
    counts per step are truncated in float32, here in float64.
    """

    length: Count = 96
    """Tokens to write."""

    steps: Count = 48
    """Denoising steps, shared evenly by the blocks."""

    block: Count | None = 32
    """Tokens per block; blocks are written left to right. None is one block."""

    order: Order = "low_confidence"
    """Which masked position is revealed first.

    `low_confidence` takes the most probable proposal; `entropy` the distribution of lowest entropy; `random`
    any.
    """

    schedule: Schedule = "even"
    """How many positions a step reveals.

    `even` splits each block's masks evenly over its steps (LLaDA); `time` reveals the share 1 - s/t of the
    remaining masks on a linear time grid (Dream).
    """

    temperature: Temperature = 0.0
    """Of the proposed tokens; 0 is greedy."""

    proposal: Proposal = "gumbel"
    """Where a token comes from.

    `gumbel` (LLaDA): Gumbel noise in float64 on the logits, confidence from the model's own softmax.
    `filtered` (Dream): temperature, then `top_p`, then `top_k` shape one distribution, in float64, which
    gives the token and its confidence.
    """

    top_p: PositiveShare | None = None
    """Keep the most probable tokens up to this total probability; None keeps all. Needs `filtered`."""

    top_k: Count | None = None
    """Keep this many of the most probable tokens; None keeps all. Needs `filtered`."""

    guidance: AtLeastZero = 0.0
    """Classifier-free guidance w: logits become un + (w + 1) (cond - un), where `un` has masks for a prompt.

    Above 0 it doubles the work.
    """

    def __post_init__(self):
        check_fields(self)
        self._check_filters()
        self._check_blocks()

    def _check_filters(self) -> None:
        is_filtering = self.top_p is not None or self.top_k is not None
        if self.proposal == "gumbel" and is_filtering:
            raise ValueError(
                f"top_p={self.top_p} and top_k={self.top_k} need proposal='filtered': "
                "Gumbel noise reaches every token"
            )

    def _check_blocks(self) -> None:
        if self.length % self.block_length:
            raise ValueError(f"length={self.length} is not a multiple of block={self.block}")
        if self.steps % self.blocks:
            raise ValueError(
                f"steps={self.steps} cannot be shared by {self.blocks} blocks: "
                f"use a multiple of {self.blocks}"
            )

        if self.schedule == "even" and self.steps_per_block > self.block_length:
            raise ValueError(f"steps={self.steps} exceed the {self.length} tokens to reveal")

    @property
    def block_length(self) -> int:
        """Tokens per block."""
        return self.length if self.block is None else self.block

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.length // self.block_length

    @property
    def steps_per_block(self) -> int:
        """Denoising steps per block."""
        return self.steps // self.blocks

    def _shares(self) -> list[float]:
        """Return the share 1 - s/t of a block's masks that schedule `time` reveals, per step of the block."""
        time = torch.linspace(1, LAST_TIME, self.steps_per_block + 1, dtype=torch.float64)
        shares = [(1 - s / t).item() for t, s in pairwise(time[:-1])]
        return [*shares, 1.0]  # the last step reveals what is left

    def reveals(self) -> list[int]:
        """Return how many tokens every step reveals; they sum to `length`."""
        if self.schedule == "even":
            return even_split(self.block_length, self.steps_per_block) * self.blocks

        counts = []
        left = self.block_length

        for share in self._shares():
            count = share_of(left, share)
            counts.append(count)
            left -= count

        return counts * self.blocks


# This project's own: 96 tokens in 48 steps, in the manner of either model.
LLADA_SAMPLER = Sampler(block=32, order="low_confidence", schedule="even")
DREAM_SAMPLER = Sampler(block=None, order="entropy", schedule="time")
