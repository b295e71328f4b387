"""Masked diffusion: forward noising and the reverse samplers, for any model that `load` returns.

Dimensions: B batch, T sequence position, L maskable positions of a sequence, S draws, V vocabulary, N masked positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

SCHEDULES = ("even", "time")
PROPOSALS = ("gumbel", "filtered")
END_OF_TURN = (
    "<|eot_id|>",
    "<|im_end|>",
)  # what ends a turn besides the end of text: LLaDA's, and Dream's and SmolLM's
LAST = -1e30  # a confidence below every other, yet above that of a position that may not be revealed

# How sure a proposal is, from log p (L, V) and the proposed tokens (L,): the surest is revealed first.
CONFIDENCE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "low_confidence": lambda log_p_LV, token_L: log_p_LV.gather(-1, token_L[:, None]).squeeze(-1),
    "entropy": lambda log_p_LV, token_L: (log_p_LV.exp() * log_p_LV.clamp_min(-1e4)).sum(-1),
    "topk_margin": lambda log_p_LV, token_L: log_p_LV.topk(2).values.exp().diff(dim=-1).squeeze(-1).neg(),
    "maskgit_plus": lambda log_p_LV, token_L: log_p_LV.gather(-1, token_L[:, None]).squeeze(-1).exp(),
}
ORDERS = ("low_confidence", "entropy", "random", "topk_margin", "maskgit_plus", "origin")


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


def check_positions(lm: LanguageModel, tokens: int) -> None:
    """Raise ValueError when a sequence of `tokens` tokens has more of them than the model has positions."""
    limit = getattr(lm.model.config, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise ValueError(
            f"a sequence of {tokens} tokens exceeds the {limit} positions of {lm.name}: shorten the prompt or what is to be written or scored"
        )


@dataclass(frozen=True)
class Sampler:
    """How a diffusion model turns masks into text. Tokens and steps are counts.

    `order` says which masked position is revealed first: the most probable proposal (`low_confidence`; `maskgit_plus`
    by p instead of log p, which matters to `order_temperature` only), the distribution of lowest `entropy`, the widest
    gap between the two best tokens (`topk_margin`), or a random one (`random`); `origin` reveals every masked position
    with the same chance. `schedule` says how many per step: `even` splits each block's masks evenly over its steps
    (LLaDA); `time` reveals the share 1 - s/t of the remaining masks on a linear time grid (Dream).

    `proposal` says where a token comes from. `gumbel` (LLaDA): Gumbel noise in float64 on the logits, confidence from
    the model's own softmax. `filtered` (Dream): temperature, then `top_p`, then `top_k` shape one distribution, in
    float64, which gives the token and its confidence. `order_temperature` (Dream's alg_temp) draws the positions
    without replacement from softmax(confidence / order_temperature). `guidance` w reads the logits as
    un + (w + 1) (cond - un), where `un` has seen masks for a prompt; it doubles the work.

    `logits_eos_inf` forbids the end of text; `confidence_eos_eot_inf` commits ends of text and of turn last.

    Differences from the published samplers: the mask is never proposed; `confidence_eos_eot_inf` does the same at every
    temperature (LLaDA's code forgets the end of text above 0); entropies lack Dream's 1e-10; Dream's counts per step
    are truncated in float32, here in float64.
    """

    length: int = 96
    steps: int = 48
    block: int | None = 32
    order: str = "low_confidence"
    schedule: str = "even"
    temperature: float = 0.0
    proposal: str = "gumbel"
    top_p: float | None = None
    top_k: int | None = None
    order_temperature: float = 0.0
    guidance: float = 0.0
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False

    def __post_init__(self):
        if self.length < 1 or self.steps < 1:
            raise ValueError(f"length={self.length} and steps={self.steps} must be at least 1")
        for name, known in (("order", ORDERS), ("schedule", SCHEDULES), ("proposal", PROPOSALS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(known)}"
                )
        for name in ("temperature", "order_temperature", "guidance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.length % self.block_length:
            raise ValueError(f"length={self.length} is not a multiple of block={self.block}")
        if self.steps % self.blocks:
            raise ValueError(
                f"steps={self.steps} cannot be shared by {self.blocks} blocks: use a multiple of {self.blocks}"
            )
        if self.schedule == "even" and self.steps // self.blocks > self.block_length:
            raise ValueError(f"steps={self.steps} exceed the {self.length} tokens to reveal")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie above 0 and not above 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.proposal == "gumbel" and not (self.top_p is self.top_k is None):
            raise ValueError(
                f"top_p={self.top_p} and top_k={self.top_k} need proposal='filtered': Gumbel noise reaches every token"
            )
        if self.order == "origin" and self.schedule != "time":
            raise ValueError("order='origin' needs schedule='time': its chance of a reveal is 1 - s/t")
        if self.order not in CONFIDENCE and (self.order_temperature or self.confidence_eos_eot_inf):
            raise ValueError(
                f"order={self.order!r} knows no confidence: order_temperature and confidence_eos_eot_inf need one of {', '.join(CONFIDENCE)}"
            )

    @property
    def block_length(self) -> int:
        return self.block or self.length

    @property
    def blocks(self) -> int:
        return self.length // self.block_length

    def shares(self) -> list[float]:
        """Return the share 1 - s/t of a block's masks that schedule `time` reveals, for every step of the block."""
        time = torch.linspace(1, 1e-3, self.steps // self.blocks + 1, dtype=torch.float64)
        return [(1 - s / t).item() for t, s in zip(time[:-2], time[1:-1], strict=True)] + [1.0]

    def reveals(self) -> list[int]:
        """Return how many tokens every step commits; they sum to `length`. Raises ValueError for `origin`, where chance decides."""
        if self.order == "origin":
            raise ValueError("order='origin' reveals a random number of tokens per step")
        counts = []
        for _ in range(self.blocks):
            left = self.block_length
            if self.schedule == "even":
                counts += even_split(left, self.steps // self.blocks)
            else:
                for share in self.shares():
                    counts.append(int(left * share + 1e-9))
                    left -= counts[-1]
        return counts


LLADA = Sampler(block=32, order="low_confidence", schedule="even")
DREAM = Sampler(block=None, order="entropy", schedule="time")

# As published for evaluation: LLaDA's generate.py; Dream's README (steps = tokens, entropy, 0.2, 0.95).
SAMPLERS: dict[str, Sampler] = {
    "llada": Sampler(128, 128, None, "low_confidence", "even"),
    "dream": Sampler(512, 512, None, "entropy", "time", temperature=0.2, proposal="filtered", top_p=0.95),
}

Watcher = Callable[[int, torch.Tensor], None]


def left_padding(prompt_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> torch.Tensor:
    """Return how many tokens of padding every row begins with, int64 (B,); raise ValueError for prompts or a mask of another form."""
    if prompt_BT.dim() != 2 or prompt_BT.shape[1] < 1:
        raise ValueError(
            f"prompts have shape {tuple(prompt_BT.shape)}; expected (batch, at least one token): shifted logits need a predecessor"
        )
    if attention_mask_BT is None:
        return torch.zeros(len(prompt_BT), dtype=torch.long)
    mask_BT = attention_mask_BT.cpu().bool()
    if (
        mask_BT.shape != prompt_BT.shape
        or not bool(mask_BT[:, -1].all())
        or bool((mask_BT[:, :-1] & ~mask_BT[:, 1:]).any())
    ):
        raise ValueError(
            f"attention_mask of shape {tuple(mask_BT.shape)} does not fit prompts of shape {tuple(prompt_BT.shape)}: zeros stand for padding on the left, and every row has a token"
        )
    return (~mask_BT).sum(1)


def end_tokens(tokenizer) -> tuple[int, list[int]]:
    """Return the id of the end of text and the ids of it and of every end of a turn; raise ValueError without an end of text."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "logits_eos_inf and confidence_eos_eot_inf need a tokenizer with an end-of-text token: set tokenizer.eos_token"
        )
    vocabulary = tokenizer.get_vocab()
    return tokenizer.eos_token_id, sorted(
        {tokenizer.eos_token_id, *(vocabulary[token] for token in END_OF_TURN if token in vocabulary)}
    )


def _logits(
    lm: LanguageModel, ids_BT: torch.Tensor, where_BT: torch.Tensor, padding_B: torch.Tensor
) -> torch.Tensor:
    """Return the logits at `where_BT` of left-padded rows, (N, V).

    The padding goes to the right end for the forward: positions then count from a row's first token in every model.
    """
    if not bool(padding_B.any()):
        return lm.logits_at(ids_BT, where_BT)
    place_T = torch.arange(ids_BT.shape[1])
    index_BT = (place_T + padding_B[:, None]) % len(place_T)
    return lm.logits_at(
        ids_BT.gather(1, index_BT),
        where_BT.gather(1, index_BT),
        (place_T < len(place_T) - padding_B[:, None]).long(),
    )


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompt_BT: torch.Tensor,
    sampler: Sampler = LLADA,
    seed: int = 0,
    watch: Watcher | None = None,
    first: int = 0,
    attention_mask_BT: torch.Tensor | None = None,
    names: Sequence[object] | None = None,
    until: Callable[[torch.Tensor], bool] | None = None,
) -> torch.Tensor:
    """Denoise a continuation of every prompt; return prompt and continuation, int64 (B, T).

    `watch(step, ids_BT)` is called after each forward with the state that was its input, before tokens are committed.
    Committed tokens never change. Prompts of unequal length are padded on the left, where `attention_mask_BT` is 0.
    Row b's random numbers come from (seed, first + b) alone, or from (seed, names[b]): `first` is the number of the
    first prompt where a batch is a part of many. `until(ids_BT)` is asked after each block; True leaves the rest masked.
    """
    if not lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `decode`")
    padding_B = left_padding(prompt_BT, attention_mask_BT)
    batch, start = prompt_BT.shape
    check_positions(lm, start - int(padding_B.min()) + sampler.length)
    eos, ends = (
        end_tokens(lm.tokenizer) if sampler.logits_eos_inf or sampler.confidence_eos_eot_inf else (None, [])
    )
    ids_BT = torch.cat([prompt_BT.cpu(), torch.full((batch, sampler.length), lm.mask_token_id)], dim=1)
    position_T = torch.arange(ids_BT.shape[1])
    given_BT = (position_T < start) & (position_T >= padding_B[:, None])
    rngs = [
        generator(seed, "generate", name)
        for name in (range(first, first + batch) if names is None else names)
    ]
    per_block = sampler.steps // sampler.blocks
    amounts = sampler.shares() * sampler.blocks if sampler.order == "origin" else sampler.reveals()
    for step, amount in enumerate(amounts):
        where_BT = ids_BT == lm.mask_token_id
        where_BT[:, :start] = False
        logits_NV = _logits(lm, ids_BT, where_BT, padding_B)
        if sampler.guidance > 0:
            blind_NV = _logits(lm, corrupt(ids_BT, given_BT, lm.mask_token_id), where_BT, padding_B)
            logits_NV = blind_NV + (sampler.guidance + 1) * (logits_NV - blind_NV)
        logits_NV[:, lm.mask_token_id] = -torch.inf  # the absorbing state is never a prediction
        if sampler.logits_eos_inf:
            logits_NV[:, eos] = -torch.inf
        if watch is not None:
            watch(step, ids_BT)
        end = start + (step // per_block + 1) * sampler.block_length
        for row, logits_LV in enumerate(logits_NV.split(where_BT.sum(1).tolist())):
            token_L, confidence_L = _propose(
                logits_LV, sampler, rngs[row], ends if sampler.confidence_eos_eot_inf else []
            )
            position_L = where_BT[row].nonzero().squeeze(-1)
            confidence_L = confidence_L.masked_fill(position_L >= end, -torch.inf)
            if sampler.order == "origin":
                chosen = confidence_L > -amount
            else:
                chosen = confidence_L.sort(descending=True, stable=True).indices[:amount]
            ids_BT[row, position_L[chosen]] = token_L[chosen]
        logits_NV = logits_LV = blind_NV = None  # or they would be held beside those of the next step
        if until is not None and (step + 1) % per_block == 0 and until(ids_BT):
            break
    return ids_BT


def _gumbel(like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return (
        torch.rand(like.shape, generator=rng, dtype=torch.float64)
        .clamp_min_(1e-300)
        .log_()
        .neg_()
        .log_()
        .neg_()
        .to(like.device)
    )  # in place: with the vocabulary it is the largest tensor of a step


def _filter(logits_LV: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Return the log-probabilities that temperature, then top-p, then top-k leave, float64 (L, V)."""
    logits_LV = logits_LV.double() / (sampler.temperature or 1.0)
    if sampler.top_p is not None:
        sorted_LV, index_LV = logits_LV.sort(descending=True, stable=True)
        before_LV = sorted_LV.softmax(-1).cumsum(-1).roll(1, -1)
        before_LV[:, 0] = 0  # the most probable token stays
        logits_LV = logits_LV.masked_fill(
            (before_LV > sampler.top_p).gather(-1, index_LV.argsort(-1)), -torch.inf
        )
    if sampler.top_k is not None and sampler.top_k < logits_LV.shape[-1]:
        logits_LV = logits_LV.masked_fill(
            logits_LV < logits_LV.topk(sampler.top_k).values[:, -1:], -torch.inf
        )
    return logits_LV.log_softmax(-1)


def _propose(
    logits_LV: torch.Tensor, sampler: Sampler, rng: torch.Generator, ends: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token and a confidence per masked position, on the CPU; proposals of the tokens `ends` come last."""
    if sampler.proposal == "filtered":
        logits_LV = _filter(logits_LV, sampler)
        if sampler.temperature > 0:
            cumulative_LV = logits_LV.exp().cumsum(-1)
            uniform_L1 = torch.rand((len(logits_LV), 1), generator=rng, dtype=torch.float64).to(
                logits_LV.device
            )
            token_L = torch.searchsorted(
                cumulative_LV, uniform_L1 * cumulative_LV[:, -1:], right=True
            ).squeeze(-1)
        else:
            token_L = logits_LV.argmax(-1)
    elif sampler.temperature > 0:
        token_L = _gumbel(logits_LV, rng).mul_(sampler.temperature).add_(logits_LV).argmax(-1)
    else:
        token_L = logits_LV.argmax(-1)
    if sampler.order == "random":
        return token_L.cpu(), torch.rand(len(token_L), generator=rng, dtype=torch.float64)
    if sampler.order == "origin":
        return token_L.cpu(), -torch.rand(len(token_L), generator=rng, dtype=torch.float64)
    if ends:
        logits_LV = logits_LV.clone()
        logits_LV[:, ends] = -torch.inf
    confidence_L = CONFIDENCE[sampler.order](logits_LV.log_softmax(-1), token_L)
    if sampler.order_temperature > 0:
        confidence_L = confidence_L.double() / sampler.order_temperature + _gumbel(token_L, rng)
    token_L, confidence_L = token_L.cpu(), confidence_L.cpu()
    return token_L, confidence_L.masked_fill(torch.isin(token_L, torch.tensor(ends, dtype=torch.long)), LAST)


@torch.inference_mode()
def decode(
    lm: LanguageModel,
    prompt_BT: torch.Tensor,
    length: int,
    temperature: float = 0.0,
    seed: int = 0,
    first: int = 0,
    attention_mask_BT: torch.Tensor | None = None,
    names: Sequence[object] | None = None,
    until: Callable[[torch.Tensor], bool] | None = None,
) -> torch.Tensor:
    """Continue every prompt by `length` tokens, left to right with a KV cache; return int64 (B, T).

    Left padding and random numbers are as in `generate`; `until(ids_BT)` is asked after each token and ends it early.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: use `generate`")
    padding_B = left_padding(prompt_BT, attention_mask_BT)
    check_positions(lm, prompt_BT.shape[1] - int(padding_B.min()) + length)
    rngs = [
        generator(seed, "decode", name)
        for name in (range(first, first + len(prompt_BT)) if names is None else names)
    ]
    ids_BT, fresh_BT, cache = (
        prompt_BT.to(lm.device),
        prompt_BT.to(lm.device),
        DynamicCache(config=lm.model.config),
    )
    for _ in range(length):
        padding = {}
        if bool(padding_B.any()):
            place_BT = torch.arange(ids_BT.shape[1]) - padding_B[:, None]
            padding = {
                "attention_mask": (place_BT >= 0).long().to(lm.device),
                "position_ids": place_BT.clamp_min(0)[:, -fresh_BT.shape[1] :].to(lm.device),
            }
        logits_BV = lm.next_logits(fresh_BT, cache, **padding)
        if temperature > 0:
            uniform_BV = torch.stack(
                [torch.rand(logits_BV.shape[1], generator=rng, dtype=torch.float64) for rng in rngs]
            ).clamp_min(1e-300)
            logits_BV = logits_BV.double() - temperature * (-uniform_BV.log()).log().to(logits_BV.device)
        fresh_BT = logits_BV.argmax(-1, keepdim=True)
        ids_BT = torch.cat([ids_BT, fresh_BT], dim=1)
        if until is not None and until(ids_BT):
            break
    return ids_BT.cpu()
