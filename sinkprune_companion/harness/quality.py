"""How good a diffusion model is beside its autoregressive twin: likelihood, filling masks, two-choice
tasks, samples.

Everything is paired: both models see the same tokens, and a difference is taken sequence by sequence.
Intervals are 95 % intervals over sequences, for tasks over pairs of items.

Dimensions: N sequences, T sequence position, B batch, L masked positions of a sequence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.harness import suite
from sinkprune_core.corpus import separator
from sinkprune_core.diffusion.noise import corrupt, random_mask
from sinkprune_core.diffusion.samplers import LLADA_SAMPLER
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.evaluation import two_choice
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.evaluation.token_losses import token_losses
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

SHARES = (0.15, 0.5, 0.85)  # of the tokens that are masked, for the accuracy of filling
LEVELS = 4  # equal parts of the noise levels by which a NELBO is split
STEPS = (16, 32, 64)  # denoising steps of the samples
SAMPLE_TOKENS = 64
PROMPTS = (" The best way to learn a new language is", " Returns the number of")

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
    Raises ValueError for models of another kind and for shares outside (0, 1].
    """
    if not dlm.is_diffusion or ar.is_diffusion:
        raise ValueError(
            f"{dlm.name} is {dlm.kind} and {ar.name} is {ar.kind}: filling compares a diffusion model with "
            "an autoregressive one"
        )
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise ValueError(f"shares={wrong} must lie in (0, 1]: they are parts of a sequence that are masked")
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
    found = []
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
        found += zip(loss_N.split(counts), hit_N.split(counts), strict=True)
    return found


# noise levels and samples


def by_level(scores: pd.DataFrame, parts: int = LEVELS) -> dict[tuple[float, float], Estimate]:
    """Return the mean `value` of `nelbo`'s table by noise level, with intervals over sequences.

    Levels are split into `parts` equal parts (from, to]. A part in which fewer than two sequences have a
    draw is left out.
    """
    part = np.ceil(scores.noise * parts).astype(int) - 1
    means = scores.assign(part=part).groupby(["part", "sequence"]).value.mean()
    estimates = {}
    for place, values in means.groupby(level=0):
        if len(values) > 1:
            estimates[place / parts, (place + 1) / parts] = interval(values.to_numpy())
    return estimates


def samples(
    dlm: LanguageModel, prompts: Sequence[str] = PROMPTS, steps: Sequence[int] = STEPS, seed: int = 0
) -> list[dict]:
    """Return what `dlm` writes after every prompt in so many denoising steps, at temperature 1, unedited.

    Each is a dict of `prompt`, `steps` and `text`.
    """
    start = torch.zeros(1, dtype=torch.long)
    rows = []
    for prompt in prompts:
        prompt_BT = torch.cat([start, dlm.encode(prompt)])[None]
        for count in steps:
            sampler = replace(LLADA_SAMPLER, length=SAMPLE_TOKENS, steps=count, temperature=1.0)
            [ids_T] = generate(dlm, prompt_BT, sampler, seed)
            text = dlm.tokenizer.decode(ids_T[prompt_BT.shape[1] :])
            rows.append({"prompt": prompt, "steps": count, "text": text})
    return rows


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


# everything together


def measure(
    dlm: LanguageModel,
    ar: LanguageModel,
    texts: Mapping[str, torch.Tensor],
    tasks: Mapping[str, Task],
    draws: int = 4,
    seed: int = 0,
    batch: int = 16,
    progress: bool = False,
) -> list[dict]:
    """Return every measure of both models, a row each.

    Keys of a row: `measure`, `on`, `level`, `model`, `value`, `low`, `high`, `units`. `texts` are token
    ids, int64 (N, T), by name. Measures: `likelihood` (nats per token, a NELBO or exact) per text, with
    `difference` as a model; `level`, the NELBO from one noise level to another; `correct` and `nats`,
    filling masks at a share of masked tokens; `items` and `pairs`, right answers of a task by group and,
    where items come in twos, pairs told apart.
    """
    rows = []
    for name, ids_NT in texts.items():
        scores = nelbo(dlm, ids_NT, draws, seed, batch, progress)
        exact = nll(ar, ids_NT, batch, progress).value
        bound = scores.groupby("sequence").value.mean()
        for model, values in ((ar.name, exact), (dlm.name, bound), ("difference", bound - exact)):
            rows.append(_row("likelihood", name, model, interval(values.to_numpy())))
        for level, found in by_level(scores).items():
            rows.append(_row("level", name, dlm.name, found, list(level)))
        filled = filling(dlm, ar, ids_NT, seed=seed, progress=progress)
        for (share, model), part in filled.groupby(["share", "model"], sort=False):
            rows.append(_row("correct", name, model, interval(part.correct.to_numpy()), share))
            rows.append(_row("nats", name, model, interval(part.value.to_numpy()), share))
    for name, task in tasks.items():
        for lm in (ar, dlm):
            rows += _answer_rows(name, lm.name, task(lm))
    return rows


def _answer_rows(task: str, model: str, answers: pd.DataFrame) -> list[dict]:
    """Return the rows of right answers by group, and of pairs told apart where all items come in twos."""
    rows = [_row("items", task, model, found, group) for group, found in suite.by_group(answers).items()]
    if (answers.groupby(["group", "pair"]).size() == 2).all():
        pairs = suite.by_group(suite.matched(answers))
        rows += [_row("pairs", task, model, found, group) for group, found in pairs.items()]
    return rows


def _row(measure: str, on: str, model: str, found: Estimate, level: object = None) -> dict:
    return {
        "measure": measure,
        "on": on,
        "level": level,
        "model": model,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "units": found.units,
    }
