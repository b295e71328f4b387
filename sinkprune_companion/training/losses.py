"""The two losses, in nats per token, on a batch and on held-out text, and the precision they are computed in.

Dimensions: B batch, N sequences, T sequence position, N predicted positions, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy

from sinkprune_core.diffusion.noise import corrupt, random_mask, stratified_counts
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models.language_model import LanguageModel


def masked_cross_entropy(
    lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator, level: float | None = None
) -> torch.Tensor:
    """Return a one-batch estimate of the NELBO in nats per token, or of the part of it at one noise `level`.

    Position 0 is masked as often as any other, so no model learns that a first token is always there, and
    never predicted, as the twin's is not.
    """
    batch, length = ids_BT.shape
    predicted_T = torch.arange(length) > 0
    if level is None:
        counts_B = stratified_counts(batch, length - 1, rng)
    else:
        counts_B = torch.full((batch,), max(1, round(level * (length - 1))))
    where_BT = torch.stack([random_mask(predicted_T, int(count), rng) for count in counts_B])
    masked_BT = where_BT.clone()
    masked_BT[:, 0] = torch.rand(batch, generator=rng) < counts_B / (length - 1)
    logits_NV = lm.logits_at(corrupt(ids_BT, masked_BT, lm.mask_token_id), where_BT)
    loss_N = cross_entropy(logits_NV, ids_BT[where_BT].to(logits_NV.device), reduction="none")
    masks_N = counts_B.repeat_interleave(counts_B).to(loss_N)  # masks in the sequence of each prediction
    return (loss_N / masks_N).sum() / batch


def next_token_cross_entropy(
    lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator, level: float | None = None
) -> torch.Tensor:
    """Return the mean negative log-likelihood of a batch in nats per token; `rng` and `level` do nothing."""
    where_BT = (torch.arange(ids_BT.shape[1]) > 0).expand_as(ids_BT)
    logits_NV = lm.logits_at(ids_BT, where_BT)
    return cross_entropy(logits_NV, ids_BT[where_BT].to(logits_NV.device))


LOSSES = {"diffusion": masked_cross_entropy, "autoregressive": next_token_cross_entropy}
MEASURES = {"diffusion": "nelbo", "autoregressive": "nll"}  # what the log calls the loss of a kind


@contextmanager
def precision_of(lm: LanguageModel, dtype: str) -> Iterator[None]:
    """Compute in `bfloat16`, without casting inputs to float32 and back, or in `float32`, on any device."""
    if dtype == "float32":
        yield
        return
    with torch.autocast(lm.device.type, dtype=torch.bfloat16), disable_input_dtype_casting(lm.model):
        yield


def held_out_losses(
    lm: LanguageModel, held_out: dict[str, torch.Tensor], dtype: str, count: int, draws: int
) -> dict[str, float]:
    """Return the mean NELBO or negative log-likelihood, in nats per token, of the first `count` sequences of
    each source and kind, int64 (N, T), by `{measure}_{source}_{kind}`; a NELBO has `draws` noise levels each.
    """
    with precision_of(lm, dtype):
        return {
            f"{MEASURES[lm.kind]}_{name}": float(score(lm, ids_NT[:count], draws, seed=0).value.mean())
            for name, ids_NT in held_out.items()
        }
