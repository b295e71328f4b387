"""What a model scores and writes when keys are hidden from its attention.

Dimensions: N sequences, T tokens per sequence, L tokens written, R records.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune.evaluation.conditional_likelihood import exact_log_likelihood
from sinkprune.evaluation.text_scores import EVALUATION_SEED, score_texts
from sinkprune_companion.experiments.variants import fingerprint_of
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel, Sampler, generate
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.sinks.hiding import ALL, Hiding, HidingModel, hiding_model

SCORES_REVISION = 1  # of `hiding_scores`
TEXTS_REVISION = 1  # of `hiding_texts`
BATCH = 16  # prompts that are continued together
BATCH_TOKENS = 4096  # of a forward that scores: longer sequences come in smaller batches
MEASURED = ["attention", "first", "masks", "left", "second"]  # what a `HidingModel` logs


def hiding_scores(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    hidings: Sequence[Hiding],
    texts: dict[str, torch.Tensor],
    draws: int,
    first_scored: int = 1,
) -> pd.DataFrame:
    """Return the records of a model that scores text with all keys and without those of each of `hidings`.

    Columns are those of `score_texts`, for which positions before `first_scored` are context; `excess`, the
    value less that of the same model with all keys on the same sequence and noise; `label`, `keys`, `count`
    (0: all keys) and `layers` of the hiding; and means of a `HidingModel`'s log, 0 where nothing was hidden.
    """
    batch = max(1, BATCH_TOKENS // next(iter(texts.values())).shape[1])
    key = {"fingerprint": fingerprint, "data": fingerprint_of(texts), "draws": draws}
    key["evaluation_seed"] = EVALUATION_SEED
    if first_scored > 1:  # other records lack it
        key["first_scored"] = first_scored

    def measure(without_keys: HidingModel) -> pd.DataFrame:
        return score_texts(without_keys, texts, draws, batch=batch, first_scored=first_scored)

    return _records(run, lm, "hiding", hidings, measure, key)


def hiding_texts(
    run: Run,
    lm: LanguageModel,
    judge: LanguageModel,
    fingerprints: dict[str, str],
    hidings: Sequence[Hiding],
    prompt_NT: torch.Tensor,
    sampler: Sampler,
    seed: int,
) -> pd.DataFrame:
    """Return the records of a model that continues prompts with all keys and without those of `hidings`.

    Columns: `sequence`; `value`, nats per token of the continuation under `judge`, a dense autoregressive
    model; `excess`, the same less that of what the model wrote with all keys and the same random numbers, and
    `changed`, the share of tokens that differ from it; `distinct`, the share of distinct pairs of neighbours,
    low where text repeats itself; `tokens`, the ids; and what `hiding_scores` says of a hiding.
    """
    write = partial(decode, length=sampler.length, temperature=sampler.temperature)
    if lm.is_diffusion:
        write = partial(generate, sampler=sampler)

    def measure(without_keys: HidingModel) -> pd.DataFrame:
        starts = range(0, len(prompt_NT), BATCH)
        parts = [
            write(without_keys, prompt_NT[start : start + BATCH], seed=seed, first=start) for start in starts
        ]
        written_NL = torch.cat(parts)[:, prompt_NT.shape[1] :]
        scored = exact_log_likelihood(judge, list(zip(prompt_NT, written_NL, strict=True)), BATCH)
        rows = written_NL.tolist()
        distinct = [len(set(pairwise(row))) / max(1, len(row) - 1) for row in rows]
        tokens = [" ".join(map(str, row)) for row in rows]
        frame = scored[["sequence"]].assign(value=-scored.value / scored.tokens)

        return frame.assign(distinct=distinct, tokens=tokens)

    key = {"fingerprint": fingerprints[lm.name], "judge": fingerprints[judge.name]}
    key |= {"prompts": prompt_NT.tolist(), "sampler": sampler, "seed": seed}
    frame = _records(run, lm, "written", hidings, measure, key)
    tokens = frame.tokens.astype(str)  # a record of one token each is read back as numbers
    tokens_RNL = np.array(tokens.str.split().tolist()).reshape(1 + len(hidings), len(prompt_NT), -1)
    changed_RN = (tokens_RNL != tokens_RNL[0]).mean(axis=2)  # the first record is of all keys

    return frame.assign(changed=changed_RN.flatten())


def _records(
    run: Run, lm: LanguageModel, name: str, hidings: Sequence[Hiding], measure: Callable, key: dict
) -> pd.DataFrame:
    """Return what `measure` gives of a model with all keys, then without those of each of `hidings`."""
    masses = None
    if name == "hiding":  # the same text is scored again and again: what attention it gets is kept
        masses = {}

    parts = []
    for hiding in tqdm([Hiding(count=0), *hidings], desc=f"{name}, {lm.name}"):

        def compute(hiding: Hiding = hiding) -> pd.DataFrame:
            without_keys = hiding_model(lm, hiding, masses=masses)
            frame = measure(without_keys)
            hidden = pd.DataFrame(without_keys.log, columns=MEASURED).mean().fillna(0.0)
            choice = {name: getattr(hiding, name) for name in ("label", "keys", "count", "layers")}
            return frame.assign(**choice, **hidden)

        of_hiding = {"model": lm.name, "kind": lm.kind, "hiding": hiding}
        parts.append(run.record(name, compute, _revision(name, hiding), **of_hiding, **key))

    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(excess=frame.value - frame.groupby("sequence").value.transform("first"))


def _revision(name: str, hiding: Hiding) -> int:
    """Return the revision of a record: one more in a third of the layers, where the log once was of all."""
    revision = SCORES_REVISION if name == "hiding" else TEXTS_REVISION
    if hiding.layers != ALL:
        revision += 1
    return revision
