"""Likelihood of whole sequences, on common random numbers, so that variants of a model compare in pairs.

Dimensions: N sequences, S draws, B batch, T sequence position.
"""

from typing import NamedTuple

import pandas as pd
import torch
from pydantic import InstanceOf
from tqdm.auto import tqdm

from sinkprune.evaluation.token_losses import token_losses
from sinkprune_core.diffusion.noise import corrupt, even_split, random_mask, stratified_counts
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, Flag, TokenIds, Whole, checked_arguments


class MaskedSequence(NamedTuple):
    """One random mask on one sequence."""

    sequence: int  # its number
    draw: int
    masks: int  # how many tokens are masked
    where_T: torch.Tensor  # which ones, bool (T,)


@checked_arguments
@torch.inference_mode()
def nelbo(
    lm: InstanceOf[LanguageModel],
    ids_NT: TokenIds,
    draws: Count = 8,
    seed: Whole = 0,
    batch: Count = 32,
    progress: Flag = False,
    steps: Count | None = None,
    first_scored: Count = 1,
) -> pd.DataFrame:
    """Estimate the negative evidence lower bound of a diffusion model; one row per sequence and draw.

    Columns: `sequence`, `draw`, `noise` (masked share of the maskable positions), `value` (nats per token:
    mean cross entropy at the masks, an unbiased estimate of the per-token NELBO when the number of masks is
    uniform on 1 … T - 1). Noise depends on (seed, sequence) alone: not on the batch, not on the model.
    Positions before `first_scored` are context, never masked and not counted: with 2 behind one more first
    token the masks are the same, token by token, as with 1 without it.

    `steps` bounds generation in that many denoising steps instead: tokens are revealed in random order, in
    groups of even size, each group predicted in parallel from the tokens revealed before it. A token drawn
    uniformly belongs to one of these groups, and its cost is the mean cross entropy at the masks present
    when that group is predicted. As many steps as tokens give the ordinary NELBO.
    Raises ValueError for an autoregressive model, for ids and numbers outside their ranges (at least 2
    tokens, 1 draw, 1 row per batch, 1 … T - 1 steps), and where a result is not finite.
    """
    if not lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is exact, use `nll`")

    _check_text(lm, ids_NT, first_scored)
    scored = ids_NT.shape[1] - first_scored
    if steps is not None and steps > scored:
        raise ValueError(f"steps={steps} must lie in 1 … {scored}, the number of tokens to reveal")

    rows = _masked_sequences(len(ids_NT), first_scored, scored, draws, seed, steps)
    rows.sort(key=lambda row: row.masks)  # a batch of similar noise levels has similar numbers of masks
    values = []

    starts = range(0, len(rows), batch)
    for start in tqdm(starts, desc=f"NELBO {lm.name}", unit="batch", disable=not progress, leave=False):
        part = rows[start : start + batch]
        where_BT = torch.stack([row.where_T for row in part])
        ids_BT = ids_NT[[row.sequence for row in part]]
        input_BT = corrupt(ids_BT, where_BT, lm.mask)
        values += _mean_cross_entropies(lm, input_BT, where_BT, ids_BT)

    frame = pd.DataFrame(
        {
            "sequence": [row.sequence for row in rows],
            "draw": [row.draw for row in rows],
            "noise": [row.masks / scored for row in rows],
            "value": values,
        }
    )

    return frame.sort_values(["sequence", "draw"], ignore_index=True)


def _check_text(lm: LanguageModel, ids_NT: torch.Tensor, first_scored: int) -> None:
    if ids_NT.shape[0] < 1 or ids_NT.shape[1] < 2:
        raise ValueError(
            f"ids have shape {tuple(ids_NT.shape)}; expected at least one sequence of at least 2 tokens: "
            "the first one is never predicted"
        )

    if first_scored >= ids_NT.shape[1]:
        raise ValueError(
            f"first_scored={first_scored} must lie in 1 … {ids_NT.shape[1] - 1}: "
            "it is the first position whose token counts"
        )

    lm.check_ids(ids_NT)
    lm.check_positions(ids_NT.shape[-1])


def _masked_sequences(
    count: int, first_scored: int, scored: int, draws: int, seed: int, steps: int | None
) -> list[MaskedSequence]:
    """Return the random masks of `count` sequences in order of sequence and draw.

    They lie on `scored` tokens from position `first_scored` on. A stratified number from 1 … scored is the
    rank of a token in reverse order of revealing. As many tokens are masked as are when the group of that
    token is predicted: without `steps` every token is a group of its own.
    """
    maskable_T = torch.arange(first_scored + scored) >= first_scored
    group_sizes = torch.tensor(even_split(scored, steps or scored))
    masks_before_steps = group_sizes.flip(0).cumsum(0)  # of the last step, the last but one, …

    rows = []
    for sequence in range(count):
        rng = generator(seed, "nelbo", sequence)
        rank_S = stratified_counts(draws, scored, rng)
        masks_S = masks_before_steps[torch.searchsorted(masks_before_steps, rank_S)]
        for draw, masks in enumerate(masks_S.tolist()):
            rows.append(MaskedSequence(sequence, draw, masks, random_mask(maskable_T, masks, rng)))

    return rows


@checked_arguments
@torch.inference_mode()
def nll(
    lm: InstanceOf[LanguageModel],
    ids_NT: TokenIds,
    batch: Count = 32,
    progress: Flag = False,
    first_scored: Count = 1,
) -> pd.DataFrame:
    """Return the exact negative log-likelihood of an autoregressive model, one row per sequence.

    Columns: `sequence`, `value` (nats per token). Positions before `first_scored` are context, as in `nelbo`,
    so that both count the same tokens. Raises ValueError for a diffusion model, for ids and numbers outside
    their ranges, and where a result is not finite.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is bounded, use `nelbo`")

    _check_text(lm, ids_NT, first_scored)
    values = []

    starts = range(0, len(ids_NT), batch)
    for start in tqdm(starts, desc=f"NLL {lm.name}", unit="batch", disable=not progress, leave=False):
        ids_BT = ids_NT[start : start + batch]
        where_BT = (torch.arange(ids_BT.shape[1]) >= first_scored).expand_as(ids_BT)
        values += _mean_cross_entropies(lm, ids_BT, where_BT, ids_BT)

    return pd.DataFrame({"sequence": range(len(values)), "value": values})


@checked_arguments
def score(
    lm: InstanceOf[LanguageModel],
    ids_NT: TokenIds,
    draws: Count = 8,
    seed: Whole = 0,
    batch: Count = 32,
    progress: Flag = False,
) -> pd.DataFrame:
    """Return nats per token by the estimator that fits the model; columns `sequence`, `value`."""
    if not lm.is_diffusion:
        return nll(lm, ids_NT, batch, progress)
    frame = nelbo(lm, ids_NT, draws, seed, batch, progress)
    return frame.groupby("sequence", as_index=False).value.mean()


def _mean_cross_entropies(
    lm: LanguageModel, input_BT: torch.Tensor, where_BT: torch.Tensor, target_BT: torch.Tensor
) -> list[float]:
    """Return the mean cross entropy of every row at its positions `where_BT`, in nats."""
    loss_N, _ = token_losses(lm, input_BT, where_BT, target_BT[where_BT])
    counts = where_BT.sum(1).tolist()
    return [float(loss_L.mean()) for loss_L in loss_N.split(counts)]
