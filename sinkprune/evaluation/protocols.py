"""Published ways to estimate what a text costs a diffusion model, as one table: noise, guidance and windows;
and published ways to write.

All of them estimate the same bound. Revealing the L tokens of a target in random order, one at a time,
costs -log p(target | prompt) at most; the cross entropies at one random mask, weighted, are unbiased for it.

Dimensions: T tokens of a text, L tokens of a target.
"""

from dataclasses import dataclass

import torch

from sinkprune_core.diffusion.noise import random_mask, shifted_grid, stratified_counts
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.values import AtLeastZero, Count, Flag, check_choice, check_fields

MASKINGS = ("count", "bernoulli")
LEAST_NOISE = 1e-3  # Dream's least noise level

Masking = tuple[torch.Tensor, float]  # a mask, bool (L,), and the weight of its cross entropies


@dataclass(frozen=True)
class Protocol:
    """How the cost of a target given its prompt is estimated.

    Raises ValueError for fields that do not fit one another.
    """

    masking: str = "count"
    """`count` masks k of L tokens, k uniform on 1 … L, and weighs the cross entropies by L / k.

    `bernoulli` masks each token with probability p = 0.999 t + 0.001, t uniform, and weighs them by 1 / p.
    """
    draws: Count = 128
    """Number of masks per target."""
    grid: Count = 8
    """How many draws share one randomly shifted, even grid of noise levels; grids are independent.

    With 1 every draw is independent.
    """
    guidance: AtLeastZero = 0.0
    """Guidance w of logits un + (w + 1) (cond - un), where `un` is what a prompt of masks gives."""
    visible_end: Flag = False
    """Whether an end-of-text token follows the target, never masked and never scored."""
    chunk: Count | None = None
    """Tokens of each stretch in which a running text is scored; None: for prompts and targets only."""
    context: Count | None = None
    """Most tokens before a stretch that the model is given with it; None where `chunk` is None."""

    def __post_init__(self):
        check_choice("masking", self.masking, MASKINGS)
        check_fields(self)

        if self.draws % self.grid:
            raise ValueError(
                f"draws={self.draws} is not a multiple of grid={self.grid}, the draws that share a grid of "
                "noise levels: change one of them"
            )

        if (self.chunk is None) != (self.context is None):
            raise ValueError(
                f"chunk={self.chunk} and context={self.context} must both be numbers, or both be None"
            )

    def noise(self, length: int, rng: torch.Generator) -> list[Masking]:
        """Return one mask, bool (L,), and the weight of its cross entropies per draw.

        A target of one token has only one mask, so a single draw is exact.
        """
        if length == 1:
            return [(torch.ones(1, dtype=torch.bool), 1.0)]

        every_L = torch.ones(length, dtype=torch.bool)
        drawn = []
        for _ in range(self.draws // self.grid):
            if self.masking == "count":
                counts = stratified_counts(self.grid, length, rng).tolist()
                drawn += [(random_mask(every_L, count, rng), length / count) for count in counts]
            else:
                drawn += self._bernoulli_masks(length, rng)

        return drawn

    def _bernoulli_masks(self, length: int, rng: torch.Generator) -> list[Masking]:
        """Return the masks of one grid; in each, tokens are masked independently with one probability."""
        levels = (1 - LEAST_NOISE) * shifted_grid(self.grid, rng) + LEAST_NOISE
        return [
            (torch.rand(length, generator=rng, dtype=torch.float64) < level, 1 / level)
            for level in levels.tolist()
        ]

    def windows(self, ids_T: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the (context, chunk) pairs of a running text, int64 (T,).

        As in ppl_llada.py the first chunk and the end are not scored. Raises ValueError for a protocol
        without chunks and for a text too short for one.
        """
        if self.chunk is None:
            raise ValueError(
                "this protocol scores a target given a prompt: take one with chunk and context for a running "
                "text, such as 'ppl_llada'"
            )

        starts = range(self.chunk, len(ids_T) - self.chunk, self.chunk)
        if not starts:
            raise ValueError(
                f"a text of {len(ids_T)} tokens is too short: scoring chunks of {self.chunk} takes more than "
                f"{2 * self.chunk}"
            )

        context = self.context or 0
        pairs = []
        for start in starts:
            context_T = ids_T[max(0, start - context) : start]
            pairs.append((context_T, ids_T[start : start + self.chunk]))

        return pairs


# Where our estimate differs from the code it is named after, the published one is biased:
# - llada (eval_llada.py, arXiv 2502.09992): it rounds half to even, so with 8 draws and L = 4 mod 8 three
#   quarters of its counts are even. Ours are uniform.
# - dream (eval/eval.py of DreamLM/Dream, log_type ftb, nll_type mc): levels end at 0.001, there and here; the
#   cost above is integrated over 99.9 % of the noise levels. A target of one token is drawn at random there,
#   exact here.
# - ppl_llada (seed 2025, WikiText-2 raw test, non-blank lines joined by a newline), main_llada and main_dream
#   (seed 0, of its first 128 lines), of the sink-aware pruning code. main_dream there never masks a chunk's
#   last token and yet counts it, and leaves out draws without a mask; ours masks every token and counts such
#   draws as 0.
# The published grid is the batch of the forward pass; here a batch changes nothing.
PROTOCOLS: dict[str, Protocol] = {
    "llada": Protocol("count", draws=128, grid=8),
    "dream": Protocol("bernoulli", draws=128, grid=32, visible_end=True),
    "ppl_llada": Protocol("count", draws=128, grid=1, chunk=64, context=960),
    "main_llada": Protocol("count", draws=8, grid=1, chunk=64, context=960),
    "main_dream": Protocol("bernoulli", draws=8, grid=1, chunk=64, context=960),
}

# LLaDA's generate.py; Dream's README (steps = tokens, entropy, 0.2, 0.95).
SAMPLERS: dict[str, Sampler] = {
    "llada": Sampler(length=128, steps=128, block=None, order="low_confidence", schedule="even"),
    "dream": Sampler(
        length=512,
        steps=512,
        block=None,
        order="entropy",
        schedule="time",
        temperature=0.2,
        proposal="filtered",
        top_p=0.95,
    ),
}


def protocol(name: str | Protocol) -> Protocol:
    """Return a protocol of the table by name, or the one given; raise ValueError for an unknown name."""
    if isinstance(name, Protocol):
        return name
    check_choice("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
