"""What a model costs to keep and to write with: bytes of weights, seconds per text."""

import statistics
import time
from dataclasses import dataclass

import torch

from sinkprune.models.semi_structured import has_kernels, is_two_of_four, semi_structured
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.language_model import LanguageModel

WRITTEN = 64  # tokens of the text that is timed
ROUNDS = 3  # of which the median counts


@dataclass(frozen=True)
class Savings:
    """What a diffusion model costs: `gigabytes` of its weights, and `seconds` in which it writes WRITTEN
    tokens in so many denoising `steps`; `kernel_seconds` on kernels for 2:4 zeros, None where there are none.
    """

    steps: int
    gigabytes: float
    seconds: float
    kernel_seconds: float | None


def savings(lm: LanguageModel, steps: int) -> Savings:
    """Return what a model costs; raise ValueError for more steps than WRITTEN tokens."""
    kernel_seconds = None
    if has_kernels(lm) and all(is_two_of_four(linear.weight) for linear in lm.all_linears().values()):
        with semi_structured(lm):
            kernel_seconds = writing_seconds(lm, steps)

    return Savings(steps, weight_bytes(lm) / 1e9, writing_seconds(lm, steps), kernel_seconds)


def weight_bytes(lm: LanguageModel) -> int:
    """Return the bytes that a model's parameters take, each counted once."""
    return sum(parameter.nbytes for parameter in lm.model.parameters())


def writing_seconds(lm: LanguageModel, steps: int) -> float:
    """Return the median seconds of ROUNDS in which a diffusion model writes WRITTEN tokens from nothing.

    A forward before them warms up. One token more is the prompt.
    """
    sampler = Sampler(WRITTEN, steps, block=None)
    prompt_1T = torch.zeros(1, 1, dtype=torch.long)
    generate(lm, prompt_1T, Sampler(WRITTEN, steps=1, block=None))

    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        generate(lm, prompt_1T, sampler)
        seconds.append(time.perf_counter() - begun)

    return statistics.median(seconds)
