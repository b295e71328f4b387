"""How good a diffusion model is beside its autoregressive twin: filling masks, and telling sentences apart.

Filling is paired: both models predict the same tokens.

Dimensions: N sequences, T sequence position, L masked positions of a sequence.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.corpus import separator
from sinkprune_core.diffusion.noise import corrupt, random_mask
from sinkprune_core.evaluation.token_losses import token_losses
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

SHARES = (0.15, 0.5, 0.85)  # of the tokens that are masked, for the accuracy of filling


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
    maskable_T = torch.arange(length) > 0
    parts = []
    for share in shares:
        masks = max(1, round(share * (length - 1)))
        rngs = [generator(seed, "filling", sequence) for sequence in range(count)]
        where_NT = torch.stack([random_mask(maskable_T, masks, rng) for rng in rngs])
        for lm in (ar, dlm):
            input_NT = corrupt(ids_NT, where_NT, lm.mask_token_id) if lm.is_diffusion else ids_NT
            losses, hits = [], []
            starts = range(0, count, batch)
            for start in tqdm(starts, desc=f"fill {lm.name}", disable=not progress, leave=False):
                rows = slice(start, start + batch)
                targets = ids_NT[rows][where_NT[rows]]
                loss, hit = token_losses(lm, input_NT[rows], where_NT[rows], targets)
                losses.append(loss.view(-1, masks))
                hits.append(hit.view(-1, masks))
            columns = {"sequence": range(count), "share": share, "masks": masks, "model": lm.name}
            columns |= {"kind": lm.kind, "correct": torch.cat(hits).double().mean(1)}
            parts.append(pd.DataFrame({**columns, "value": torch.cat(losses).mean(1)}))
    return pd.concat(parts, ignore_index=True)


def minimal_pairs(tokenizer, paradigms: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict]:
    """Return two-choice items that ask to tell `sentence_good` from `sentence_bad`, a group per paradigm.

    Whole sentences are scored, after the separator of documents.
    """
    start = tokenizer.decode([separator(tokenizer)])
    return [
        {
            "group": name,
            "pair": number,
            "template": 0,
            "context": start,
            "choices": [pair["sentence_good"], pair["sentence_bad"]],
            "answer": 0,
        }
        for name, pairs in paradigms.items()
        for number, pair in enumerate(pairs)
    ]
