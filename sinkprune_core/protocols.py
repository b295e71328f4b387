"""Published ways to measure quality, as two tables: estimators of what a text costs a diffusion model, and benchmarks.

All estimators estimate the same bound. Revealing the L tokens of a target in random order, one at a time, costs
-log p(target | prompt) at most; the cross entropies at one random mask, suitably weighted, are unbiased for that cost.

Dimensions: T tokens of a text, L tokens of a target, S draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from .diffusion import random_mask, stratified_counts
from .models import LanguageModel

MASKINGS = ("count", "bernoulli")
FLOOR = 1e-3  # Dream's least noise level


@dataclass(frozen=True)
class Protocol:
    """How the cost of a target given its prompt is estimated.

    `masking`: `count` masks k of L tokens, k uniform on 1 … L, and weighs the cross entropies by L / k; `bernoulli`
    masks each token with probability p = 0.999 t + 0.001, t uniform, and weighs by 1 / p. `draws` masks per target;
    `grid` of them share one shifted even grid of noise levels, and the grids are independent (1: every draw is).
    `guidance` w reads logits as un + (w + 1) (cond - un), where `un` has seen masks for a prompt. `visible_end`: an
    end-of-text token follows the target, never masked and never scored. A running text is scored in stretches of
    `chunk` tokens, each given up to `context` tokens before it; None: the protocol is for prompts and targets only.
    """

    masking: str = "count"
    draws: int = 128
    grid: int = 8
    guidance: float = 0.0
    visible_end: bool = False
    chunk: int | None = None
    context: int | None = None

    def __post_init__(self):
        if self.masking not in MASKINGS:
            raise ValueError(f"masking={self.masking!r} is unknown; choose one of {', '.join(MASKINGS)}")
        if self.draws < 1 or self.grid < 1 or self.draws % self.grid:
            raise ValueError(f"draws={self.draws} is not a positive multiple of grid={self.grid}, the draws that share a grid of noise levels: change one of them")
        if self.guidance < 0:
            raise ValueError(f"guidance={self.guidance} must not be negative")
        if (self.chunk is None) != (self.context is None) or (self.chunk is not None and min(self.chunk, self.context) < 1):
            raise ValueError(f"chunk={self.chunk} and context={self.context} must both be positive, or both be None")

    def noise(self, length: int, rng: torch.Generator) -> list[tuple[torch.Tensor, float]]:
        """Return one mask, bool (L,), and the weight of its cross entropies per draw.

        A target of one token has only one mask, so a single draw is exact.
        """
        if length == 1:
            return [(torch.ones(1, dtype=torch.bool), 1.0)]
        drawn = []
        for _ in range(self.draws // self.grid):
            if self.masking == "count":
                counts = stratified_counts(self.grid, length, rng).tolist()
                drawn += [(random_mask(torch.ones(length, dtype=torch.bool), count, rng), length / count) for count in counts]
            else:
                shift = torch.rand(1, generator=rng, dtype=torch.float64)
                levels = (1 - FLOOR) * ((shift + torch.arange(self.grid, dtype=torch.float64) / self.grid) % 1) + FLOOR
                drawn += [(torch.rand(length, generator=rng, dtype=torch.float64) < p, 1 / p) for p in levels.tolist()]
        return drawn

    def windows(self, ids_T: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the (context, chunk) pairs of a running text; as in ppl_llada.py the first chunk and the end are not scored.

        Raises ValueError for a protocol without chunks and for a text too short for one.
        """
        if self.chunk is None:
            raise ValueError("this protocol scores a target given a prompt: take one with chunk and context for a running text, such as 'ppl_llada'")
        starts = range(self.chunk, len(ids_T) - self.chunk, self.chunk)
        if not starts:
            raise ValueError(f"a text of {len(ids_T)} tokens is too short: scoring chunks of {self.chunk} takes more than {2 * self.chunk}")
        return [(ids_T[max(0, start - self.context) : start], ids_T[start : start + self.chunk]) for start in starts]


# Where our estimate differs from the code it is named after, the published one is biased:
# - llada (eval_llada.py, arXiv 2502.09992): it rounds half to even, so with 8 draws and L = 4 mod 8 three quarters of
#   its counts are even. Ours are uniform.
# - dream (eval/eval.py of DreamLM/Dream, log_type ftb, nll_type mc): levels end at 0.001, there and here; the cost
#   above is integrated over 99.9 % of the noise levels. A target of one token is drawn at random there, exact here.
# - ppl_llada (seed 2025, WikiText-2 raw test, non-blank lines joined by a newline), main_llada and main_dream (seed 0,
#   of its first 128 lines), of the sink-aware pruning code. main_dream there never masks a chunk's last token and yet
#   counts it, and leaves out draws without a mask; ours masks every token and counts such draws as 0.
# The published grid is the batch of the forward pass; here a batch changes nothing.
PROTOCOLS: dict[str, Protocol] = {
    "llada": Protocol("count", draws=128, grid=8),
    "dream": Protocol("bernoulli", draws=128, grid=32, visible_end=True),
    "ppl_llada": Protocol("count", draws=128, grid=1, chunk=64, context=960),
    "main_llada": Protocol("count", draws=8, grid=1, chunk=64, context=960),
    "main_dream": Protocol("bernoulli", draws=8, grid=1, chunk=64, context=960),
}


def protocol(name: str | Protocol) -> Protocol:
    """Return a protocol of the table by name, or the one given; raise ValueError for an unknown name."""
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise ValueError(f"protocol={name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Benchmark:
    """A task of lm-evaluation-harness with its settings: `shots` (None: the task's own) and arguments of the harness model."""

    task: str
    shots: int | None = None
    settings: dict[str, object] = field(default_factory=dict)


LLADA = (
    Benchmark("mmlu", 5, {"protocol": "llada", "mc_num": 1}),
    Benchmark("arc_challenge", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("piqa", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("winogrande", 5, {"protocol": "llada"}),
    Benchmark("gsm8k", 5, {"sampler": "llada", "gen_length": 1024}),
    Benchmark("hellaswag", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("gpqa_main_n_shot", 5, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("race", 0, {"protocol": "llada", "guidance": 0.5}),
)
DREAM = {"add_bos_token": True, "max_length": 2048, "truncation": True}  # for every task
DREAM_SCORED = {**DREAM, "protocol": "dream"}

# The eight benchmarks of the sink-aware pruning paper (arXiv 2602.17664) by model family: `llada` from eval_llada.sh of
# ML-GSAI/LLaDA (which lacks RACE: taken as the other questions without shots), `dream` from eval/ of DreamLM/Dream,
# `autoregressive` with LLaDA's shots. One-token answers, as MMLU's, are exact under every protocol.
PAPER: dict[str, tuple[Benchmark, ...]] = {
    "llada": LLADA,
    "dream": (
        Benchmark("mmlu", 5, DREAM_SCORED),
        Benchmark("arc_challenge", 0, DREAM_SCORED),
        Benchmark("piqa", 0, DREAM_SCORED),
        Benchmark("winogrande", 5, DREAM_SCORED),
        Benchmark("gsm8k_cot", 8, {**DREAM, "sampler": "dream", "gen_length": 256}),
        Benchmark("hellaswag", 0, DREAM_SCORED),
        Benchmark("gpqa_main_n_shot", 5, DREAM_SCORED),
        Benchmark("race", 0, DREAM_SCORED),
    ),
    "autoregressive": tuple(replace(benchmark, settings={}) for benchmark in LLADA),
}


def benchmarks(lm: LanguageModel, tasks: str | Sequence[str | dict | Benchmark], family: str | None = None, shots: int | None = None) -> list[Benchmark]:
    """Return the tasks with their settings; `"paper"` stands for the eight of the paper, set up for a family of `PAPER`.

    Raises ValueError for an unknown family.
    """
    family = family or ("llada" if lm.is_diffusion else "autoregressive")
    if family not in PAPER:
        raise ValueError(f"family={family!r} is unknown; choose one of {', '.join(PAPER)}")
    if tasks == "paper":
        return [benchmark if shots is None else replace(benchmark, shots=shots) for benchmark in PAPER[family]]
    return [task if isinstance(task, Benchmark) else Benchmark(task, shots) for task in ([tasks] if isinstance(tasks, str) else tasks)]
