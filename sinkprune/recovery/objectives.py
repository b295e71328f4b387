"""What is learned: the loss that evaluation measures, and beside it the predictions of a teacher.

All losses are in nats per token. Dimensions: B batch, T sequence position, N predicted positions, D hidden
width, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from pydantic import InstanceOf
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.checkpoint import checkpoint

from sinkprune_core.diffusion.noise import corrupt, random_mask, stratified_counts
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Number, TokenIds, Whole, checked_arguments

LOGITS_BYTES = 1 << 28  # of the logits that are kept for the backward pass; more are computed twice


class Exercise(NamedTuple):
    """What a model is shown, and what it has to predict."""

    input_BT: torch.Tensor  # int64
    where_BT: torch.Tensor  # bool: the positions that are predicted
    target_N: torch.Tensor  # int64, row by row
    weight_N: torch.Tensor  # float32: shares of the loss, which add up to 1


def exercise(
    lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator, level: float | None = None
) -> Exercise:
    """Return what a model has to predict of a batch, such that its loss estimates the evaluation's measure.

    An autoregressive model predicts every token but the first (`nll`). A diffusion model gets a random number
    of masks in every row, stratified over the batch, or as many as a noise `level` says; each row counts the
    mean at its masks (`nelbo`). Its position 0 is masked as often as any other, so that no model learns that
    a first token is always there, and is never predicted.
    """
    batch, length = ids_BT.shape
    predicted_T = torch.arange(length) > 0

    if not lm.is_diffusion:
        where_BT = predicted_T.expand(batch, length)
        count = batch * (length - 1)
        return Exercise(ids_BT, where_BT, ids_BT[where_BT], torch.full((count,), 1 / count))

    if level is None:
        counts_B = stratified_counts(batch, length - 1, rng)
    else:
        counts_B = torch.full((batch,), max(1, round(level * (length - 1))))

    where_BT = torch.stack([random_mask(predicted_T, int(count), rng) for count in counts_B])
    masked_BT = where_BT.clone()
    masked_BT[:, 0] = torch.rand(batch, generator=rng) < counts_B / (length - 1)
    input_BT = corrupt(ids_BT, masked_BT, lm.mask)
    masks_N = counts_B.repeat_interleave(counts_B)

    return Exercise(input_BT, where_BT, ids_BT[where_BT], 1 / (batch * masks_N.float()))


def loss_of(
    lm: LanguageModel,
    task: Exercise,
    teacher: LanguageModel | None = None,
    distillation: float = 0.0,
    training: bool = False,
) -> torch.Tensor:
    """Return the loss of a model on an exercise, a scalar with a gradient.

    It is the cross entropy of the text, of which a share `distillation` is replaced by the divergence
    KL(teacher ‖ model) at the same positions. The logits are computed in slices where they are many.
    `training` allows for dropout in the model.
    """
    hidden_ND = lm.hidden_at(task.input_BT, task.where_BT, training=training)
    teacher_ND = None
    if teacher is not None and distillation > 0:
        with torch.no_grad():
            teacher_ND = teacher.hidden_at(task.input_BT, task.where_BT)

    target_N = task.target_N.to(hidden_ND.device)
    weight_N = task.weight_N.to(hidden_ND.device)
    vocabulary = lm.vocabulary
    rows = max(1, LOGITS_BYTES // (vocabulary * torch.float32.itemsize))
    is_sliced = len(hidden_ND) > rows

    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for start in range(0, len(hidden_ND), rows):
        part = slice(start, start + rows)
        taught_ND = None if teacher_ND is None else teacher_ND[part]
        arguments = (lm, hidden_ND[part], target_N[part], weight_N[part], teacher, taught_ND, distillation)
        if is_sliced:
            total = total + checkpoint(_slice_loss, *arguments, use_reentrant=False)
        else:
            total = total + _slice_loss(*arguments)

    return total


@checked_arguments
def training_loss(
    lm: InstanceOf[LanguageModel], ids_BT: TokenIds, seed: Whole = 0, step: Number = 0
) -> torch.Tensor:
    """Return the loss of a batch of token ids, int64 (B, T), for a training loop of one's own.

    It is the objective of `recover`, a scalar in nats per token with a gradient: masked positions of a
    diffusion model, where the noise is a function of `seed` and `step`, next tokens of another. Every row
    counts as text to its end, so rows without padding are wanted. A model in training mode, as a Trainer puts
    it, has its dropout. Raises ValueError for ids that are no rows of at least two tokens of the model.
    """
    if not len(ids_BT) or ids_BT.shape[1] < 2:
        raise ValueError(f"ids_BT has shape {tuple(ids_BT.shape)}: give at least one sequence of 2 tokens")

    rng = generator(seed, "recovery noise", step)
    return loss_of(lm, exercise(lm, ids_BT, rng), training=True)


def _slice_loss(
    lm: LanguageModel,
    hidden_ND: torch.Tensor,
    target_N: torch.Tensor,
    weight_N: torch.Tensor,
    teacher: LanguageModel | None,
    teacher_ND: torch.Tensor | None,
    distillation: float,
) -> torch.Tensor:
    """Return the part of the loss that some positions have."""
    logits_NV = lm.head(hidden_ND)
    loss_N = torch.zeros_like(weight_N)
    if distillation < 1:
        loss_N = loss_N + (1 - distillation) * cross_entropy(logits_NV, target_N, reduction="none")
    if teacher is not None and teacher_ND is not None:
        with torch.no_grad():
            expected_NV = log_softmax(teacher.head(teacher_ND), dim=-1).to(logits_NV.device)
        found_NV = log_softmax(logits_NV, dim=-1)
        divergence_NV = kl_div(found_NV, expected_NV, log_target=True, reduction="none")
        loss_N = loss_N + distillation * divergence_NV.sum(-1)

    return (loss_N * weight_N).sum()


@contextmanager
def precision(lm: LanguageModel, dtype: str) -> Iterator[None]:
    """Compute products in `bfloat16` from float32 weights, or all in `float32`, on any device."""
    if dtype == "float32":
        yield
        return
    with torch.autocast(lm.device.type, dtype=torch.bfloat16):
        yield
