"""How a model answers two-choice items: which of two endings of a context is more likely.

A diffusion model's likelihood is a bound, the mean over ways to mask an ending. What makes that quick: an
input that two maskings share is computed once, whichever endings they belong to; inputs of one length share
a batch; and the output head runs where a mask stands.

Dimensions: L tokens of an ending, M maskings, S draws, T position, B batch, N selected positions, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby

import pandas as pd
import torch
from pydantic import InstanceOf
from tqdm.auto import tqdm

from sinkprune.evaluation.maskings import Maskings, maskings, whole
from sinkprune.evaluation.token_losses import batches, head_losses
from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, Whole, checked_arguments, in_short

DRAWS = 8  # maskings of an ending: smol-dlm then answers 97 of 100 items as with all maskings
BATCH = 64  # inputs at once


@dataclass(frozen=True)
class Question:
    """An item in tokens."""

    start: int
    """Number of tokens of the context."""
    ids: list[torch.Tensor]
    """Context and ending, int64 (T,), for each of the two endings."""
    maskings: list[Maskings]
    """How each ending is masked."""


@dataclass(frozen=True)
class Use:
    """What an input is computed for: one masking of one ending."""

    item: int
    """Number of the item."""
    choice: int
    """Which of its two endings, 0 or 1."""
    masking: int
    """Number of the masking."""


@dataclass(frozen=True)
class Input:
    """One sequence that the model is given."""

    input_T: torch.Tensor
    """Context and ending, masked for a diffusion model, int64 (T,)."""
    where_T: torch.Tensor
    """The tokens that are scored, bool (T,)."""
    uses: list[Use] = field(default_factory=list)
    """The maskings that have this input."""


@checked_arguments
@torch.inference_mode()
def accuracy(
    lm: InstanceOf[LanguageModel],
    items: Sequence[dict],
    draws: Count = DRAWS,
    seed: Whole = 0,
    batch: Count = BATCH,
    progress: bool = False,
) -> pd.DataFrame:
    """Let `lm` choose the more likely ending of every item; one row per item, in order.

    Columns: `group`, `pair`, `template`, `correct` and `margin` (nats: log-likelihood of the right ending
    minus that of the wrong one, summed over tokens), `correct_mean` and `margin_mean` (nats per token, each
    ending over its own length), and `error` and `error_mean` (how far other draws would move these margins:
    standard errors as if draws were independent, which overstate it, as draws share masks out evenly; 0
    where nothing is drawn, NaN for a single draw).

    Exact for an autoregressive model. For a diffusion model the lower bound: exact for an ending that can be
    masked in at most `draws` ways, else estimated from so many maskings of the ending alone, on common random
    numbers for both endings; noise depends on (seed, group, pair) alone.
    Raises ValueError without items, for an ending without tokens, for fewer draws than 1, too many tokens,
    and what is not finite.
    """
    if not items:
        raise ValueError("there are no items: give at least one")

    questions = [_question(lm, item, draws, seed) for item in items]
    lm.check_positions(max(len(ids_T) for each in questions for ids_T in each.ids))
    by_length = groupby(_inputs(lm, questions), key=lambda one: len(one.input_T))  # so no padding
    parts = chain.from_iterable(batches(of_one_length, batch) for _, of_one_length in by_length)

    values = []  # of each item, its endings and their maskings
    missing = []  # how many of an item's are to come
    for question in questions:
        of_item = [torch.zeros(len(each.share_M), dtype=torch.float64) for each in question.maskings]
        values.append(of_item)
        missing.append(sum(map(len, of_item)))

    with tqdm(
        total=len(items), desc=f"suite {lm.name}", unit="item", disable=not progress, leave=False
    ) as bar:
        for part in parts:
            for use, value in _mean_log_likelihoods(lm, questions, part):
                values[use.item][use.choice][use.masking] = value
                missing[use.item] -= 1
                if missing[use.item] == 0:
                    bar.update()

    return _answers(items, questions, values)


# what the model is given


def _question(lm: LanguageModel, item: dict, draws: int, seed: int) -> Question:
    """Return an item in tokens, with the ways in which its endings are masked."""
    start = len(lm.encode(item["context"]))
    ids = [lm.encode(f"{item['context']} {choice}") for choice in item["choices"]]

    endings = [ids_T[start:] for ids_T in ids]
    for choice, ending in zip(item["choices"], endings, strict=True):
        if len(ending) == 0:
            raise ValueError(
                f"an ending of pair {item['pair']} in group {item['group']!r}, {in_short(choice)}, has no "
                "tokens of its own: there is nothing to score, give other endings"
            )

    if not lm.is_diffusion:
        return Question(start, ids, [whole(len(ending)) for ending in endings])

    rng = generator(seed, "suite", item["group"], item["pair"])
    return Question(start, ids, maskings(endings, draws, rng))


def _inputs(lm: LanguageModel, questions: Sequence[Question]) -> list[Input]:
    """Return the distinct inputs of all questions, the shortest first."""
    found: dict[tuple, Input] = {}
    for number, question in enumerate(questions):
        for choice, (ids_T, ways) in enumerate(zip(question.ids, question.maskings, strict=True)):
            for masking, mask_L in enumerate(ways.mask_ML):
                where_T = torch.cat([torch.zeros(question.start, dtype=torch.bool), mask_L])
                input_T = corrupt(ids_T, where_T, lm.mask) if lm.is_diffusion else ids_T
                key = (*input_T.tolist(), question.start)
                each = found.setdefault(key, Input(input_T, where_T))
                each.uses.append(Use(number, choice, masking))

    return sorted(found.values(), key=lambda each: len(each.input_T))


# what comes out


def _mean_log_likelihoods(
    lm: LanguageModel, questions: Sequence[Question], part: list[Input]
) -> Iterator[tuple[Use, torch.Tensor]]:
    """Yield every use of a batch's inputs with the mean log-likelihood of the scored tokens, in nats."""
    input_BT = torch.stack([each.input_T for each in part])
    where_BT = torch.stack([each.where_T for each in part])
    hidden_ND = lm.hidden_at(input_BT, where_BT)
    uses, rows, targets = [], [], []

    for each, row_L in zip(part, torch.arange(len(hidden_ND)).split(where_BT.sum(1).tolist()), strict=True):
        for use in each.uses:
            uses.append(use)
            rows.append(row_L)
            targets.append(questions[use.item].ids[use.choice][each.where_T])

    row_N = torch.cat(rows).to(hidden_ND.device)
    loss_N, _ = head_losses(lm, hidden_ND[row_N], torch.cat(targets))
    for use, loss_L in zip(uses, loss_N.split([len(target) for target in targets]), strict=True):
        yield use, -loss_L.mean()


def _answers(
    items: Sequence[dict], questions: Sequence[Question], values: Sequence[Sequence[torch.Tensor]]
) -> pd.DataFrame:
    """Return the table of `accuracy` from the mean log-likelihood of every masking, nats, float64 (M,)."""
    rows = []
    for item, question, of_item in zip(items, questions, values, strict=True):
        right = item["answer"]
        lengths = [len(ids_T) - question.start for ids_T in question.ids]

        scores = []
        for ways, value_M in zip(question.maskings, of_item, strict=True):
            scores.append(float((ways.share_M * value_M).sum()))

        totals = [score * length for score, length in zip(scores, lengths, strict=True)]
        row = {
            "group": item["group"],
            "pair": item["pair"],
            "template": item["template"],
            "margin": totals[right] - totals[1 - right],
            "margin_mean": scores[right] - scores[1 - right],
            "error": _error_over_draws(question.maskings, of_item, lengths),
            "error_mean": _error_over_draws(question.maskings, of_item, [1, 1]),
        }
        rows.append(row)

    frame = pd.DataFrame(rows)
    return frame.assign(correct=frame.margin > 0, correct_mean=frame.margin_mean > 0)


def _error_over_draws(
    ways: Sequence[Maskings], values: Sequence[torch.Tensor], weights: Sequence[int]
) -> float:
    """Return the standard error, over draws, of the weighted difference of two endings' scores.

    Both endings share their draws; what is not drawn adds nothing.
    """
    drawn = []
    for sign, each, value_M, weight in zip((1, -1), ways, values, weights, strict=True):
        if each.masking_S is not None:
            drawn.append(sign * weight * value_M[each.masking_S])

    if not drawn:
        return 0.0

    difference_S = torch.stack(drawn).sum(0)
    if len(difference_S) < 2:
        return math.nan

    return float(difference_S.std() / math.sqrt(len(difference_S)))
