"""What a model scores and writes when keys are hidden from its attention.

Dimensions: N sequences, T tokens per sequence, L tokens written, B batch.
"""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.experiments.scoring import EVALUATION_SEED, fingerprint_of, score_texts
from sinkprune_companion.run.records import Run
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.evaluation.conditional_likelihood import exact_log_likelihood
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks.hiding import Hiding, HidingModel, hiding_model

SCORES_REVISION = 1  # of `hiding_scores`
TEXTS_REVISION = 1  # of `hiding_texts`
NOTHING_HIDDEN = Hiding(count=0)
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
    """Return the records of one model that scores text without the keys of each of `hidings`, and with all
    keys; positions before `first_scored` are context.

    Columns are those of `score_texts`; `excess`, the value less that of the same model with all keys on the
    same sequence and noise; `label`, `keys`, `count` (0: all keys) and `layers` of the hiding; and means of
    a `HidingModel`'s log.
    """
    data = fingerprint_of(texts)
    length = next(iter(texts.values())).shape[1]
    batch = max(1, BATCH_TOKENS // length)
    dense_masses = {}
    later = {"first_scored": first_scored} if first_scored > 1 else {}  # other records lack it

    def one(hiding: Hiding) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            without_keys = hiding_model(lm, hiding, masses=dense_masses)
            scores = score_texts(without_keys, texts, draws, batch=batch, first_scored=first_scored)
            return _described(scores, without_keys)

        return run.record(
            "hiding",
            compute,
            SCORES_REVISION,
            model=lm.name,
            kind=lm.kind,
            fingerprint=fingerprint,
            hiding=hiding,
            data=data,
            draws=draws,
            evaluation_seed=EVALUATION_SEED,
            **later,
        )

    every = tqdm([NOTHING_HIDDEN, *hidings], desc=f"{lm.name} scores")
    frame = pd.concat([one(hiding) for hiding in every], ignore_index=True)
    with_all_keys = frame[frame["count"] == 0].set_index("sequence").value
    return frame.assign(excess=frame.value - frame.sequence.map(with_all_keys))


def hiding_texts(
    run: Run,
    lm: LanguageModel,
    judge: LanguageModel,
    fingerprints: dict[str, str],
    hidings: Sequence[Hiding],
    prompt_NT: torch.Tensor,
    sampler: Sampler,
    seed: int,
    batch: int = 16,
) -> pd.DataFrame:
    """Return the records of one model that continues prompts without the keys of each of `hidings`, and with
    all keys.

    Columns: `sequence`; `value`, nats per token of the continuation under `judge`, a dense autoregressive
    model; `excess`, the same less that of what the model wrote with all keys and the same random numbers, and
    `changed`, the share of tokens that differ from it; `distinct`, the share of distinct pairs of neighbours,
    low where text repeats itself; `tokens`, the ids; and what `hiding_scores` says of a hiding.
    """

    def one(hiding: Hiding) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            without_keys = hiding_model(lm, hiding)
            written_NL = _written(without_keys, prompt_NT, sampler, seed, batch)
            return _described(_judged(judge, prompt_NT, written_NL, batch), without_keys)

        return run.record(
            "written",
            compute,
            TEXTS_REVISION,
            model=lm.name,
            kind=lm.kind,
            fingerprint=fingerprints[lm.name],
            judge=fingerprints[judge.name],
            hiding=hiding,
            prompts=prompt_NT.tolist(),
            sampler=sampler,
            seed=seed,
        )

    every = tqdm([NOTHING_HIDDEN, *hidings], desc=f"{lm.name} writes")
    frame = pd.concat([one(hiding) for hiding in every], ignore_index=True)
    with_all_keys = frame[frame["count"] == 0].set_index("sequence")
    changed = []
    for row in frame.itertuples():
        pairs = zip(row.tokens.split(), with_all_keys.tokens[row.sequence].split(), strict=True)
        changed.append(sum(one != other for one, other in pairs) / sampler.length)
    return frame.assign(excess=frame.value - frame.sequence.map(with_all_keys.value), changed=changed)


def _written(
    lm: LanguageModel, prompt_NT: torch.Tensor, sampler: Sampler, seed: int, batch: int
) -> torch.Tensor:
    """Return the continuation of every prompt, (N, L)."""
    parts = []
    for start in range(0, len(prompt_NT), batch):
        prompt_BT = prompt_NT[start : start + batch]
        if lm.is_diffusion:
            parts.append(generate(lm, prompt_BT, sampler, seed, first=start))
        else:
            parts.append(decode(lm, prompt_BT, sampler.length, sampler.temperature, seed, first=start))
    return torch.cat(parts)[:, prompt_NT.shape[1] :]


def _judged(
    judge: LanguageModel, prompt_NT: torch.Tensor, written_NL: torch.Tensor, batch: int
) -> pd.DataFrame:
    """Return `sequence`, `value`, `distinct` and `tokens` of continuations, see `hiding_texts`."""
    scored = exact_log_likelihood(judge, list(zip(prompt_NT, written_NL, strict=True)), batch)
    distinct = []
    tokens = []
    for row in written_NL.tolist():
        neighbours = set(pairwise(row))
        distinct.append(len(neighbours) / max(1, len(row) - 1))
        tokens.append(" ".join(map(str, row)))
    return pd.DataFrame(
        {
            "sequence": scored.sequence,
            "value": -scored.value / scored.tokens,
            "distinct": distinct,
            "tokens": tokens,
        }
    )


def _described(frame: pd.DataFrame, lm: HidingModel) -> pd.DataFrame:
    """Return `frame` with what was hidden: means over all rows of all forwards, 0 where nothing was."""
    hidden = pd.DataFrame(lm.log, columns=MEASURED).mean().fillna(0.0)
    hiding = lm.hiding
    choice = {"label": hiding.label, "keys": hiding.keys, "count": hiding.count, "layers": hiding.layers}
    return frame.assign(**choice, **hidden)
