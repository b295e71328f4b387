"""Masked diffusion: forward noising and the reverse samplers, for any model that `load` returns.

Dimensions: B batch, T sequence position, L maskable positions of a sequence, S draws, V vocabulary, N masked positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from .models import LanguageModel
from .seeds import generator

ORDERS = ("low_confidence", "entropy", "random")
SCHEDULES = ("even", "time")


def stratified_counts(draws: int, maskable: int, rng: torch.Generator) -> torch.Tensor:
    """Return numbers of masks for `draws` noisings of one sequence, int64 (S,), each uniform on 1 … maskable.

    One uniform number shifts an even grid, so the draws cover all noise levels (LLaDA's evaluation, its section on
    conditional likelihood, uses the same stratification).
    """
    shift = torch.rand(1, generator=rng, dtype=torch.float64)
    return 1 + ((shift + torch.arange(draws, dtype=torch.float64) / draws) % 1 * maskable).long()


def even_split(items: int, parts: int) -> list[int]:
    """Return how many of `items` each of `parts` gets, as even as can be, the larger shares first."""
    return [items // parts + (part < items % parts) for part in range(parts)]


def random_mask(maskable_T: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Return a bool mask (T,) of exactly `count` positions drawn without replacement from `maskable_T`."""
    candidates = maskable_T.nonzero().squeeze(-1)
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count={count} masks do not fit {len(candidates)} maskable positions")
    where_T = torch.zeros_like(maskable_T)
    where_T[candidates[torch.randperm(len(candidates), generator=rng)[:count]]] = True
    return where_T


def corrupt(ids_BT: torch.Tensor, where_BT: torch.Tensor, mask_token_id: int) -> torch.Tensor:
    """Return `ids_BT` with the positions `where_BT` absorbed into the mask token."""
    return torch.where(where_BT, mask_token_id, ids_BT)


@dataclass(frozen=True)
class Sampler:
    """How a diffusion model turns masks into text. Tokens and steps are counts.

    `order` says which masked position is revealed first: the most probable prediction, the one of lowest entropy, or a
    random one. `schedule` says how many per step: `even` splits each block's masks evenly over its steps (LLaDA);
    `time` reveals the share 1 - s/t of the remaining masks on a linear time grid (Dream).
    """

    length: int = 96
    steps: int = 48
    block: int | None = 32
    order: str = "low_confidence"
    schedule: str = "even"
    temperature: float = 0.0

    def __post_init__(self):
        if self.length < 1 or self.steps < 1:
            raise ValueError(f"length={self.length} and steps={self.steps} must be at least 1")
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r} is unknown; choose one of {', '.join(ORDERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must not be negative")
        if self.length % self.block_length:
            raise ValueError(f"length={self.length} is not a multiple of block={self.block}")
        if self.steps % self.blocks:
            raise ValueError(f"steps={self.steps} cannot be shared by {self.blocks} blocks: use a multiple of {self.blocks}")
        if self.schedule == "even" and self.steps // self.blocks > self.block_length:
            raise ValueError(f"steps={self.steps} exceed the {self.length} tokens to reveal")

    @property
    def block_length(self) -> int:
        return self.block or self.length

    @property
    def blocks(self) -> int:
        return self.length // self.block_length

    def reveals(self) -> list[int]:
        """Return how many tokens every step commits; they sum to `length`."""
        steps, counts = self.steps // self.blocks, []
        for _ in range(self.blocks):
            left = self.block_length
            if self.schedule == "even":
                counts += even_split(left, steps)
            else:
                time = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
                for step in range(steps):
                    count = left if step == steps - 1 else int(left * (1 - time[step + 1] / time[step]).item() + 1e-9)
                    counts.append(count)
                    left -= count
        return counts


LLADA = Sampler(block=32, order="low_confidence", schedule="even")
DREAM = Sampler(block=None, order="entropy", schedule="time")

Watcher = Callable[[int, torch.Tensor], None]


@torch.inference_mode()
def generate(lm: LanguageModel, prompt_BT: torch.Tensor, sampler: Sampler = LLADA, seed: int = 0, watch: Watcher | None = None, first: int = 0) -> torch.Tensor:
    """Denoise a continuation of every prompt; return prompt and continuation, int64 (B, T).

    `watch(step, ids_BT)` is called after each forward with the state that was its input, before tokens are committed.
    Committed tokens never change. Row b's random numbers come from (seed, first + b) alone: `first` is the number of the
    first prompt where a batch is a part of many.
    """
    if not lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `decode`")
    if prompt_BT.dim() != 2 or prompt_BT.shape[1] < 1:
        raise ValueError(f"prompts have shape {tuple(prompt_BT.shape)}; expected (batch, at least one token): shifted logits need a predecessor")
    batch, start = prompt_BT.shape
    ids_BT = torch.cat([prompt_BT.cpu(), torch.full((batch, sampler.length), lm.mask_token_id)], dim=1)
    rngs = [generator(seed, "generate", first + row) for row in range(batch)]
    per_block = sampler.steps // sampler.blocks
    for step, count in enumerate(sampler.reveals()):
        where_BT = ids_BT == lm.mask_token_id
        where_BT[:, :start] = False
        logits_NV = lm.logits_at(ids_BT, where_BT).cpu()
        logits_NV[:, lm.mask_token_id] = -torch.inf  # the absorbing state is never a prediction
        if watch is not None:
            watch(step, ids_BT)
        masked = int(where_BT[0].sum())  # the same in every row: all rows commit equally many
        for row, logits_LV in enumerate(logits_NV.view(batch, masked, -1)):
            token_L, confidence_L = _propose(logits_LV, sampler, rngs[row])
            position_L = where_BT[row].nonzero().squeeze(-1)
            confidence_L = confidence_L.masked_fill(position_L >= start + (step // per_block + 1) * sampler.block_length, -torch.inf)
            chosen = confidence_L.sort(descending=True, stable=True).indices[:count]
            ids_BT[row, position_L[chosen]] = token_L[chosen]
    return ids_BT


def _propose(logits_LV: torch.Tensor, sampler: Sampler, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token and a confidence per masked position; Gumbel noise in float64, as LLaDA's sampler has it."""
    log_p_LV = logits_LV.log_softmax(-1)
    if sampler.temperature > 0:
        uniform_LV = torch.rand(logits_LV.shape, generator=rng, dtype=torch.float64).clamp_min(1e-300)
        token_L = (logits_LV.double() - sampler.temperature * (-uniform_LV.log()).log()).argmax(-1)
    else:
        token_L = logits_LV.argmax(-1)
    if sampler.order == "random":
        return token_L, torch.rand(len(token_L), generator=rng, dtype=torch.float64)
    if sampler.order == "entropy":
        return token_L, (log_p_LV.exp() * log_p_LV.clamp_min(-1e4)).sum(-1)
    return token_L, log_p_LV.gather(-1, token_L[:, None]).squeeze(-1)


@torch.inference_mode()
def decode(lm: LanguageModel, prompt_BT: torch.Tensor, length: int, temperature: float = 0.0, seed: int = 0, first: int = 0) -> torch.Tensor:
    """Continue every prompt by `length` tokens, left to right with a KV cache; return int64 (B, T). Never stops early."""
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `generate`")
    rngs = [generator(seed, "decode", first + row) for row in range(len(prompt_BT))]
    ids_BT, fresh_BT, cache = prompt_BT.to(lm.device), prompt_BT.to(lm.device), DynamicCache(config=lm.model.config)
    for _ in range(length):
        logits_BV = lm.next_logits(fresh_BT, cache)
        if temperature > 0:
            uniform_BV = torch.stack([torch.rand(logits_BV.shape[1], generator=rng, dtype=torch.float64) for rng in rngs]).clamp_min(1e-300)
            logits_BV = logits_BV.double() - temperature * (-uniform_BV.log()).log().to(logits_BV.device)
        fresh_BT = logits_BV.argmax(-1, keepdim=True)
        ids_BT = torch.cat([ids_BT, fresh_BT], dim=1)
    return ids_BT.cpu()
