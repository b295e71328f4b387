"""Log-likelihood of targets given prompts, its standard errors, and the perplexity of a running text.

Exact for an autoregressive model, a lower bound estimated from random masks for a diffusion model.

Dimensions: B batch, T position, L tokens of a target, P of a prompt, N selected positions, D hidden size.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from pydantic import InstanceOf
from tqdm.auto import tqdm

from sinkprune.evaluation.protocols import Protocol, protocol
from sinkprune.evaluation.token_losses import batches, head_losses, padded
from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, Whole, checked_arguments

Pair = tuple[torch.Tensor, torch.Tensor]  # a prompt, int64 (P,), and the target that follows it, int64 (L,)


# a diffusion model: estimates from random masks


@dataclass(frozen=True)
class MaskedTarget:
    """One random mask on a target, and the pairs that one forward pass with it serves."""

    sequences: list[int]
    """Numbers of those pairs: a single one, or all pairs of one prompt whose targets are one token."""
    draw: int
    """Number of the mask among those of its target."""
    where_L: torch.Tensor
    """Which tokens of the target are masked, bool (L,)."""
    weight: float
    """Factor of the summed cross-entropies that makes them an unbiased estimate for the whole target."""


@checked_arguments
@torch.inference_mode()
def log_likelihood(
    lm: InstanceOf[LanguageModel],
    pairs: Sequence[Pair],
    how: str | Protocol = "llada",
    seed: Whole = 0,
    batch: Count = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Estimate log p(target | prompt) under a diffusion model, a lower bound on average.

    One row per pair and draw. Columns: `sequence`, `draw`, `grid` (draws of one grid share noise levels),
    `masks`, `tokens` (L), `value` (nats for the whole target, 0 for a draw without masks). Noise depends on
    (seed, tokens of the pair) alone: not on the batch, the other pairs or the model. A target of one token
    is exact in one draw, and all of a prompt share one forward. `how` names a protocol or is one.
    Raises ValueError for an autoregressive model, an unknown protocol, an empty target and too many tokens.
    """
    if not lm.is_diffusion:
        raise ValueError(
            f"{lm.name} is {lm.kind}: its likelihood is exact, use `exact_log_likelihood`, which knows no "
            "protocol and no guidance"
        )

    how = protocol(how)
    pairs = _checked_pairs(lm, pairs, extra=int(how.visible_end))

    if how.visible_end and lm.end_of_text is None:
        raise ValueError(
            f"visible_end=True needs an end-of-text token, and the tokenizer of {lm.name} has none: "
            "set visible_end=False"
        )

    rows = []
    for part in batches(_masked_targets(lm, pairs, how, seed, progress), batch):
        rows += _estimates(lm, pairs, how, part)

    frame = pd.DataFrame(rows, columns=["sequence", "draw", "grid", "masks", "tokens", "value"])
    return frame.sort_values(["sequence", "draw"], ignore_index=True)


def _masked_targets(
    lm: LanguageModel, pairs: Sequence[Pair], how: Protocol, seed: int, progress: bool
) -> Iterator[MaskedTarget]:
    """Yield the masks of every target; pairs that share their forward pass share their masks."""
    for sequences in _pairs_by_forward(lm, pairs, progress):
        prompt, target = pairs[sequences[0]]
        rng = generator(seed, "likelihood", prompt.tolist(), target.tolist())
        for draw, (where_L, weight) in enumerate(how.noise(len(target), rng)):
            yield MaskedTarget(sequences, draw, where_L, weight)


def _estimates(
    lm: LanguageModel, pairs: Sequence[Pair], how: Protocol, part: list[MaskedTarget]
) -> list[tuple[int, int, int, int, int, float]]:
    """Return the rows of `log_likelihood` that one batch of masks gives."""
    hidden_ND, unconditional_ND = _hidden_at_masks(lm, pairs, how, part)
    copies_N = torch.cat([torch.full((int(each.where_L.sum()),), len(each.sequences)) for each in part])
    copies_N = copies_N.to(lm.device)
    hidden_ND = hidden_ND.repeat_interleave(copies_N, dim=0)
    if unconditional_ND is not None:
        unconditional_ND = unconditional_ND.repeat_interleave(copies_N, dim=0)

    served = [(each, sequence) for each in part for sequence in each.sequences]
    target_N = torch.cat([pairs[sequence][1][each.where_L] for each, sequence in served])
    loss_N, _ = head_losses(lm, hidden_ND, target_N, unconditional_ND, how.guidance)
    masks = [int(each.where_L.sum()) for each, _ in served]

    rows = []
    for (each, sequence), count, loss_L in zip(served, masks, loss_N.split(masks), strict=True):
        value = -each.weight * float(loss_L.sum())
        rows.append((sequence, each.draw, each.draw // how.grid, count, len(each.where_L), value))

    return rows


def _hidden_at_masks(
    lm: LanguageModel, pairs: Sequence[Pair], how: Protocol, part: list[MaskedTarget]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the hidden states at the masks of a batch, (N, D), and those under a prompt of masks.

    The second is None where the protocol has no guidance.
    """
    end = torch.tensor([lm.end_of_text] if how.visible_end else [], dtype=torch.long)
    ids_BT, visible_BT = padded([torch.cat([*pairs[each.sequences[0]], end]) for each in part])
    where_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    is_prompt_BT = torch.zeros_like(where_BT)

    for row, each in enumerate(part):
        prompt, target = pairs[each.sequences[0]]
        where_BT[row, len(prompt) : len(prompt) + len(target)] = each.where_L
        is_prompt_BT[row, : len(prompt)] = True

    input_BT = corrupt(ids_BT, where_BT, lm.mask)
    hidden_ND = lm.hidden_at(input_BT, where_BT, visible_BT)
    if how.guidance == 0:
        return hidden_ND, None

    without_prompt_BT = corrupt(input_BT, is_prompt_BT, lm.mask)
    return hidden_ND, lm.hidden_at(without_prompt_BT, where_BT, visible_BT)


# an autoregressive model: the chain rule


@checked_arguments
@torch.inference_mode()
def exact_log_likelihood(
    lm: InstanceOf[LanguageModel], pairs: Sequence[Pair], batch: Count = 32, progress: bool = False
) -> pd.DataFrame:
    """Return the exact log p(target | prompt) of an autoregressive model, one row per pair.

    Columns: `sequence`, `tokens` (L), `value` (nats for the whole target), `greedy` (every token of the
    target is the most probable one). The last token is never fed to the model, so a pair may have one token
    more than there are positions. Raises ValueError for a diffusion model and for an empty prompt.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is bounded, use `log_likelihood`")

    pairs = _checked_pairs(lm, pairs, extra=-1)
    for sequence, (prompt, _) in enumerate(pairs):
        if len(prompt) == 0:
            raise ValueError(
                f"the prompt of pair {sequence} is empty: an autoregressive model does not predict "
                "position 0, give it a first token"
            )

    rows = []
    for part in batches(_pairs_by_forward(lm, pairs, progress), batch):
        rows += _exact_values(lm, pairs, part)

    frame = pd.DataFrame(rows, columns=["sequence", "tokens", "value", "greedy"])
    return frame.sort_values("sequence", ignore_index=True)


def _exact_values(
    lm: LanguageModel, pairs: Sequence[Pair], part: list[list[int]]
) -> list[tuple[int, int, float, bool]]:
    """Return the rows of `exact_log_likelihood` for a batch of groups of pairs that share a forward pass."""
    ids_BT, visible_BT = padded([torch.cat(pairs[sequences[0]])[:-1] for sequences in part])
    prompt_B1 = torch.tensor([[len(pairs[sequences[0]][0])] for sequences in part])
    target_B1 = torch.tensor([[len(pairs[sequences[0]][1])] for sequences in part])
    predicted_T = torch.arange(ids_BT.shape[1]) + 1  # position of the token that is predicted
    where_BT = (predicted_T >= prompt_B1) & (predicted_T < prompt_B1 + target_B1)

    copies_B = torch.tensor([len(sequences) for sequences in part])
    copies_N = copies_B.repeat_interleave(target_B1[:, 0]).to(lm.device)
    hidden_ND = lm.hidden(ids_BT, visible_BT)[where_BT.to(lm.device)]
    hidden_ND = hidden_ND.repeat_interleave(copies_N, dim=0)

    served = [sequence for sequences in part for sequence in sequences]
    targets = [pairs[sequence][1] for sequence in served]
    loss_N, hit_N = head_losses(lm, hidden_ND, torch.cat(targets))
    counts = [len(target) for target in targets]

    rows = []
    for sequence, loss_L, hit_L in zip(served, loss_N.split(counts), hit_N.split(counts), strict=True):
        rows.append((sequence, len(loss_L), -float(loss_L.sum()), bool(hit_L.all())))

    return rows


# what both share


def _checked_pairs(lm: LanguageModel, pairs: Sequence[Pair], extra: int) -> list[Pair]:
    """Return pairs on the CPU; ValueError unless targets have tokens and pairs with `extra` ones fit."""
    for sequence, (prompt, target) in enumerate(pairs):
        lm.check_ids(prompt)
        lm.check_ids(target)
        if len(target) == 0:
            raise ValueError(f"the target of pair {sequence} is empty: there is nothing to score")

    longest = max((len(prompt) + len(target) + extra for prompt, target in pairs), default=0)
    lm.check_positions(longest)
    return [(prompt.cpu(), target.cpu()) for prompt, target in pairs]


def _pairs_by_forward(lm: LanguageModel, pairs: Sequence[Pair], progress: bool) -> Iterable[list[int]]:
    """Return the numbers of the pairs, those that one forward pass serves together, under a progress bar.

    A forward pass serves all one-token targets of a prompt, or a single longer target. The shortest pairs
    come first, so that pairs of similar length share a batch.
    """
    groups: dict[object, list[int]] = {}
    for sequence, (prompt, target) in enumerate(pairs):
        key = tuple(prompt.tolist()) if len(target) == 1 else sequence
        groups.setdefault(key, []).append(sequence)

    def length(sequences: list[int]) -> int:
        prompt, target = pairs[sequences[0]]
        return len(prompt) + len(target)

    in_order = sorted(groups.values(), key=length)
    return tqdm(in_order, desc=f"likelihood {lm.name}", unit="target", disable=not progress, leave=False)


# estimates with standard errors


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Nats per token of a set of targets, with two standard errors that answer different questions."""

    nats: float
    """Negative log-likelihood or its bound, nats per token."""
    error_draws: float
    """How far other masks on the same targets would move `nats`; 0 where it is exact, NaN for a single draw.

    Grids of draws are taken as independent, or within a single grid its draws, which overestimates the error.
    """
    error_sequences: float
    """How far other targets from the same source would move `nats`; NaN for a single target.

    The scatter of the draws is part of it.
    """
    sequences: int
    """Number of targets."""
    tokens: int
    """Number of tokens of all targets."""

    @property
    def perplexity(self) -> float:
        """Return exp(nats)."""
        return math.exp(self.nats)


def estimate(frame: pd.DataFrame) -> LikelihoodEstimate:
    """Reduce what `log_likelihood` or `exact_log_likelihood` returns to nats per token, all tokens alike."""
    by_sequence = frame.groupby("sequence")
    cost = -by_sequence.value.mean()  # nats per target
    length = by_sequence.tokens.first()
    nats = cost.sum() / length.sum()
    error_draws = _error_over_draws(frame, length) if "draw" in frame else 0.0
    count = len(cost)
    error_sequences = math.nan
    if count > 1:
        squares = ((cost - nats * length) ** 2).sum()
        error_sequences = math.sqrt(count / (count - 1) * squares) / length.sum()

    return LikelihoodEstimate(
        float(nats), float(error_draws), float(error_sequences), count, int(length.sum())
    )


def _error_over_draws(frame: pd.DataFrame, length: pd.Series) -> float:
    """Return the standard error of nats per token over grids of draws, over draws where there is one grid."""
    units = "grid" if frame.grid.nunique() > 1 else "draw"
    means = frame.groupby(["sequence", units]).value.mean()
    variances = means.groupby("sequence").agg(lambda values: values.var(ddof=1) / len(values))
    variances = variances.mask(length == 1, 0.0)  # targets of one token are exact
    return math.sqrt(variances.sum(skipna=False)) / length.sum()


@checked_arguments
def perplexity(
    lm: InstanceOf[LanguageModel],
    ids_T: torch.Tensor,
    how: str | Protocol = "ppl_llada",
    seed: Whole = 0,
    batch: Count = 32,
    progress: bool = False,
) -> LikelihoodEstimate:
    """Return nats per token of a running text, int64 (T,), by the windows of a protocol.

    Exact for an autoregressive model, a bound for a diffusion model; both score the same tokens after the
    same contexts. Values of different protocols are not comparable. Raises ValueError for a protocol
    without windows, a text too short for one, and guidance for an autoregressive model.
    """
    how = protocol(how)
    lm.check_ids(ids_T)
    pairs = how.windows(ids_T)
    if lm.is_diffusion:
        return estimate(log_likelihood(lm, pairs, how, seed, batch, progress))
    if how.guidance > 0:
        raise ValueError(
            f"guidance={how.guidance} cannot be used: {lm.name} is autoregressive and never sees masks "
            "for a prompt"
        )

    return estimate(exact_log_likelihood(lm, pairs, batch, progress))
