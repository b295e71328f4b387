"""How good a diffusion model is beside its autoregressive twin: filling masks, and two-choice tasks.

Filling is paired: both models predict the same tokens.

Dimensions: N sequences, T sequence position, B batch, L masked positions of a sequence.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.corpus import separator
from sinkprune_companion.harness import suite
from sinkprune_core.diffusion.noise import corrupt, random_mask
from sinkprune_core.evaluation import two_choice
from sinkprune_core.evaluation.token_losses import token_losses
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

SHARES = (0.15, 0.5, 0.85)  # of the tokens that are masked, for the accuracy of filling

# A task gives a model's answers to its items, as `two_choice.accuracy` does.
Task = Callable[[LanguageModel], pd.DataFrame]


# filling masks


@torch.inference_mode()
def filling(
    dlm: LanguageModel,
    ar: LanguageModel,
    ids_NT: torch.Tensor,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    batch: int = 4,
    progress: bool = False,
) -> pd.DataFrame:
    """Let `dlm` fill masks, and `ar` predict the same tokens from those before them.

    One row per sequence, share and model. Columns: `sequence`, `share` (of the maskable tokens that are
    masked), `masks`, `model`, `kind`, `correct` (share of the masked tokens that are the most probable one)
    and `value` (mean cross entropy at them, nats per token). Position 0 is context. Masks depend on (seed,
    sequence) alone and grow with the share, so that shares are compared on common random numbers.
    """
    count, length = ids_NT.shape
    masked = _masks_by_share(count, length, shares, seed)
    every_token = [(sequence, torch.arange(length) > 0) for sequence in range(count)]
    of_ar = _predictions(ar, ids_NT, every_token, batch, progress)  # one forward pass serves every share
    of_dlm = _predictions(dlm, ids_NT, masked, batch, progress)

    rows = []
    for number, ((sequence, where_T), (loss_L, hit_L)) in enumerate(zip(masked, of_dlm, strict=True)):
        ar_loss, ar_hit = of_ar[sequence]
        compared = ((ar, ar_loss[where_T[1:]], ar_hit[where_T[1:]]), (dlm, loss_L, hit_L))
        for lm, losses_L, hits_L in compared:
            row = {
                "sequence": sequence,
                "share": shares[number // count],
                "masks": len(losses_L),
                "model": lm.name,
                "kind": lm.kind,
                "correct": float(hits_L.double().mean()),
                "value": float(losses_L.mean()),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _masks_by_share(
    count: int, length: int, shares: Sequence[float], seed: int
) -> list[tuple[int, torch.Tensor]]:
    """Return a random mask, bool (T,), with its number of the sequence, for every share and sequence."""
    maskable_T = torch.arange(length) > 0
    masked = []
    for share in shares:
        masks = max(1, round(share * (length - 1)))
        for sequence in range(count):
            where_T = random_mask(maskable_T, masks, generator(seed, "filling", sequence))
            masked.append((sequence, where_T))
    return masked


def _predictions(
    lm: LanguageModel, ids_NT: torch.Tensor, rows: list[tuple[int, torch.Tensor]], batch: int, progress: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return cross-entropies, float64 (L,), and hits, bool (L,), at every mask (T,) on a sequence.

    A hit is a token that is the most probable one. `rows` are numbers of sequences with their masks; a
    diffusion model sees the masks, an autoregressive one the tokens.
    """
    predictions = []
    starts = range(0, len(rows), batch)
    for start in tqdm(starts, desc=f"fill {lm.name}", unit="batch", disable=not progress, leave=False):
        part = rows[start : start + batch]
        ids_BT = ids_NT[[sequence for sequence, _ in part]]
        where_BT = torch.stack([where_T for _, where_T in part])
        input_BT = ids_BT
        if lm.is_diffusion:
            input_BT = corrupt(ids_BT, where_BT, lm.mask_token_id)
        loss_N, hit_N = token_losses(lm, input_BT, where_BT, ids_BT[where_BT])
        counts = where_BT.sum(1).tolist()
        predictions += zip(loss_N.split(counts), hit_N.split(counts), strict=True)
    return predictions


# tasks


def offline_suite(items: int, draws: int, seed: int = 0, progress: bool = False) -> Task:
    """Return the task of about `items` items of the offline suite.

    A diffusion model's likelihoods are bounds from `draws` maskings.
    """

    def task(lm: LanguageModel) -> pd.DataFrame:
        return two_choice.accuracy(lm, suite.sample(items), draws, seed, progress=progress)

    return task


def minimal_pairs(
    paradigms: Mapping[str, Sequence[Mapping[str, str]]], draws: int, seed: int = 0, progress: bool = False
) -> Task:
    """Return the task of telling `sentence_good` from `sentence_bad` in every pair of some paradigms.

    Whole sentences are scored, after the separator of documents. A diffusion model's likelihoods are bounds
    from `draws` maskings, the same for both sentences of a pair.
    """

    def task(lm: LanguageModel) -> pd.DataFrame:
        start = lm.tokenizer.decode([separator(lm.tokenizer)])
        items = []
        for name, pairs in paradigms.items():
            for number, pair in enumerate(pairs):
                item = {
                    "group": name,
                    "pair": number,
                    "template": 0,
                    "context": start,
                    "choices": [pair["sentence_good"], pair["sentence_bad"]],
                    "answer": 0,
                }
                items.append(item)
        return two_choice.accuracy(lm, items, draws, seed, progress=progress)

    return task
