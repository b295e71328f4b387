"""Likelihood on held-out text, with common random numbers so that variants of a model can be compared in pairs.

Dimensions: N sequences or positions, S draws, B batch, T sequence position, P prompt, L maskable positions, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_core.diffusion.sampling import (
    check_positions,
    corrupt,
    even_split,
    random_mask,
    stratified_counts,
)
from sinkprune_core.evaluation.protocols import Protocol, protocol
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

HEAD_SLICE = 256  # positions whose logits are held at once: 50 MB at a vocabulary of 49,152

Pair = tuple[torch.Tensor, torch.Tensor]  # a prompt, int64 (P,), and the target that follows it, int64 (L,)


@torch.inference_mode()
def nelbo(
    lm: LanguageModel,
    ids_NT: torch.Tensor,
    draws: int = 8,
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
    steps: int | None = None,
) -> pd.DataFrame:
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
    borders = (
        torch.tensor(even_split(length - 1, steps or length - 1)).flip(0).cumsum(0)
    )  # masks before each step, ascending
    rows = []
    for sequence in range(count):
        rng = generator(seed, "nelbo", sequence)
        ranks_S = stratified_counts(draws, length - 1, rng)
        for draw, masks in enumerate(borders[torch.searchsorted(borders, ranks_S)].tolist()):
            rows.append((sequence, draw, masks, random_mask(maskable_T, masks, rng)))
    rows.sort(key=lambda row: row[2])  # batches of like noise level need logits for like numbers of positions
    values = []
    for start in tqdm(
        range(0, len(rows), batch), desc=f"NELBO {lm.name}", unit="batch", disable=not progress, leave=False
    ):
        part = rows[start : start + batch]
        where_BT = torch.stack([row[3] for row in part])
        ids_BT = ids_NT[[row[0] for row in part]]
        values += _mean_cross_entropy(lm, corrupt(ids_BT, where_BT, lm.mask_token_id), where_BT, ids_BT)
    frame = pd.DataFrame(
        {
            "sequence": [r[0] for r in rows],
            "draw": [r[1] for r in rows],
            "noise": [r[2] / (length - 1) for r in rows],
            "value": values,
        }
    )
    return frame.sort_values(["sequence", "draw"], ignore_index=True)


@torch.inference_mode()
def nll(lm: LanguageModel, ids_NT: torch.Tensor, batch: int = 32, progress: bool = False) -> pd.DataFrame:
    """Return the exact negative log-likelihood of an autoregressive model; columns `sequence`, `value` (nats per token).

    Position 0 is context, as in `nelbo`, so that both count the same tokens.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is bounded, use `nelbo`")
    values = []
    for start in tqdm(
        range(0, len(ids_NT), batch), desc=f"NLL {lm.name}", unit="batch", disable=not progress, leave=False
    ):
        ids_BT = ids_NT[start : start + batch]
        where_BT = (torch.arange(ids_BT.shape[1]) > 0).expand_as(ids_BT)
        values += _mean_cross_entropy(lm, ids_BT, where_BT, ids_BT)
    return pd.DataFrame({"sequence": range(len(values)), "value": values})


def score(
    lm: LanguageModel,
    ids_NT: torch.Tensor,
    draws: int = 8,
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Return nats per token and sequence by the estimator that fits the model; columns `sequence`, `value`."""
    if not lm.is_diffusion:
        return nll(lm, ids_NT, batch, progress)
    return nelbo(lm, ids_NT, draws, seed, batch, progress).groupby("sequence", as_index=False).value.mean()


@torch.inference_mode()
def log_likelihood(
    lm: LanguageModel,
    pairs: Sequence[Pair],
    how: str | Protocol = "llada",
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Estimate log p(target | prompt) under a diffusion model, a lower bound on average; one row per pair and draw.

    Columns: `sequence`, `draw`, `grid` (draws of one grid share noise levels), `masks`, `tokens` (L), `value` (nats for
    the whole target, 0 for a draw without masks). Noise depends on (seed, tokens of the pair) alone: not on the batch,
    the other pairs or the model. A target of one token is exact in one draw, and all such targets of a prompt share
    one forward. `how` names a protocol or is one.
    Raises ValueError for an autoregressive model, an unknown protocol, an empty target and more tokens than positions.
    """
    if not lm.is_diffusion:
        raise ValueError(
            f"{lm.name} is {lm.kind}: its likelihood is exact, use `exact_log_likelihood`, which knows no protocol and no guidance"
        )
    how = protocol(how)
    check_pairs(lm, pairs, extra=int(how.visible_end))
    if how.visible_end and lm.tokenizer.eos_token_id is None:
        raise ValueError(
            f"visible_end=True needs an end-of-text token, and the tokenizer of {lm.name} has none: set visible_end=False"
        )
    end = torch.tensor([lm.tokenizer.eos_token_id] if how.visible_end else [], dtype=torch.long)

    def draws() -> Iterator[tuple[list[int], int, torch.Tensor, float]]:
        for sharing in tqdm(
            _sharing(pairs), desc=f"likelihood {lm.name}", unit="target", disable=not progress, leave=False
        ):
            prompt, target = pairs[sharing[0]]
            for draw, (where_L, weight) in enumerate(
                how.noise(len(target), generator(seed, "likelihood", prompt.tolist(), target.tolist()))
            ):
                yield sharing, draw, where_L, weight

    rows = []
    for part in batches(draws(), batch):
        lengths = [tuple(map(len, pairs[sharing[0]])) for sharing, *_ in part]
        ids_BT, visible_BT = _padded([torch.cat([*pairs[sharing[0]], end]) for sharing, *_ in part])
        where_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        for row, (_, _, where_L, _) in enumerate(part):
            where_BT[row, lengths[row][0] : sum(lengths[row])] = where_L
        prompt_BT = torch.arange(ids_BT.shape[1]) < torch.tensor([[prompt] for prompt, _ in lengths])
        target_N = torch.cat(
            [pairs[sequence][1][where_L] for sharing, _, where_L, _ in part for sequence in sharing]
        )
        copies_N = torch.cat(
            [torch.full((int(where_L.sum()),), len(sharing)) for sharing, _, where_L, _ in part]
        )
        loss_N, _ = token_losses(
            lm,
            corrupt(ids_BT, where_BT, lm.mask_token_id),
            where_BT,
            target_N,
            visible_BT,
            prompt_BT,
            how.guidance,
            copies_N,
        )
        owners = [
            (sequence, draw, where_L, weight)
            for sharing, draw, where_L, weight in part
            for sequence in sharing
        ]
        for (sequence, draw, where_L, weight), loss_L in zip(
            owners, loss_N.split([int(where_L.sum()) for _, _, where_L, _ in owners]), strict=True
        ):
            rows.append(
                (
                    sequence,
                    draw,
                    draw // how.grid,
                    int(where_L.sum()),
                    len(where_L),
                    -weight * float(loss_L.sum()),
                )
            )
    frame = pd.DataFrame(rows, columns=["sequence", "draw", "grid", "masks", "tokens", "value"])
    return frame.sort_values(["sequence", "draw"], ignore_index=True)


@torch.inference_mode()
def exact_log_likelihood(
    lm: LanguageModel, pairs: Sequence[Pair], batch: int = 32, progress: bool = False
) -> pd.DataFrame:
    """Return the exact log p(target | prompt) of an autoregressive model; columns `sequence`, `tokens`, `value` (nats), `greedy`.

    `greedy`: every token of the target is the most probable one. The last token is never fed to the model, so a pair
    may have one token more than there are positions. Raises ValueError for a diffusion model and for an empty prompt.
    """
    if lm.is_diffusion:
        raise ValueError(f"{lm.name} is {lm.kind}: its likelihood is bounded, use `log_likelihood`")
    check_pairs(lm, pairs, extra=-1)
    for sequence, (prompt, _) in enumerate(pairs):
        if len(prompt) == 0:
            raise ValueError(
                f"the prompt of pair {sequence} is empty: an autoregressive model does not predict position 0, give it a first token"
            )
    rows = []
    for part in batches(
        tqdm(_sharing(pairs), desc=f"likelihood {lm.name}", unit="target", disable=not progress, leave=False),
        batch,
    ):
        lengths_B2 = torch.tensor([[len(tensor) for tensor in pairs[sharing[0]]] for sharing in part])
        ids_BT, visible_BT = _padded([torch.cat(pairs[sharing[0]])[:-1] for sharing in part])
        place_T = torch.arange(ids_BT.shape[1]) + 1  # of the token that is predicted
        where_BT = (place_T >= lengths_B2[:, :1]) & (place_T < lengths_B2.sum(1, keepdim=True))
        owners = [sequence for sharing in part for sequence in sharing]
        copies_N = torch.tensor([len(sharing) for sharing in part]).repeat_interleave(lengths_B2[:, 1])
        hidden_ND = lm.hidden(ids_BT, visible_BT)[where_BT.to(lm.device)].repeat_interleave(
            copies_N.to(lm.device), dim=0
        )
        loss_N, greedy_N = _head_losses(lm, hidden_ND, torch.cat([pairs[sequence][1] for sequence in owners]))
        counts = [len(pairs[sequence][1]) for sequence in owners]
        for sequence, loss_L, greedy_L in zip(
            owners, loss_N.split(counts), greedy_N.split(counts), strict=True
        ):
            rows.append((sequence, len(loss_L), -float(loss_L.sum()), bool(greedy_L.all())))
    return pd.DataFrame(rows, columns=["sequence", "tokens", "value", "greedy"]).sort_values(
        "sequence", ignore_index=True
    )


@dataclass(frozen=True)
class Estimate:
    """Nats per token of a set of targets, with two standard errors that answer different questions.

    `error_draws`: how far other masks on the same targets would move `nats` (0 where it is exact). It takes grids of
    draws as independent; within a single grid it takes draws as independent, which errs on the large side.
    `error_sequences`: how far other targets from the same source would, the draws' own scatter included. NaN where a
    single draw or a single target cannot tell.
    """

    nats: float
    error_draws: float
    error_sequences: float
    sequences: int
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats)


def estimate(frame: pd.DataFrame) -> Estimate:
    """Reduce what `log_likelihood` or `exact_log_likelihood` returns to nats per token, every token of all targets alike."""
    groups = frame.groupby("sequence")
    total, length = -groups.value.mean(), groups.tokens.first()
    nats = total.sum() / length.sum()
    errors = 0.0
    if "draw" in frame:
        units = "grid" if frame.grid.nunique() > 1 else "draw"
        spread = (
            frame.groupby(["sequence", units])
            .value.mean()
            .groupby("sequence")
            .agg(lambda values: values.var(ddof=1) / len(values))
        )
        errors = math.sqrt(spread.mask(length == 1, 0.0).sum(skipna=False)) / length.sum()
    count = len(total)
    between = (
        math.sqrt(count / (count - 1) * ((total - nats * length) ** 2).sum()) / length.sum()
        if count > 1
        else math.nan
    )
    return Estimate(float(nats), float(errors), float(between), count, int(length.sum()))


def perplexity(
    lm: LanguageModel,
    ids_T: torch.Tensor,
    how: str | Protocol = "ppl_llada",
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
) -> Estimate:
    """Return nats per token of a running text, int64 (T,), by the windows of a protocol: exact if autoregressive, else a bound.

    Both kinds score the same tokens after the same contexts. Values of different protocols are not comparable.
    """
    how = protocol(how)
    pairs = how.windows(ids_T)
    if not lm.is_diffusion:
        if how.guidance > 0:
            raise ValueError(
                f"guidance={how.guidance} cannot be used: {lm.name} is autoregressive and never sees masks for a prompt"
            )
        return estimate(exact_log_likelihood(lm, pairs, batch, progress))
    return estimate(log_likelihood(lm, pairs, how, seed, batch, progress))


def check_pairs(lm: LanguageModel, pairs: Sequence[Pair], extra: int) -> None:
    """Raise ValueError unless every target has a token and every pair, with `extra` tokens, fits the model's positions."""
    for sequence, (_, target) in enumerate(pairs):
        if len(target) == 0:
            raise ValueError(f"the target of pair {sequence} is empty: there is nothing to score")
    check_positions(lm, max((len(prompt) + len(target) + extra for prompt, target in pairs), default=0))


def _sharing(pairs: Sequence[Pair]) -> list[list[int]]:
    """Return the pairs by number, shortest first so that like lengths share a batch; one-token targets of one prompt together."""
    groups: dict[object, list[int]] = {}
    for sequence, (prompt, target) in enumerate(pairs):
        groups.setdefault(tuple(prompt.tolist()) if len(target) == 1 else sequence, []).append(sequence)
    return sorted(groups.values(), key=lambda sharing: sum(map(len, pairs[sharing[0]])))


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield the items in lists of `size`, the last one perhaps shorter."""
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


def _padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return rows padded on the right, so that positions count from the first token, and their attention mask (None: no padding)."""
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([[len(row)] for row in rows])
    return ids_BT, None if bool((lengths == ids_BT.shape[1]).all()) else (
        torch.arange(ids_BT.shape[1]) < lengths
    ).long()


def _mean_cross_entropy(
    lm: LanguageModel, input_BT: torch.Tensor, where_BT: torch.Tensor, target_BT: torch.Tensor
) -> list[float]:
    """Return the mean cross-entropy at `where_BT` of every row."""
    loss_N, _ = token_losses(lm, input_BT, where_BT, target_BT[where_BT])
    return [float(part.mean()) for part in loss_N.split(where_BT.sum(1).tolist())]


def token_losses(
    lm: LanguageModel,
    input_BT: torch.Tensor,
    where_BT: torch.Tensor,
    target_N: torch.Tensor,
    visible_BT: torch.Tensor | None = None,
    prompt_BT: torch.Tensor | None = None,
    guidance: float = 0.0,
    copies_N: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy at `where_BT`, float64 (N,), and whether the target is the most probable token, bool (N,).

    `copies_N` says how many targets in a row a position is for.
    """
    hidden_ND = lm.hidden_at(input_BT, where_BT, visible_BT)
    blind_ND = (
        lm.hidden_at(corrupt(input_BT, prompt_BT, lm.mask_token_id), where_BT, visible_BT)
        if guidance > 0
        else None
    )
    if copies_N is not None:
        copies_N = copies_N.to(lm.device)
        hidden_ND, blind_ND = (
            tensor if tensor is None else tensor.repeat_interleave(copies_N, dim=0)
            for tensor in (hidden_ND, blind_ND)
        )
    return _head_losses(lm, hidden_ND, target_N, blind_ND, guidance)


def _head_losses(
    lm: LanguageModel,
    hidden_ND: torch.Tensor,
    target_N: torch.Tensor,
    blind_ND: torch.Tensor | None = None,
    guidance: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the output head in slices of bounded memory; return the cross-entropies, float64 (N,), and greedy hits, bool (N,)."""
    loss, greedy = [], []
    for start in range(0, len(hidden_ND), HEAD_SLICE):
        part, target = slice(start, start + HEAD_SLICE), target_N[start : start + HEAD_SLICE].to(lm.device)
        logits_NV = lm.head(hidden_ND[part])
        if blind_ND is not None:
            blind_NV = lm.head(blind_ND[part])
            logits_NV = blind_NV + (guidance + 1) * (logits_NV - blind_NV)
        loss.append(torch.nn.functional.cross_entropy(logits_NV, target, reduction="none").double().cpu())
        greedy.append((logits_NV.argmax(-1) == target).cpu())
        del logits_NV  # or it would be held beside that of the next slice
    return (
        (torch.cat(loss), torch.cat(greedy))
        if loss
        else (torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    )
