"""What some training with the zeros held gives back, by how a model was pruned.

The paper prunes in one shot. Here every pruned model is trained on further, on text that no model is scored
on, and the dense model on as much of it, as the control. Training text is what comes with the package;
scored is natural English, as in the paper's protocol.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import NamedTuple

import pandas as pd
import torch

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.text_scores import score_texts
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText, training_text
from sinkprune.recovery.training import recover_model
from sinkprune_companion.experiments.paired_differences import compare, compare_all
from sinkprune_companion.experiments.paper_protocol import LENGTH, protocol_row
from sinkprune_companion.experiments.pruning_grid import UNSTRUCTURED, GridRow
from sinkprune_companion.experiments.variants import Variant, fingerprint_of, measured
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw, protocol_texts
from sinkprune_core import LanguageModel

RECOVERED_REVISION = 1  # of `recovered_scores`
RECIPES = ("wanda", "paper", "paper-sinks-kept", "sparsegpt", "recommended")
UNITS = "structured"  # the pattern of a recipe that removes whole units
SMALLER = "structured"  # the preset with that pattern: Wanda for whole units, which leaves a smaller model
CONTROL = "dense"  # trained on as many tokens
SHOWN = (  # in a picture, from above: a name, how the model was pruned, and what it learnt from
    (CONTROL, CONTROL, "text"),
    ("wanda", "wanda", "text"),
    ("wanda, taught", "wanda", "teacher"),  # by the dense model
    *((recipe, recipe, "text") for recipe in RECIPES[1:]),
    (SMALLER, SMALLER, "text"),
)


class Place(NamedTuple):
    """A pattern of zeros and how many there are."""

    pattern: str
    sparsity: float

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a recipe that zeros N:M decide; every other pattern is that of its presets."""
        return {"pattern": self.pattern} if ":" in self.pattern else {}

    @property
    def words(self) -> str:
        """What a picture calls this place."""
        if self.pattern == UNSTRUCTURED:
            return f"{100 * self.sparsity:.0f} % of the weights zero"
        if self.pattern == UNITS:  # beside as many zeros
            return Place(UNSTRUCTURED, self.sparsity).words
        return f"{self.pattern} zeros"

    @property
    def ending(self) -> str:
        """What findings of this place end with: `50`, `75`, `2_4` or `units_50`."""
        if self.pattern == UNSTRUCTURED:
            return f"{100 * self.sparsity:.0f}"
        if self.pattern == UNITS:
            return f"units_{100 * self.sparsity:.0f}"
        return self.pattern.replace(":", "_")


PLACES = {
    "50": Place(UNSTRUCTURED, 0.5),
    "75": Place(UNSTRUCTURED, 0.75),
    "2:4": Place("2:4", 0.5),
    "units 50": Place(UNITS, 0.5),
}
DENSE = Place("dense", 0.0)  # of the control
COMPARISONS = {
    "paper_minus_wanda": ("paper", "wanda"),
    "paper_minus_paper_sinks_kept": ("paper", "paper-sinks-kept"),
    "sparsegpt_minus_wanda": ("sparsegpt", "wanda"),
    "recommended_minus_wanda": ("recommended", "wanda"),
    "recommended_minus_sparsegpt": ("recommended", "sparsegpt"),
}


def recovery_rows(places: Iterable[Place], tokens: int, recipes: Iterable[str] = RECIPES) -> list[GridRow]:
    """Return how models are pruned before they are recovered, all on about `tokens` calibration tokens."""
    return [protocol_row(name, place, tokens, **place.fields) for place in places for name in recipes]


def settings_of(lm: LanguageModel, tokens: int, **changes: object) -> Recovery:
    """Return how a model is recovered on about so many tokens, in its own number format; steps are whole."""
    dtype = str(lm.model.dtype).removeprefix("torch.")
    settings = Recovery(steps=1, dtype=dtype, **changes)
    return replace(settings, steps=max(1, round(tokens / settings.batch_tokens)))


@contextmanager
def all_weights_kept(lm: LanguageModel) -> Iterator[None]:
    """Copy every parameter, and put it back at the end, whatever happens inside."""
    copies = {name: value.detach().clone() for name, value in lm.model.named_parameters()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in copies.items():
                lm.model.get_parameter(name).copy_(value)


def recovered_scores(
    run: Run,
    variant: Variant,
    settings: Recovery,
    text: TrainingText,
    texts: dict[str, torch.Tensor],
    draws: int,
    noise: int,
    /,
    teacher: LanguageModel | None = None,
    **labels: object,
) -> pd.DataFrame:
    """Return the record of a variant's nats per token after it was recovered; it is as before then.

    Without a `teacher` it learns from the text alone. Columns are those of `score_texts`, `labels`, and
    `tokens`, `zeros`, `held_out_before`, `held_out_after` (on the training text's held-out part, in archived
    records the second before weights were rounded) and `train_seconds`. All scores are those of weights in
    the model's own dtype.
    """

    def compute() -> pd.DataFrame:
        variant.ready()
        with all_weights_kept(variant.lm):
            done = recover_model(variant.lm, settings, text, teacher)
            scores = score_texts(variant.lm, texts, draws, seed=noise)
        return scores.assign(
            tokens=settings.tokens,
            zeros=done.zeros_after / variant.lm.prunable_weights,
            held_out_before=done.before,
            held_out_after=done.after,
            train_seconds=done.seconds,
        )

    key = {
        **variant.key,
        "recovery": asdict(settings),
        "training_text": text.fingerprint,
        "teacher": None if teacher is None else teacher.fingerprint(),
        "data": fingerprint_of(texts),
        "draws": draws,
        "evaluation_seed": noise,
    }
    return run.record("recovered", compute, RECOVERED_REVISION, labels, **key)


def recovered_losses(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    rows: Sequence[GridRow],
    sequences: int,
    seed: int,
    tokens: Sequence[int],
    **settings: object,
) -> pd.DataFrame:
    """Return the losses of models pruned on one calibration draw, before (`asked` 0) and after recovery on
    so many `tokens` each, and of the dense model trained on as many.

    All losses of a draw share their noise, and all recoveries their crops and masks.
    """
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)
    text = training_text(lm.tokenizer, None, LENGTH)
    recoveries = {count: settings_of(lm, count, seed=seed, **settings) for count in tokens}

    def measure(variant: Variant, labels: dict[str, object]) -> pd.DataFrame:
        parts = [variant.scores(run, texts, 1, noise=seed, **labels).assign(asked=0)]
        for count, how in recoveries.items():
            after = recovered_scores(run, variant, how, text, texts, 1, seed, **labels)
            parts.append(after.assign(asked=count))
        return pd.concat(parts, ignore_index=True)

    return _by_draw(measured(measure, lm, fingerprint, rows, LENGTH, [seed], protocol_draw))


def taught_losses(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    teacher: LanguageModel,
    row: GridRow,
    sequences: int,
    seed: int,
    tokens: int,
    **settings: object,
) -> pd.DataFrame:
    """Return the losses of one pruned model that learnt what a teacher predicts, and nothing else.

    All but the teacher is as in `recovered_losses`, so the two can be compared in pairs; the column `taught`
    is true. `teacher` is another object than `lm`, which is pruned meanwhile.
    """
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)
    text = training_text(lm.tokenizer, None, LENGTH)
    how = settings_of(lm, tokens, seed=seed, distillation=1.0, **settings)
    calibration = protocol_draw(lm, row.sequences, LENGTH, seed)

    labels = {**row.labels, "seed": seed}
    with Variant(lm, fingerprint, row.recipe, calibration) as variant:
        losses = recovered_scores(run, variant, how, text, texts, 1, seed, teacher=teacher, **labels)
    return _by_draw(losses.assign(asked=tokens, taught=True))


def _by_draw(losses: pd.DataFrame) -> pd.DataFrame:
    """Return losses of which none serves every draw: all rest on one, of noise, crops and masks.

    `compare` takes a model that saw no calibration token for one that serves every draw. So the dense model,
    and records that do not say how many tokens there were, count one.
    """
    counted = losses.reindex(columns=losses.columns.union(["calibration_tokens"], sort=False))
    return counted.assign(calibration_tokens=counted.calibration_tokens.fillna(1).clip(lower=1))


# findings


def _at(variant: str, place: Place, asked: int) -> dict[str, object]:
    return {"variant": variant, "pattern": place.pattern, "sparsity": place.sparsity, "asked": asked}


def recovery_findings(
    losses: pd.DataFrame, places: Iterable[Place], tokens: Sequence[int]
) -> dict[str, Estimate]:
    """Return what was found, in nats per token, by name, without what was not measured.

    - `recovered_RECIPE_PLACE_N`: the pruned model after N thousand tokens, less before (below 0: a gain)
    - `after_RECIPE_PLACE_N`: the same model less the dense one trained on as many tokens; N = 0: before
    - `COMPARISON_PLACE_N_recovered`: two recipes after recovery, N = 0 before it; the margin is a share of
      what the second one costs the dense model that was trained on as many tokens
    - `one_shot_minus_recovered_wanda_PLACE_N`: `recommended` without any recovery, less Wanda after it
    - `recovered_dense_N`: the dense model after N thousand tokens, less before
    """
    sides = {}
    for count in (0, *tokens):
        thousands = count // 1000
        control = _at(CONTROL, DENSE, count)
        if count > 0:
            sides[f"recovered_dense_{thousands}"] = (control, {**control, "asked": 0})

        for place in places:
            for recipe in (*RECIPES, SMALLER):
                name = f"{recipe.replace('-', '_')}_{place.ending}_{thousands}"
                model = _at(recipe, place, count)
                sides[f"after_{name}"] = (model, control)
                if count > 0:
                    sides[f"recovered_{name}"] = (model, {**model, "asked": 0})

            if count > 0:
                one_shot, recovered = _at("recommended", place, 0), _at("wanda", place, count)
                name = f"one_shot_minus_recovered_wanda_{place.ending}_{thousands}"
                sides[name] = (one_shot, recovered, control)

            for label, (first, second) in COMPARISONS.items():
                compared = (_at(first, place, count), _at(second, place, count))
                name = f"{label}_{place.ending}_{thousands}_recovered"
                sides[name] = (*compared, control)
    return compare_all(losses, sides)


def smaller_findings(losses: pd.DataFrame, tokens: Sequence[int]) -> dict[str, Estimate]:
    """Return how a model with half its weights zero differs from one with half its units removed.

    Both cost about as many products of a weight and an input where zeros are left out of them: units are
    whole, so the smaller model keeps a little more than half. The difference is Wanda's model less the
    smaller dense one, before (N = 0) and after N thousand tokens of training.
    """
    sides = {}
    for count in (0, *tokens):
        sparse = _at("wanda", PLACES["50"], count)
        smaller = _at(SMALLER, PLACES["units 50"], count)
        name = f"sparse_minus_smaller_50_{count // 1000}_recovered"
        sides[name] = (sparse, smaller, _at(CONTROL, DENSE, count))
    return compare_all(losses, sides)


def taught_findings(losses: pd.DataFrame, taught: pd.DataFrame) -> dict[str, Estimate]:
    """Return what a teacher changes: a model that learnt from one less the same that learnt from text.

    `losses` are those of `recovered_losses`, `taught` those of `taught_losses`. The margin is a share of what
    the model costs that learnt from text.
    """
    sides = {}
    both = pd.concat([losses.assign(taught=False), taught], ignore_index=True)
    models = taught[["variant", "pattern", "sparsity", "asked"]].drop_duplicates()

    for variant, pattern, sparsity, count in models.itertuples(index=False, name=None):
        place = Place(pattern, sparsity)
        model = _at(variant, place, count)

        from_teacher, from_text = ({**model, "taught": taught} for taught in (True, False))
        name = f"taught_minus_text_{variant.replace('-', '_')}_{place.ending}_{count // 1000}"
        sides[name] = (from_teacher, from_text, _at(CONTROL, DENSE, count))
    return compare_all(both, sides)


def recovery_levels(
    losses: pd.DataFrame, places: Iterable[Place], tokens: Sequence[int], taught: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the losses before and after recovery, for a picture: of every recipe, and of the dense model.

    `losses` and `taught` are those of `recovered_losses` and `taught_losses`. Columns: `recipe`, `zeros`,
    `tokens` of training, and `value`, `low` and `high` of the NELBO above that of the dense model *before*
    any training, in nats per token. So what a model gains is how far its own value falls. Whole units have
    the `zeros` of as many single ones, beside which they stand.
    """
    untrained = _at(CONTROL, DENSE, 0)
    learnt = {"text": losses, "teacher": taught if taught is not None else losses.iloc[:0]}
    both = pd.concat([part.assign(learnt=name) for name, part in learnt.items()], ignore_index=True)

    rows = []
    for name, recipe, source in SHOWN:
        for place in places:
            for count in (0, *tokens):
                model = _at(recipe, DENSE if recipe == CONTROL else place, count)
                level = compare(both, {**model, "learnt": source}, untrained)
                if level is not None:
                    row = {"recipe": name, "zeros": place.words, "tokens": count}
                    rows.append(row | {"value": level.value, "low": level.low, "high": level.high})

    return pd.DataFrame(rows).drop_duplicates(["recipe", "zeros", "tokens"], ignore_index=True)
