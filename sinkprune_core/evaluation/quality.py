"""How good a diffusion model is beside its autoregressive twin: likelihood, filling masks, two-choice tasks, samples.

Everything is paired: both models see the same tokens, and a difference is taken sequence by sequence. Intervals are 95 %
bootstrap intervals over sequences, for tasks over pairs of items.

Dimensions: N sequences, T sequence position, B batch, L masked positions of a sequence.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_core.corpus import separator
from sinkprune_core.diffusion.sampling import LLADA, corrupt, generate, random_mask
from sinkprune_core.evaluation import suite
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.evaluation.likelihood import nelbo, nll, token_losses
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

SHARES = (0.15, 0.5, 0.85)  # of the tokens that are masked, for the accuracy of filling
LEVELS = 4  # equal parts of the noise levels by which a NELBO is split
STEPS = (16, 32, 64)  # denoising steps of the samples
SAMPLE_TOKENS = 64
PROMPTS = (" The best way to learn a new language is", " Returns the number of")

Task = Callable[
    [LanguageModel], pd.DataFrame
]  # answers to the items of a task, as `suite.accuracy` gives them


def source() -> str:
    """Return a SHA-256 prefix of this module, part of the key of every record made with it (no record of pruning needs it)."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


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
    """Let `dlm` fill masks, and `ar` predict the same tokens from what stands before them; one row per sequence, share and model.

    Columns: `sequence`, `share` (of the maskable tokens that are masked), `masks`, `model`, `kind`, `correct` (share of the masked
    tokens that are the most probable one) and `value` (mean cross entropy at them, nats per token). Position 0 is context.
    Masks depend on (seed, sequence) alone and grow with the share, so that shares are compared on common random numbers.
    Raises ValueError for models of another kind and for shares outside (0, 1].
    """
    if not dlm.is_diffusion or ar.is_diffusion:
        raise ValueError(
            f"{dlm.name} is {dlm.kind} and {ar.name} is {ar.kind}: filling compares a diffusion model with an autoregressive one"
        )
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise ValueError(f"shares={wrong} must lie in (0, 1]: they are parts of a sequence that are masked")
    count, length = ids_NT.shape
    maskable_T = torch.arange(length) > 0
    everywhere = [(sequence, maskable_T) for sequence in range(count)]
    masked = [
        (
            sequence,
            random_mask(
                maskable_T, max(1, round(share * (length - 1))), generator(seed, "filling", sequence)
            ),
        )
        for share in shares
        for sequence in range(count)
    ]
    known = dict(
        enumerate(_predictions(ar, ids_NT, everywhere, batch, progress))
    )  # one forward serves every share
    rows = []
    for number, ((sequence, where_T), found) in enumerate(
        zip(masked, _predictions(dlm, ids_NT, masked, batch, progress), strict=True)
    ):
        for lm, (loss_L, hit_L) in ((ar, [values[where_T[1:]] for values in known[sequence]]), (dlm, found)):
            rows.append(
                {
                    "sequence": sequence,
                    "share": shares[number // count],
                    "masks": len(loss_L),
                    "model": lm.name,
                    "kind": lm.kind,
                    "correct": float(hit_L.double().mean()),
                    "value": float(loss_L.mean()),
                }
            )
    return pd.DataFrame(rows)


def _predictions(
    lm: LanguageModel, ids_NT: torch.Tensor, rows: list[tuple[int, torch.Tensor]], batch: int, progress: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the cross-entropies, float64 (L,), and whether the token is the most probable one, bool (L,), for every (sequence, where)."""
    found = []
    for start in tqdm(
        range(0, len(rows), batch), desc=f"fill {lm.name}", unit="batch", disable=not progress, leave=False
    ):
        part = rows[start : start + batch]
        ids_BT, where_BT = (
            ids_NT[[sequence for sequence, _ in part]],
            torch.stack([where_T for _, where_T in part]),
        )
        loss_N, hit_N = token_losses(
            lm,
            corrupt(ids_BT, where_BT, lm.mask_token_id) if lm.is_diffusion else ids_BT,
            where_BT,
            ids_BT[where_BT],
        )
        counts = where_BT.sum(1).tolist()
        found += zip(loss_N.split(counts), hit_N.split(counts), strict=True)
    return found


def by_level(scores: pd.DataFrame, parts: int = LEVELS) -> dict[tuple[float, float], Estimate]:
    """Return the mean `value` of `nelbo`'s table by noise level, (from, to] in `parts` equal parts, with intervals over sequences.

    A part that fewer than two sequences have a draw in is left out.
    """
    part = np.ceil(scores.noise * parts).astype(int) - 1
    means = scores.assign(part=part).groupby(["part", "sequence"]).value.mean()
    return {
        (place / parts, (place + 1) / parts): interval(values.to_numpy())
        for place, values in means.groupby(level=0)
        if len(values) > 1
    }


def samples(
    dlm: LanguageModel, prompts: Sequence[str] = PROMPTS, steps: Sequence[int] = STEPS, seed: int = 0
) -> list[dict]:
    """Return what `dlm` writes after every prompt in so many denoising steps: `prompt`, `steps`, `text`, at temperature 1, unedited."""
    start, rows = torch.zeros(1, dtype=torch.long), []
    for prompt in prompts:
        prompt_BT = torch.cat([start, dlm.encode(prompt)])[None]
        for count in steps:
            sampler = replace(LLADA, length=SAMPLE_TOKENS, steps=count, temperature=1.0)
            rows.append(
                {
                    "prompt": prompt,
                    "steps": count,
                    "text": dlm.tokenizer.decode(
                        generate(dlm, prompt_BT, sampler, seed)[0, prompt_BT.shape[1] :]
                    ),
                }
            )
    return rows


def offline_suite(items: int, draws: int, seed: int = 0, progress: bool = False) -> Task:
    """Return the task of about `items` items of the offline suite, a diffusion model's bounds from `draws` maskings."""
    return lambda lm: suite.accuracy(lm, suite.sample(items), draws, seed, progress=progress)


def minimal_pairs(
    paradigms: Mapping[str, Sequence[Mapping[str, str]]], draws: int, seed: int = 0, progress: bool = False
) -> Task:
    """Return the task of telling `sentence_good` from `sentence_bad` in every pair, whole sentences after the separator of documents.

    A diffusion model's likelihoods are bounds from `draws` maskings, the same for both sentences of a pair.
    """

    def task(lm: LanguageModel) -> pd.DataFrame:
        start = lm.tokenizer.decode([separator(lm.tokenizer)])
        items = [
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
        return suite.accuracy(lm, items, draws, seed, progress=progress)

    return task


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
    """Return every measure of both models, a row each: `measure`, `on`, `level`, `model`, `value`, `low`, `high`, `units`.

    `texts` are token ids, int64 (N, T), by name. Measures: `likelihood` (nats per token, a NELBO or exact) per text, with
    `difference` as a model; `level`, the NELBO from one noise level to another; `correct` and `nats`, filling masks at a
    share of masked tokens; `items` and `pairs`, right answers of a task by group and, where items come in twos, pairs told apart.
    """
    rows = []

    def add(measure: str, on: str, model: str, found: Estimate, level: object = None) -> None:
        rows.append(
            {
                "measure": measure,
                "on": on,
                "level": level,
                "model": model,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "units": found.units,
            }
        )

    for name, ids_NT in texts.items():
        drawn, exact = (
            nelbo(dlm, ids_NT, draws, seed, batch, progress),
            nll(ar, ids_NT, batch, progress).value,
        )
        bound = drawn.groupby("sequence").value.mean()
        for model, values in ((ar.name, exact), (dlm.name, bound), ("difference", bound - exact)):
            add("likelihood", name, model, interval(values.to_numpy()))
        for level, found in by_level(drawn).items():
            add("level", name, dlm.name, found, list(level))
        for (share, model), part in filling(dlm, ar, ids_NT, seed=seed, progress=progress).groupby(
            ["share", "model"], sort=False
        ):
            add("correct", name, model, interval(part.correct.to_numpy()), share)
            add("nats", name, model, interval(part.value.to_numpy()), share)
    for name, task in tasks.items():
        for lm in (ar, dlm):
            answers = task(lm)
            paired = bool((answers.groupby(["group", "pair"]).size() == 2).all())
            for kind, table in {
                "items": answers,
                **({"pairs": suite.matched(answers)} if paired else {}),
            }.items():
                for group, found in suite.by_group(table).items():
                    add(kind, name, lm.name, found, group)
    return rows
