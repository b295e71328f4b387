"""Generation: a diffusion model turns masks into text, an autoregressive model continues a prompt.

Dimensions: B batch, T sequence position, L masked positions of one sequence, N of all, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from pydantic import InstanceOf
from transformers import DynamicCache

from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.diffusion.proposals import (
    CONFIDENCE,
    draw_by_inverse,
    filtered_log_p,
    gumbel_,
    gumbel_noise,
)
from sinkprune_core.diffusion.samplers import LLADA_SAMPLER, Sampler
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import (
    Count,
    Plain,
    Temperature,
    Whole,
    checked_arguments,
    in_short,
    is_finite,
)

Watcher = Callable[[int, torch.Tensor], None]  # called with a step and a copy of the state (B, T) before it
Stop = Callable[[torch.Tensor], bool]  # says of a copy of a state (B, T) whether generation may end


def _padding_moved_right(padding_B: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return from which positions of left-padded rows those of right-padded rows come, int64 (B, T), and
    their attention mask.

    Every row is turned to the left by its padding. What pads all rows is left out: T is the longest row's
    length.
    """
    tokens_B1 = length - padding_B[:, None]
    position_T = torch.arange(int(tokens_B1.max()))

    turned_BT = (position_T + padding_B[:, None]) % length
    attention_mask_BT = (position_T < tokens_B1).long()
    return turned_BT, attention_mask_BT


def _left_padding(
    lm: LanguageModel, prompt_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None, length: int
) -> torch.Tensor:
    """Return how many tokens of padding every row begins with, int64 (B,), of prompts that go on by `length`.

    Raises ValueError for prompts of another shape or of ids that are no tokens of the model, for a mask with
    padding anywhere but on the left, and for more tokens than the model has positions.
    """
    lm.check_ids(prompt_BT)
    if prompt_BT.dim() != 2 or prompt_BT.numel() < 1:
        raise ValueError(
            f"prompts have shape {tuple(prompt_BT.shape)}; expected (prompts, tokens), at least one: "
            "shifted logits need a predecessor"
        )

    mask_BT = torch.ones(prompt_BT.shape, dtype=torch.bool)
    if attention_mask_BT is not None:
        mask_BT = attention_mask_BT.cpu().bool()
    if mask_BT.shape != prompt_BT.shape or not _is_padded_on_the_left(mask_BT):
        raise ValueError(
            f"attention_mask of shape {tuple(mask_BT.shape)} does not fit prompts of shape "
            f"{tuple(prompt_BT.shape)}: zeros stand for padding on the left, and every row has a token"
        )

    padding_B = (~mask_BT).sum(1)
    longest_prompt = prompt_BT.shape[1] - int(padding_B.min())
    lm.check_positions(longest_prompt + length)
    return padding_B


def _is_padded_on_the_left(mask_BT: torch.Tensor) -> bool:
    """Return whether every row is padding first, then at least one token."""
    ends_with_a_token_B = mask_BT[:, -1]
    token_before_padding_BT = mask_BT[:, :-1] & ~mask_BT[:, 1:]
    return bool(ends_with_a_token_B.all()) and not bool(token_before_padding_BT.any())


def _row_generators(
    seed: int, purpose: str, rows: int, first: int, names: Sequence[object] | None
) -> list[torch.Generator]:
    """Return a generator per row, from its name or, without names, its number."""
    if names is None:
        names = range(first, first + rows)
    if len(names) != rows:
        raise ValueError(f"names={in_short(names)} must name each of {rows} prompts")
    return [generator(seed, purpose, name) for name in names]


class _Denoising:
    """The reverse process of one batch: prompts on the left, masks on the right, revealed step by step."""

    def __init__(
        self,
        lm: LanguageModel,
        prompt_BT: torch.Tensor,
        sampler: Sampler,
        rngs: list[torch.Generator],
        padding_B: torch.Tensor,
    ):
        self.lm = lm
        self.sampler = sampler
        self.rngs = rngs
        self.padding_B = padding_B
        self.start = prompt_BT.shape[1]  # the first position that is written

        masks_BT = torch.full((len(prompt_BT), sampler.length), lm.mask)
        self.ids_BT = torch.cat([prompt_BT.cpu(), masks_BT], dim=1)

    def step(self, step: int, count: int, watch: Watcher | None) -> None:
        """Run the model on the current state and reveal `count` positions."""
        where_BT = self.ids_BT == self.lm.mask_token_id
        where_BT[:, : self.start] = False
        logits_NV = self._logits(where_BT)
        if watch is not None:
            watch(step, self.ids_BT.clone())

        block = step // self.sampler.steps_per_block
        end_of_block = self.start + (block + 1) * self.sampler.block_length

        for row, logits_LV in enumerate(logits_NV.split(where_BT.sum(1).tolist())):
            position_L = where_BT[row].nonzero().squeeze(-1)
            self._reveal(row, position_L, logits_LV, count, end_of_block)

    def _reveal(
        self, row: int, position_L: torch.Tensor, logits_LV: torch.Tensor, count: int, end_of_block: int
    ) -> None:
        """Write the `count` most confident proposals of a row; positions of later blocks wait."""
        token_L, confidence_L = self._propose(logits_LV, self.rngs[row])
        is_of_later_block_L = position_L >= end_of_block
        confidence_L = confidence_L.masked_fill(is_of_later_block_L, -torch.inf)

        chosen = confidence_L.sort(descending=True, stable=True).indices[:count]
        self.ids_BT[row, position_L[chosen]] = token_L[chosen]

    def _logits(self, where_BT: torch.Tensor) -> torch.Tensor:
        """Return the logits at the masked positions, (N, V), guided and without forbidden tokens."""
        logits_NV = self._forward(self.ids_BT, where_BT)
        if self.sampler.guidance > 0:
            position_T = torch.arange(self.ids_BT.shape[1])
            prompt_BT = (position_T < self.start) & (position_T >= self.padding_B[:, None])
            without_prompt_BT = corrupt(self.ids_BT, prompt_BT, self.lm.mask)
            unconditional_NV = self._forward(without_prompt_BT, where_BT)

            logits_NV = unconditional_NV + (self.sampler.guidance + 1) * (logits_NV - unconditional_NV)
            if not is_finite(logits_NV):
                raise ValueError(
                    f"guidance={self.sampler.guidance} takes the logits of {self.lm.name} beyond "
                    f"{logits_NV.dtype}: guide less"
                )

        logits_NV[:, self.lm.mask_token_id] = -torch.inf  # the mask is never a prediction
        return logits_NV

    def _forward(self, ids_BT: torch.Tensor, where_BT: torch.Tensor) -> torch.Tensor:
        """Return the model's logits at `where_BT` of left-padded rows, (N, V).

        The padding goes to the right end for the forward: every model then counts from a row's first token.
        """
        if not bool(self.padding_B.any()):
            return self.lm.logits_at(ids_BT, where_BT)

        index_BT, attention_mask_BT = _padding_moved_right(self.padding_B, ids_BT.shape[1])
        return self.lm.logits_at(ids_BT.gather(1, index_BT), where_BT.gather(1, index_BT), attention_mask_BT)

    def _propose(self, logits_LV: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a token and a confidence per masked position of one row, on the CPU."""
        sampler = self.sampler
        if sampler.proposal == "filtered":
            logits_LV = filtered_log_p(logits_LV, sampler.temperature, sampler.top_p, sampler.top_k)

        token_L = _draw_tokens(logits_LV, sampler, rng)
        if sampler.order == "random":
            return token_L.cpu(), torch.rand(len(token_L), generator=rng, dtype=torch.float64)

        confidence_L = CONFIDENCE[sampler.order](logits_LV.log_softmax(-1), token_L)
        return token_L.cpu(), confidence_L.cpu()


def _draw_tokens(logits_LV: torch.Tensor, sampler: Sampler, rng: torch.Generator) -> torch.Tensor:
    """Return a token per masked position, int64 (L,)."""
    if sampler.temperature == 0:
        return logits_LV.argmax(-1)
    if sampler.proposal == "filtered":
        return draw_by_inverse(logits_LV, rng)

    noisy_LV = gumbel_noise(logits_LV, rng).mul_(sampler.temperature).add_(logits_LV)
    return noisy_LV.argmax(-1)


@checked_arguments
@torch.no_grad()  # an inference tensor could not be changed
def generate(
    lm: InstanceOf[LanguageModel],
    prompt_BT: Plain,
    sampler: InstanceOf[Sampler] = LLADA_SAMPLER,
    seed: Whole = 0,
    watch: Watcher | None = None,
    first: Whole = 0,
    attention_mask_BT: Plain | None = None,
    names: Sequence[object] | None = None,
    until: Stop | None = None,
) -> torch.Tensor:
    """Denoise a continuation of every prompt; return prompt and continuation, int64 (B, T).

    `watch(step, ids_BT)` is called after each forward with the state that was its input, before tokens are
    revealed. Prompts of unequal length are padded on the left, where `attention_mask_BT` is 0. Row b's random
    numbers come from (seed, first + b) alone, `first` being the number of the first prompt of a batch, or
    from (seed, names[b]). `until(ids_BT)` is asked after each block; True leaves the rest masked. `watch` and
    `until` are given copies.

    Raises TypeError for what is no LanguageModel or no tensor. Raises ValueError for an autoregressive model,
    for prompts, names or a mask of another form, for more tokens than the model has positions, for guidance
    beyond the numbers of the model's dtype, and where what it computes is not finite.
    """
    if not lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `decode`")

    padding_B = _left_padding(lm, prompt_BT, attention_mask_BT, sampler.length)
    rngs = _row_generators(seed, "generate", len(prompt_BT), first, names)
    denoising = _Denoising(lm, prompt_BT, sampler, rngs, padding_B)

    for step, count in enumerate(sampler.reveals()):
        denoising.step(step, count, watch)
        is_end_of_block = (step + 1) % sampler.steps_per_block == 0
        if until is not None and is_end_of_block and until(denoising.ids_BT.clone()):
            break

    return denoising.ids_BT


@checked_arguments
@torch.no_grad()  # an inference tensor could not be changed
def decode(
    lm: InstanceOf[LanguageModel],
    prompt_BT: Plain,
    length: Count,
    temperature: Temperature = 0.0,
    seed: Whole = 0,
    first: Whole = 0,
    attention_mask_BT: Plain | None = None,
    names: Sequence[object] | None = None,
    until: Stop | None = None,
) -> torch.Tensor:
    """Continue every prompt by `length` tokens, left to right with a KV cache; return int64 (B, T).

    Padding, random numbers and errors are as in `generate`; `until(ids_BT)` may end it after each token.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `generate`")

    padding_B = _left_padding(lm, prompt_BT, attention_mask_BT, length)
    rngs = _row_generators(seed, "decode", len(prompt_BT), first, names)
    ids_BT = prompt_BT.to(lm.device)
    fresh_BT = ids_BT  # tokens that are not in the cache yet
    cache = DynamicCache(config=lm.model.config)

    for _ in range(length):
        padding = _padding_arguments(ids_BT.shape[1], fresh_BT.shape[1], padding_B, lm.device)
        logits_BV = lm.next_logits(fresh_BT, cache, **padding)

        if temperature > 0:
            width = logits_BV.shape[1]
            uniform_BV = torch.stack([torch.rand(width, generator=rng, dtype=torch.float64) for rng in rngs])
            noise_BV = gumbel_(uniform_BV).to(logits_BV.device)
            logits_BV = logits_BV.double() + temperature * noise_BV

        fresh_BT = logits_BV.argmax(-1, keepdim=True)
        ids_BT = torch.cat([ids_BT, fresh_BT], dim=1)
        if until is not None and until(ids_BT.clone()):
            break

    return ids_BT.cpu()


def _padding_arguments(
    length: int, fresh: int, padding_B: torch.Tensor, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return what a model must know of left-padded rows of `length` tokens, the last `fresh` of them new."""
    if not bool(padding_B.any()):
        return {}

    position_BT = torch.arange(length) - padding_B[:, None]
    return {
        "attention_mask": (position_BT >= 0).long().to(device),
        "position_ids": position_BT.clamp_min(0)[:, -fresh:].to(device),
    }
