"""`sinkprune prune`: say what it takes, prune a model and save it in transformers format."""

import json
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch

from sinkprune.calibration import SEQUENCES
from sinkprune.cli.checks import check_apart, check_distinct, check_new_path, check_writable
from sinkprune.cli.commands.prune import Prune
from sinkprune.cli.common import (
    WAYS_OUT,
    model_and_texts,
    open_model,
    planned,
    say_needs,
    settle_device,
)
from sinkprune.cli.help_pages import say
from sinkprune.files import locked
from sinkprune.models.card import read_card
from sinkprune.models.shrinking import shrink
from sinkprune.recovery.model_card import card_of, provenance, save_model
from sinkprune.runs.memory_and_disk import lacks, pruning_needs, weight_bytes
from sinkprune.runs.pruning import prune
from sinkprune.runs.resume import identity, read_identity, remove_job, remove_root
from sinkprune.scratch import remove_leftovers
from sinkprune.spelling import suggestion
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import Recipe, preset
from sinkprune_core.pruning.report import Report
from sinkprune_core.pruning.structured import is_rounded, removable

NOISED_SEQUENCES = 32  # where it is seen at more levels: they choose nearly the zeros that 128 choose
ROUNDED = 1e-3  # how far a sparsity that is given may lie from that of a pattern N:M: 0.333 is 1:3
CALIBRATION = ("text", "data", "split", "sequences", "length", "batch", "seed")
TABLE = "sinkprune-linears.csv"  # a row per pruned linear
MADE_FROM = "made_from"  # on the card: digests of the model and of the calibration text


def run(options: Prune) -> None:
    """Say what pruning takes, prune, save, and only then remove the work folder."""
    recipe = recipe_of(options)
    if not recipe.rule.calibrated:
        options.refuse(CALIBRATION, f"criterion={recipe.criterion} uses no calibration text")
    if recipe.pattern != "structured":
        options.refuse(("masked",), f"it is for pattern=structured, and this recipe has {recipe.pattern}")

    with places_held(options, recipe) as made_from:
        prune_or_plan(options, recipe, made_from)


def prune_or_plan(options: Prune, recipe: Recipe, made_from: dict | None) -> None:
    """Say what pruning takes, and unless that is all, prune and save; `places_held` gives `made_from`."""
    if options.sequences is None:
        options.sequences = usual_sequences(recipe)
    settle_device(options)
    if options.dry_run:
        plan(options, recipe, options.sequences)
        return

    streamed = is_to_be_streamed(options, made_from)
    lm, calibration, sources = what_is_pruned(options, recipe, options.sequences, streamed)
    check_noise(options, lm)

    if made_from is not None:
        finish(made_from, options, lm, recipe, calibration)
        return

    lacking = tell_needs(options, lm, recipe, calibration)
    if lacking:
        raise RuntimeError("; ".join(lacking))

    report = prune(lm, recipe, calibration, work=options.work_folder)
    save(lm, report, options, sources)


def usual_sequences(recipe: Recipe) -> int:
    """Return how many calibration sequences a recipe sees where none are asked for."""
    looks_at_noise = recipe.inputs != "clean" or recipe.exclude != "none"  # to prune, or to find sinks
    return NOISED_SEQUENCES if looks_at_noise and recipe.noise_levels > 2 else SEQUENCES


def is_to_be_streamed(options: Prune, made_from: dict | None) -> bool | None:
    """Return whether the model is streamed; None: where its weights take most of the free memory.

    An output or a work folder that is there was made in one of both ways, and only that way goes on with it,
    however much memory is free by now.
    """
    if made_from is not None:
        return made_from.get("streamed")
    if options.stream:
        return True

    return read_identity(options.work_folder).get("streamed")


def what_is_pruned(
    options: Prune, recipe: Recipe, sequences: int, streamed: bool | None
) -> tuple[LanguageModel, Calibration | None, list[str]]:
    """Return the model, its calibration text, and the names of what that text was taken from.

    `sequences` are how many of them a recipe that is calibrated sees. `streamed` is what `open_model` takes.
    """
    if not recipe.rule.calibrated:
        return open_model(options, options.model, streamed), None, []

    lm, texts = model_and_texts(options, sequences, options.length, False, streamed)
    calibration = Calibration(torch.cat(list(texts.values())), options.seed, options.batch)
    return lm, calibration, list(texts)


def check_noise(options: Prune, lm: LanguageModel) -> None:
    """Raise ValueError where noise is asked for and the model reads its text without."""
    stated = [assignment for assignment in options.set if assignment.startswith("noise=")]
    if stated and not lm.is_diffusion:
        raise ValueError(
            f"--set {stated[0]} does nothing here: {lm.name} is autoregressive and sees its text clean; "
            "leave it out"
        )


def plan(options: Prune, recipe: Recipe, sequences: int) -> None:
    """Say what pruning takes, and what this machine lacks for it, from shapes alone."""
    lm, text = planned(options, sequences)
    check_noise(options, lm)
    calibration = text if recipe.rule.calibrated else None
    for lack in tell_needs(options, lm, recipe, calibration):
        say(lack)


def tell_needs(
    options: Prune, lm: LanguageModel, recipe: Recipe, calibration: Calibration | None
) -> list[str]:
    """Say what pruning takes; return what this machine lacks for it, in sentences."""
    needed = pruning_needs(lm, recipe, calibration)
    say_needs(lm, options.device, f"{recipe.name}, sparsity {recipe.sparsity}", needed)

    loaded = weight_bytes(lm) if lm.has_blocks_in_memory else 0
    return lacks(needed, options.device, options.target, options.work_folder, WAYS_OUT, loaded)


def recipe_of(options: Prune) -> Recipe:
    """Return the recipe of `--preset`, changed by `--sparsity`, `--pattern` and `--set`, whose values are
    JSON or words.

    Raises ValueError for a field that does not exist or is given twice, and what `Recipe` raises.
    """
    changes = {name: getattr(options, name) for name in ("sparsity", "pattern") if name in options.given}
    known = [declared.name for declared in fields(Recipe)]
    for assignment in options.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: write FIELD=VALUE, e.g. --set allocation=owl")
        if name not in known:
            near = suggestion(name, known)
            raise ValueError(
                f"--set {assignment}: a recipe has no {name!r}{near or ';'} it has {', '.join(known)}"
            )

        if name in changes:
            raise ValueError(f"--set {assignment}: {name} is given twice; give it once")

        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text  # a word needs no quotes

    return preset(options.preset, **without_rounded_share(changes))


def without_rounded_share(changes: dict[str, object]) -> dict[str, object]:
    """Return fields of a recipe without a sparsity that is N / M of its pattern as a person rounds it.

    Another sparsity stays and is refused by `Recipe`.
    """
    pattern, given = changes.get("pattern"), changes.get("sparsity")
    ratio = n_and_m(pattern) if isinstance(pattern, str) else None
    if ratio is None or not isinstance(given, float):
        return changes

    if not math.isclose(given, ratio[0] / ratio[1], abs_tol=ROUNDED):
        return changes
    return {name: value for name, value in changes.items() if name != "sparsity"}


# what is written


@contextmanager
def places_held(options: Prune, recipe: Recipe) -> Iterator[dict | None]:
    """Hold output and work folder, unless it is a dry run; yield what an output of this recipe that is there
    was made from, or None.

    Raises FileExistsError for any other output, OSError for places that cannot be written, ValueError for
    those that do not go together and for a work folder that is none, RuntimeError for one that is in use.
    """
    check_distinct(out=options.out, work=options.work)
    if options.out is not None and (options.dry_run or not (options.out / TABLE).is_file()):
        check_new_path("out", options.out)
    if options.out is not None and options.work is not None:
        check_apart("work", options.work, "out", options.out)
        check_writable("work", options.work)

    if options.dry_run:
        yield None
        return

    with locked(options.target), locked(options.work_folder):
        remove_leftovers(options.target)  # of a process that was killed when it had just finished
        card = read_card(options.target)
        if is_finished(card, options, recipe):
            yield card[MADE_FROM]
            return

        check_new_path("out", options.target)
        read_identity(options.work_folder)  # raises for a folder with other files
        yield None


def is_finished(card: dict, options: Prune, recipe: Recipe) -> bool:
    """Return whether the output is there, whole, and made by this recipe, as its `card` says."""
    made_from = card.get(MADE_FROM) or {}
    is_of_recipe = card.get("recipe") == json.loads(json.dumps(recipe.card()))
    is_of_shape = made_from.get("masked") == options.masked
    is_whole = (options.target / TABLE).is_file()

    return is_of_recipe and is_of_shape and is_whole


def finish(
    made_from: dict,
    options: Prune,
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
) -> None:
    """Say that the output is what this command would make, and remove what is left of the work.

    Raises FileExistsError for the output of another model or calibration text.
    """
    expected = identity(lm, calibration)
    parts = ("model", "settings", "calibration")

    differing = [name for name in parts if made_from.get(name) != expected[name]]
    if differing:
        raise FileExistsError(
            f"--out {options.out} exists, made by this recipe from another {', '.join(differing)}: "
            "choose another name or remove it first"
        )

    if options.work_folder.is_dir():
        discard(options, recipe)

    print(f"{options.out}: finished already, from the same model, recipe and calibration text")


def save(lm: LanguageModel, report: Report, options: Prune, sources: list[str]) -> None:
    """Write the pruned model and its table of linears, remove what the run kept, and say what came out.

    `sources` are what the calibration text was taken from, by name.
    """
    is_smaller = bool(report.kept_units) and not options.masked
    widths = widths_left(lm, report)

    if is_smaller:
        lm = shrink(lm, report.kept_units)
    elif report.recipe.compensate:  # its biases need a class of model that has some
        units = {kind: range(units.count(lm.model.config)) for kind, units in removable(lm).items()}
        lm = shrink(lm, [units] * len(lm.blocks))

    made_from = read_identity(options.work_folder)
    made_from |= {"masked": options.masked, **provenance(options.model)}
    made_from["dtype"] = str(lm.model.dtype).removeprefix("torch.")
    if sources:
        made_from["text"] = sources

    before = card_of(options.model).get("recipe")
    if before is not None:  # of a model that was pruned already
        made_from["recipe_before"] = before

    table = report.linears.to_csv(index=False)
    named = lm.named(options.target.name)  # two models are told apart by their names
    save_model(named, options.target, {TABLE: table}, **report.card(), **{MADE_FROM: made_from})
    discard(options, report.recipe)

    weights = int(report.linears.weights.sum())
    done = "removed" if is_smaller else "zero"
    say(
        f"{options.out}: {report.sparsity:.4f} of {weights:,} weights in the blocks' linears are {done}"
        f"{widths}; {report.unpruned_parameters:,} other parameters are unpruned",
        sys.stdout,
    )
    print(f"next: sinkprune compare {shlex.quote(options.model)} {shlex.quote(str(options.out))}")


def widths_left(lm: LanguageModel, report: Report) -> str:
    """Return, of a structured recipe, how many units every block of the dense model `lm` keeps, in words."""
    if not report.kept_units:
        return ""

    kept = report.kept_units[0]  # of every block as many
    names = {"attention": "attention groups", "mlp": "MLP channels"}
    counts = [
        f"{len(kept[kind]):,} of {units.count(lm.model.config):,} {names[kind]}"
        for kind, units in removable(lm).items()
    ]

    asked = f"{report.recipe.sparsity:.4g} was asked for, and units leave whole"
    round_to = report.recipe.round_to
    assert round_to is not None  # of a structured recipe
    if round_to > 1 and is_rounded(removable(lm)["mlp"].count(lm.model.config), round_to):
        asked += f", to a multiple of {round_to} MLP channels"
    rounding = f" ({asked})" if abs(report.sparsity - report.recipe.sparsity) > ROUNDED else ""

    return f"{rounding}, every block keeps {' and '.join(counts)}"


def discard(options: Prune, recipe: Recipe) -> None:
    """Remove a job that is saved, and the work folder where it was made for this job alone."""
    root = options.work_folder
    remove_job(root, recipe)

    if options.work is None and not remove_root(root):
        print(
            f"{root} stays: it holds other jobs (--work goes on with them), or files of others",
            file=sys.stderr,
        )
