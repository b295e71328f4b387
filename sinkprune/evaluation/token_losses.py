"""Cross-entropies at chosen positions, and the batches in which models are given their inputs.

The output head runs in slices: the logits of all positions at once would need more memory than the model.

Dimensions: B batch, T sequence position, N selected positions, D hidden size, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch.nn.functional import cross_entropy

from sinkprune_core.language_model import LanguageModel
from sinkprune_core.memory import rows_in_cache

HEAD_SLICE = 256  # positions whose logits are held at once: 50 MB at a vocabulary of 49,152


def token_losses(
    lm: LanguageModel, input_BT: torch.Tensor, where_BT: torch.Tensor, target_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropies of `lm` at the positions `where_BT`, and where its best guess is right.

    `input_BT` and `target_N` are token ids, int64; `where_BT` is bool. The first result is in nats, float64
    (N,), the second, whether the target is the most probable token, bool (N,); both are on the CPU.
    """
    return head_losses(lm, lm.hidden_at(input_BT, where_BT), target_N)


def head_losses(
    lm: LanguageModel,
    hidden_ND: torch.Tensor,
    target_N: torch.Tensor,
    unconditional_ND: torch.Tensor | None = None,
    guidance: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `token_losses` returns, from the hidden states of the selected positions.

    With `unconditional_ND`, the hidden states under a prompt of masks, logits are guided:
    unconditional + (guidance + 1) (conditional - unconditional). Raises ValueError for a target that is no
    token of the vocabulary, and for a loss that is not finite.
    """
    lm.check_ids(target_N)
    losses = [torch.zeros(0, dtype=torch.float64)]
    hits = [torch.zeros(0, dtype=torch.bool)]

    for start in range(0, len(hidden_ND), HEAD_SLICE):
        part = slice(start, start + HEAD_SLICE)
        unconditional = None if unconditional_ND is None else unconditional_ND[part]
        loss, hit = _slice_losses(lm, hidden_ND[part], target_N[part], unconditional, guidance)
        losses.append(loss)
        hits.append(hit)

    return lm.check_output(torch.cat(losses)), torch.cat(hits)


def _slice_losses(
    lm: LanguageModel,
    hidden_ND: torch.Tensor,
    target_N: torch.Tensor,
    unconditional_ND: torch.Tensor | None,
    guidance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and hits of one slice, whose logits are freed before those of the next one are made."""
    target_N = target_N.to(lm.device)
    logits_NV = lm.raw_logits(hidden_ND)
    if unconditional_ND is not None:
        unconditional_NV = lm.raw_logits(unconditional_ND).float()
        logits_NV = unconditional_NV + (guidance + 1) * (logits_NV.float() - unconditional_NV)

    rows = rows_in_cache(logits_NV.shape[1] * torch.float32.itemsize, logits_NV.device)
    losses = [
        cross_entropy(part_NV.float(), part_N, reduction="none")
        for part_NV, part_N in zip(logits_NV.split(rows), target_N.split(rows), strict=True)
    ]

    return torch.cat(losses).cpu().double(), _hits(logits_NV, target_N).cpu()


def _hits(logits_NV: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Return where the target is the first token of the highest logit, bool (N,).

    To find an index in a row takes much longer than to find its highest value, so only rows where the target
    has that value are asked for theirs.
    """
    hit_N = logits_NV.gather(1, target_N[:, None])[:, 0] == logits_NV.amax(-1)
    hit_N[hit_N.clone()] = logits_NV[hit_N].argmax(-1) == target_N[hit_N]
    return hit_N


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield the items in lists of `size`; the last list may be shorter."""
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return rows of ids as one batch padded on the right, int64 (B, T), and its attention mask.

    Padding on the right leaves every token its position. The mask is int64 (B, T), None if no row is padded.
    """
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    length_B1 = torch.tensor([[len(row)] for row in rows])
    if bool((length_B1 == ids_BT.shape[1]).all()):
        return ids_BT, None

    visible_BT = torch.arange(ids_BT.shape[1]) < length_B1
    return ids_BT, visible_BT.long()
