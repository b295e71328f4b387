"""What a model scores when keys are hidden from its attention, and where its attention goes then.

Dimensions: L layer, K key, T tokens of a text.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune.evaluation.intervals import interval
from sinkprune.evaluation.text_scores import EVALUATION_SEED, score_texts
from sinkprune.figures.trajectories import token_labels
from sinkprune_companion.experiments import sink_conditions
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.experiments.sink_measures import KINDS
from sinkprune_companion.experiments.variants import fingerprint_of
from sinkprune_companion.hiding import ALL, Choice, Hiding, MeasuredAttention, Third, hiding_model
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel
from sinkprune_core.sinks import attention, detection

SCORES_REVISION = 1  # of `hiding_scores`, of keys that are hidden in all layers
SCORES_REVISION_OF_THIRDS = 2  # of keys hidden in a third: what is logged was once that of all layers
COUNT = 5  # keys that are hidden where verdicts are read
TAKES_OVER = 5  # times the mean attention, over layers: a key that gets more has taken over
BATCH_TOKENS = 4096  # of a forward that scores: longer sequences come in smaller batches
LABELS: dict[Choice, str] = {"top": "strongest", "random": "random", "first": "first token"}
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

    measured = MeasuredAttention()  # the same text is scored again and again: what attention it gets is kept
    parts = []
    for hiding in tqdm([Hiding(count=0), *hidings], desc=f"hiding, {lm.name}"):

        def compute(hiding: Hiding = hiding) -> pd.DataFrame:
            without_keys = hiding_model(lm, hiding, measured=measured)
            frame = score_texts(without_keys, texts, draws, batch=batch, first_scored=first_scored)
            hidden = pd.DataFrame(without_keys.log, columns=MEASURED).mean().fillna(0.0)
            choice = {"label": label_of(hiding), "keys": hiding.keys}
            choice |= {"count": hiding.count, "layers": hiding.layers}
            return frame.assign(**choice, **hidden)

        of_hiding = {"model": lm.name, "kind": lm.kind, "hiding": hiding}
        revision = SCORES_REVISION if hiding.layers == ALL else SCORES_REVISION_OF_THIRDS
        parts.append(run.record("hiding", compute, revision, **of_hiding, **key))

    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(excess=frame.value - frame.groupby("sequence").value.transform("first"))


def label_of(hiding: Hiding) -> str:
    """Return what figures and tables call the choice of keys."""
    if hiding.count == 0:
        return "none"
    if hiding.first:
        return LABELS[hiding.keys]
    return f"{LABELS[hiding.keys]}, first token kept"


def condition_scores(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    condition: Condition,
    main: Condition,
    hidings: Sequence[Hiding],
    sequences: int,
    draws: int,
) -> pd.DataFrame:
    """Return `hiding_scores` of text of a condition, with its name in `condition` and in words in `what`.

    A special first token is context: the same tokens are scored with it as without. `what` has the tokens of
    a sequence, that first one not counted, and more keys than COUNT.
    """
    texts = sink_conditions.prompts(lm.tokenizer, condition, sequences, condition.tokens)
    first_scored = 2 if condition.first_token else 1
    frame = hiding_scores(run, lm, fingerprint, hidings, texts, draws, first_scored)

    what = f"{condition.begins}, {condition.tokens:,} tokens"
    frame = frame.assign(condition=condition.name(main) or "main", what=what)
    more = {hiding.count for hiding in hidings if hiding.count > COUNT and condition != main}
    for keys in more:
        frame.loc[frame["count"] == keys, "what"] += f", {keys} keys"
    return frame


def hidings_of_main(counts: Sequence[int], thirds: Sequence[Third]) -> list[Hiding]:
    """Return what is hidden from text of the main condition: so many keys, and COUNT in thirds of layers."""
    chosen = few_hidings()
    for count in sorted({*counts} - {1, COUNT}):
        chosen += _beside_random(count)
    for third in dict.fromkeys(thirds):
        chosen += [Hiding("top", COUNT, layers=third), Hiding("random", COUNT, layers=third)]
    return chosen


def few_hidings() -> list[Hiding]:
    """Return what is hidden under every condition: one key or COUNT of them, strongest or random."""
    one_key = [Hiding("first", 1), Hiding("random", 1, first=False)]
    return one_key + _beside_random(1) + _beside_random(COUNT)


def _beside_random(count: int) -> list[Hiding]:
    return [Hiding("top", count), Hiding("random", count), Hiding("top", count, first=False)]


def excess_of(frame: pd.DataFrame, lm: LanguageModel, label: str, count: int) -> np.ndarray:
    """Return what hiding costs one model, by sequence."""
    part = frame[(frame.model == lm.name) & (frame.label == label) & (frame["count"] == count)]
    return part.sort_values("sequence").excess.to_numpy()


def costs_beyond_random(
    frame: pd.DataFrame, models: Sequence[LanguageModel], comparison: str, count: int = COUNT
) -> list[dict]:
    """Return a row per model: what the strongest keys cost beyond as many random ones."""
    rows = []
    for lm in models:
        of_random = excess_of(frame, lm, "random", count)
        cost = interval(excess_of(frame, lm, "strongest", count) - of_random)
        row = {"comparison": comparison, "kind": lm.kind, "keys": count, "value": cost.value}
        row |= {"low": cost.low, "high": cost.high, "sequences": cost.units}
        rows.append(row | {"random": of_random.mean()})
    return rows


def layer_panels(lm: LanguageModel, ids_1T: torch.Tensor, count: int = COUNT) -> list[dict]:
    """Return the attention of every layer to every key, as panels of `plot_sink_positions`.

    The first panel has all keys; then the `count` strongest are hidden in all layers, or in the middle third
    alone. Keys are those of the first half of the text. What counts are, in a causal model, the queries of
    the later half, which see all of these keys; a diffusion model reads the first half alone.

    The second panel names the keys that take over: the one that is strongest then, and all that get more than
    TAKES_OVER times the mean. The others name the hidden keys, the strongest first.
    Sinks have no rings: without strong keys the rule finds many in every layer.
    """
    keys_shown = ids_1T.shape[1] // 2
    if lm.kind == "diffusion":
        ids_1T, asking = ids_1T[:, :keys_shown], (0, keys_shown)
    else:
        asking = (keys_shown, ids_1T.shape[1])
    hidden_1K = torch.zeros_like(ids_1T, dtype=torch.bool, device=lm.device)
    panels = []
    for words, hiding in (
        ("all keys", None),
        (f"{count} keys hidden in all layers", Hiding()),
        (f"{count} keys hidden in the middle third", Hiding(layers="middle")),
    ):

        def keys(layer: int, hiding: Hiding | None = hiding) -> torch.Tensor | None:
            return hidden_1K if hiding and hiding.hides_in(layer, len(lm.blocks)) else None

        tracked = attention.track(lm.model, [asking])
        with torch.inference_mode(), attention.hide(lm.model, keys), tracked as tracker:
            lm.hidden(ids_1T)
            mass_LK = tracker.take()[0, :, :, 0].mean(1).cpu()[:, :keys_shown]
        if hiding is None:
            hidden_1K[0, mass_LK.mean(0).topk(count).indices] = True

        profile_LK = mass_LK * ids_1T.shape[1] / (asking[1] - asking[0])  # 1 is the mean of all keys
        visible_LK = torch.ones_like(profile_LK, dtype=torch.bool)
        panel = {"title": f"{KINDS[lm.kind]}, {words}", "rows": "layer", "profile_SK": profile_LK.numpy()}
        panel |= {"prompt_length": 0, "sinks_SK": detection.sink_sets(profile_LK, visible_LK).numpy()}
        for layer in range(len(lm.blocks)):
            if keys(layer) is not None:
                visible_LK[layer] = ~hidden_1K[0, :keys_shown].cpu()  # a hidden key still sees itself
        panel["visible_SK"] = visible_LK.numpy()
        panel["labels"] = token_labels(lm.tokenizer, ids_1T[0, :keys_shown])
        panels.append(panel | {"rings": False})

    dense, everywhere, middle = panels
    hidden = np.argsort(-dense["profile_SK"].mean(0), kind="stable")[:count].tolist()
    left_LK = np.where(everywhere["visible_SK"], everywhere["profile_SK"], 0.0)
    left_K = left_LK.mean(0)
    takers = [int(key) for key in np.argsort(-left_K, kind="stable") if left_K[key] > TAKES_OVER]
    takers = takers or [int(left_K.argmax())]
    return [dense | {"named": hidden}, everywhere | {"named": takers}, middle | {"named": hidden}]
