"""What a run will do, known before any forward: `prune` follows the plan, and costs are read from it.

Dimensions: N calibration sequences, T position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sinkprune_core.calibration.dense_statistics import joint_rows
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import choice_name
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.model_checks import check_structure
from sinkprune_core.pruning import structured
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import Recipe

Source = Literal["nowhere", "dense model", "block by block"]
"""Where the statistics of a block come from: it needs none, they were taken of the dense model before the
first block is pruned, or they are observed when pruning comes to it."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    source: Source
    units: structured.UnitCounts | None  # what every block loses under pattern="structured"
    takes_dense: bool = False  # whether statistics of the dense model are taken, if only for OWL's scores
    joint_rows: int | None = None  # those of a `DensePass`


def make_plan(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    budget: int | None = None,
) -> Plan:
    """Return what pruning `lm` by `recipe` will do; nothing runs.

    `budget` are the bytes of inputs that may wait in memory, by default those of the model's device (see
    `joint_rows`). Raises ValueError for a model that is no longer covered, as it was changed since it was
    wrapped, and for a recipe that does not fit it or its calibration text.
    """
    check_structure(lm.model)
    _check_text(lm, recipe, calibration)
    _check_linears(lm, recipe)
    _check_groups(lm, recipe)
    _check_layers(lm, recipe)
    _check_streamed(lm, recipe)
    units = _units(lm, recipe)

    source = source_of(recipe)
    if source == "nowhere" or calibration is None:
        return Plan("nowhere", units)

    rows = None
    if reads_dense(recipe):
        rows = joint_rows(lm, [recipe.statistics_key], calibration, budget)

    return Plan(source, units, reads_dense(recipe), rows)


def source_of(recipe: Recipe) -> Source:
    """Return where the statistics of every block come from."""
    needs = recipe.rule.needs
    if needs is None:
        return "nowhere"
    if recipe.propagation == "dense" and needs != "gram":  # Gram matrices are too large to keep
        return "dense model"
    return "block by block"


def reads_dense(recipe: Recipe) -> bool:
    """Return whether statistics of the dense model are read, if only for OWL's scores."""
    return source_of(recipe) == "dense model" or recipe.allocation == "owl"


# what does not fit


def _check_text(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None) -> None:
    if recipe.inputs == "noised" and not lm.is_diffusion:
        raise ValueError(
            f"inputs='noised' needs a diffusion model with a mask token; {lm.name} is {lm.kind}: "
            "use inputs='clean'"
        )

    if not recipe.rule.calibrated:
        return

    if calibration is None:
        name = choice_name(recipe.criterion)
        raise ValueError(f"criterion={name!r} needs calibration text: pass a Calibration")

    lm.check_ids(calibration.ids_NT)
    lm.check_positions(calibration.ids_NT.shape[-1])

    length = calibration.ids_NT.shape[1]
    sees_states = recipe.inputs == "noised" or recipe.exclude != "none"
    if sees_states and recipe.noise_levels > length:
        raise ValueError(
            f"noise_levels={recipe.noise_levels} exceed the {length} tokens of a sequence, and states would "
            "repeat: use fewer levels or longer sequences"
        )

    if calibration.present_NT is not None and recipe.exclude != "none" and not lm.is_diffusion:
        raise ValueError(
            f"exclude={choice_name(recipe.exclude)!r} on an autoregressive model compares parts of the "
            "sequence as steps, and the sequences differ in length: cut or pack the text into sequences of "
            "one length"
        )


def _check_linears(lm: LanguageModel, recipe: Recipe) -> None:
    """Raise ValueError for a pattern of names that fits no linear, and where nothing is left to prune."""
    if not (recipe.targets or recipe.ignore):
        return

    places = list(lm.all_linears())
    known = ", ".join(dict.fromkeys(name for _, name in places))

    for field in ("targets", "ignore"):
        for pattern in getattr(recipe, field):
            alone = replace(recipe, targets=(pattern,), ignore=())
            if not any(alone.prunes(layer, name) for layer, name in places):
                raise ValueError(
                    f"{field}={pattern!r} fits no linear of {lm.name}, whose blocks have {known}: "
                    "write a name or a pattern such as 'mlp.*' or '0.*'"
                )

    layers = {layer for layer, name in places if recipe.prunes(layer, name)}
    if not layers:
        raise ValueError(f"targets and ignore leave no linear of {lm.name} to prune: ignore fewer")
    if recipe.allocation != "uniform" and len(layers) < len(lm.blocks):
        raise ValueError(
            f"allocation={recipe.allocation!r} compares layers, and targets and ignore leave some without a "
            "linear: use allocation='uniform'"
        )


def _check_groups(lm: LanguageModel, recipe: Recipe) -> None:
    ratio = n_and_m(recipe.pattern)
    if ratio is None:
        return

    for (layer, name), linear in lm.all_linears().items():
        inputs = linear.weight.shape[1]
        if recipe.prunes(layer, name) and inputs % ratio[1]:
            raise ValueError(
                f"pattern={recipe.pattern!r} needs inputs in groups of {ratio[1]}; {name} of block {layer} "
                f"has {inputs}: use another M"
            )


def _check_layers(lm: LanguageModel, recipe: Recipe) -> None:
    if recipe.sparsities and len(recipe.sparsities) != len(lm.blocks):
        raise ValueError(
            f"sparsities has {len(recipe.sparsities)} numbers for the {len(lm.blocks)} blocks of {lm.name}: "
            "give one per block"
        )


def _units(lm: LanguageModel, recipe: Recipe) -> structured.UnitCounts | None:
    if recipe.pattern != "structured":
        return None

    assert recipe.round_to is not None
    units = structured.unit_counts(lm, recipe.sparsity, recipe.round_to)
    if recipe.compensate:
        structured.check_compensation(lm)
    return units


def _check_streamed(lm: LanguageModel, recipe: Recipe) -> None:
    if lm.is_streamed and recipe.pattern == "structured":
        raise ValueError(
            f"{lm.name} is streamed from disk: pattern='structured' needs the whole model in memory"
        )


def check_dense(lm: LanguageModel, recipes: Sequence[Recipe], calibration: Calibration) -> None:
    """Raise ValueError unless every recipe fits, and reads statistics of the dense model."""
    for recipe in recipes:
        plan = make_plan(lm, recipe, calibration)
        if plan.takes_dense:
            continue

        if recipe.propagation != "dense":
            raise ValueError(
                f"recipe {recipe.name!r} has propagation={recipe.propagation!r}: "
                "its statistics depend on what it pruned before"
            )

        if plan.source == "block by block":
            raise ValueError(
                f"recipe {recipe.name!r} needs a Gram matrix per input: "
                "those are used block by block and not kept"
            )
