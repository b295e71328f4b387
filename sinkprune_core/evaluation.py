"""Likelihood on held-out text, with common random numbers so that variants of a model can be compared in pairs.

Dimensions: N sequences, S draws, B batch, T sequence position, L maskable positions, V vocabulary.
"""

import pandas as pd
import torch
from tqdm.auto import tqdm

from .diffusion import corrupt, even_split, random_mask, stratified_counts
from .models import LanguageModel
from .seeds import generator

HEAD_SLICE = 512  # positions whose logits are held at once: 100 MB at a vocabulary of 49,152


@torch.inference_mode()
def nelbo(lm: LanguageModel, ids_NT: torch.Tensor, draws: int = 8, seed: int = 0, batch: int = 32, progress: bool = False, steps: int | None = None) -> pd.DataFrame:
    """Estimate the negative evidence lower bound of a diffusion model; one row per sequence and draw.

    Columns: `sequence`, `draw`, `noise` (masked share of the maskable positions), `value` (nats per token: mean cross
    entropy at the masks, an unbiased estimate of the per-token NELBO when the number of masks is uniform on 1 … L).
    Noise depends on (seed, sequence) alone: not on the batch, not on the model. Position 0 is context.

    `steps` bounds generation in that many denoising steps instead: tokens are revealed in random order, in groups of
    even size, each group predicted in parallel from what was revealed before. A uniform token of that order belongs to
    a group, and pays the cross entropy at the masks that were there when its group was predicted. As many steps as
    tokens give the ordinary NELBO. Raises ValueError for steps outside 1 … L.
    """
    if not lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is exact, use `nll`")
    count, length = ids_NT.shape
    if steps is not None and not 1 <= steps <= length - 1:
        raise ValueError(f"steps={steps} must lie in 1 … {length - 1}, the number of tokens to reveal")
    maskable_T = torch.arange(length) > 0
    borders = torch.tensor(even_split(length - 1, steps or length - 1)).flip(0).cumsum(0)  # masks before each step, ascending
    rows = []
    for sequence in range(count):
        rng = generator(seed, "nelbo", sequence)
        ranks_S = stratified_counts(draws, length - 1, rng)
        for draw, masks in enumerate(borders[torch.searchsorted(borders, ranks_S)].tolist()):
            rows.append((sequence, draw, masks, random_mask(maskable_T, masks, rng)))
    rows.sort(key=lambda row: row[2])  # batches of like noise level need logits for like numbers of positions
    values = []
    for start in tqdm(range(0, len(rows), batch), desc=f"NELBO {lm.name}", unit="batch", disable=not progress, leave=False):
        part = rows[start : start + batch]
        where_BT = torch.stack([row[3] for row in part])
        ids_BT = ids_NT[[row[0] for row in part]]
        values += _mean_cross_entropy(lm, corrupt(ids_BT, where_BT, lm.mask_token_id), where_BT, ids_BT)
    frame = pd.DataFrame({"sequence": [r[0] for r in rows], "draw": [r[1] for r in rows], "noise": [r[2] / (length - 1) for r in rows], "value": values})
    return frame.sort_values(["sequence", "draw"], ignore_index=True)


@torch.inference_mode()
def nll(lm: LanguageModel, ids_NT: torch.Tensor, batch: int = 32, progress: bool = False) -> pd.DataFrame:
    """Return the exact negative log-likelihood of an autoregressive model; columns `sequence`, `value` (nats per token).

    Position 0 is context, as in `nelbo`, so that both count the same tokens.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is bounded, use `nelbo`")
    values = []
    for start in tqdm(range(0, len(ids_NT), batch), desc=f"NLL {lm.name}", unit="batch", disable=not progress, leave=False):
        ids_BT = ids_NT[start : start + batch]
        where_BT = (torch.arange(ids_BT.shape[1]) > 0).expand_as(ids_BT)
        values += _mean_cross_entropy(lm, ids_BT, where_BT, ids_BT)
    return pd.DataFrame({"sequence": range(len(values)), "value": values})


def score(lm: LanguageModel, ids_NT: torch.Tensor, draws: int = 8, seed: int = 0, batch: int = 32, progress: bool = False) -> pd.DataFrame:
    """Return nats per token and sequence by the estimator that fits the model; columns `sequence`, `value`."""
    if not lm.is_diffusion:
        return nll(lm, ids_NT, batch, progress)
    return nelbo(lm, ids_NT, draws, seed, batch, progress).groupby("sequence", as_index=False).value.mean()


def _mean_cross_entropy(lm: LanguageModel, input_BT: torch.Tensor, where_BT: torch.Tensor, target_BT: torch.Tensor) -> list[float]:
    """Return the mean cross-entropy at `where_BT` of every row; the output head runs in slices of bounded memory."""
    hidden_ND, target_N = lm.hidden_at(input_BT, where_BT), target_BT[where_BT].to(lm.device)
    slices = zip(hidden_ND.split(HEAD_SLICE), target_N.split(HEAD_SLICE), strict=True)
    loss_N = torch.cat([torch.nn.functional.cross_entropy(lm.head(hidden), target, reduction="none") for hidden, target in slices])
    return [float(part.mean()) for part in loss_N.double().cpu().split(where_BT.sum(1).tolist())]
