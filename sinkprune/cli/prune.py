"""`sinkprune prune`: say what it takes, prune a model and save it in transformers format."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import (
    ANY,
    AT,
    DEFAULT_BATCH,
    RUNNING,
    Batch,
    DryRun,
    Length,
    Model,
    Seed,
    Source,
    SourceOptions,
    Stream,
    Where,
    WhereOptions,
    new_path,
    refuse,
)
from sinkprune.cli.screen import keeping, loading, say
from sinkprune.spelling import suggestion
from sinkprune_core.pruning.presets import ABOUT

if TYPE_CHECKING:
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.language_model import LanguageModel
    from sinkprune_core.pruning.recipe import Recipe
    from sinkprune_core.pruning.report import Report

HOW = Group("how to prune", sort_key=3)
PRESETS = "\n".join(f"  {name}: {about}" for name, about in ABOUT.items())
EXAMPLE = "  sinkprune prune smol-dlm --preset sparsegpt --sparsity 0.5 --out smol-dlm-pruned"
SEQUENCES = 128
NOISED_SEQUENCES = 32  # where it is seen at more levels: they choose nearly the zeros that 128 choose
ROUNDED = 1e-3  # how far a sparsity that is given may lie from that of a pattern N:M: 0.333 is 1:3
TABLE = "sinkprune-linears.csv"  # a row per pruned linear
MADE_FROM = "made_from"  # on the card: digests of the model and of the calibration text

command = App(name="prune", help_epilogue=f"presets:\n{PRESETS}\n\nexample:\n{EXAMPLE}")


@command.default
def prune(
    model: Model,
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="where the pruned model goes; it must not exist (required, but with --dry-run)",
            metavar="FOLDER",
        ),
    ] = None,
    preset: Annotated[
        str,
        Parameter(
            help="a recipe of the literature, see below",
            choices=tuple(ABOUT),
            show_choices=False,
            group=HOW,
        ),
    ] = "sparsegpt",
    sparsity: Annotated[
        float | None,
        Parameter(
            help="share of zeros in the blocks' linears",
            validator=Number(gte=0, lt=1),
            show_default="0.5",
            group=HOW,
        ),
    ] = None,
    pattern: Annotated[
        str | None, Parameter(help="row, layer, global, N:M such as 2:4, or structured", group=HOW)
    ] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(
            help="any other field of a recipe, e.g. --set allocation=owl (repeatable)",
            metavar="FIELD=VALUE",
            group=HOW,
        ),
    ] = (),
    masked: Annotated[
        bool,
        Parameter(help="structured: keep the dense shape with zeros instead of a smaller model", group=HOW),
    ] = False,
    sequences: Annotated[
        PositiveInt | None,
        Parameter(
            help="calibration sequences",
            show_default="128, and 32 for a recipe that sees each, or looks for its sinks, at more than two "
            "noise levels",
        ),
    ] = None,
    length: Length = None,
    seed: Seed = 0,
    work: Annotated[
        Path | None,
        Parameter(
            help="keeps finished blocks and statistics: a killed run goes on, and with dense propagation "
            "another sparsity needs no forward (default: OUT.work, removed at the end)",
            metavar="FOLDER",
            group=RUNNING,
        ),
    ] = None,
    stream: Stream = False,
    dry_run: DryRun = False,
    batch: Batch = None,
    source: SourceOptions = ANY,
    where: WhereOptions = AT,
) -> None:
    """Prune a model and save it in transformers format."""
    if out is None and not dry_run:
        raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
    if where.device_map is not None:
        refuse(f"--device-map {where.device_map} lays the whole model on its devices", stream=stream)

    target = out or Path("pruned")
    work_folder = work_folder_of(target, work)
    is_there = (target / TABLE).is_file() and not dry_run  # it may be what this command has made
    if out is not None and not is_there:
        check_new(out)

    of_text = {"text": source.text, "data": source.data, "split": source.split, "batch": batch}
    of_text |= {"sequences": sequences, "length": length, "seed": seed}
    chosen = (preset, sparsity, pattern, set)
    batch = batch or DEFAULT_BATCH

    if dry_run:
        from sinkprune.cli import common

        recipe = recipe_of(*chosen, masked, of_text)
        shape = (sequences or usual_sequences(recipe), length)
        lm, text = common.planned(model, where, source, shape, batch, stream)
        check_noise(set, lm)
        for lack in tell_needs(lm, recipe, text, where, target, work_folder):
            say(lack)
        return

    with ExitStack() as stack:
        with loading(model):
            from sinkprune.files import held
            from sinkprune.runs import pruning
            from sinkprune.runs.work_folder import marker, was_streamed

            recipe = recipe_of(*chosen, masked, of_text)
            stack.enter_context(held(target))
            stack.enter_context(held(work_folder))
            made_from = finished_from(target, recipe, masked) if is_there else None
            if made_from is None:
                check_new(target)
                marker(work_folder)  # raises for a folder with other files

            # what was made in one of both ways only goes on in that way, however much memory is free
            streamed = stream or was_streamed(work_folder)
            if made_from is not None:
                streamed = made_from.get("streamed")

            lm, text, sources = what_is_pruned(
                model, where, source, recipe, (sequences, length), seed, batch, streamed
            )

        check_noise(set, lm)
        if made_from is not None:
            check_same(made_from, out, lm, text)
            print(f"{out}: finished already, from the same model, recipe and calibration text")
        else:
            lacking = tell_needs(lm, recipe, text, where, target, work_folder)
            if lacking:
                raise RuntimeError("; ".join(lacking))

            with keeping("finished blocks and statistics are", work_folder):
                report = pruning.prune(lm, recipe, text, work=work_folder)
                before = {**(marker(work_folder) or {}), "masked": masked}
                save(lm, report, model, target, before, sources)

            print(f"next: sinkprune compare {shlex.quote(model)} {shlex.quote(str(out))}")

        discard(work_folder, recipe, work is None)


def work_folder_of(out: Path, work: Path | None) -> Path:
    """Return where the work folder is; raise ValueError for one in the place of the output, or below it."""
    folder = Path(os.path.realpath(work or out.absolute().parent / f"{out.name}.work"))
    if Path(os.path.realpath(out)) in (folder, *folder.parents):
        raise ValueError(f"--work {work} lies in --out {out}: choose a place outside")
    return folder


def check_new(out: Path) -> None:
    """Raise FileExistsError, or OSError where nothing can be made; it names --out."""
    try:
        new_path(Path, out)
    except ValueError as error:
        raise FileExistsError(f"--out {out}: {error}") from None


def recipe_of(
    name: str,
    sparsity: float | None,
    pattern: str | None,
    assignments: tuple[str, ...],
    masked: bool = False,
    of_text: Mapping[str, object] | None = None,
) -> Recipe:
    """Return the recipe of `--preset`, changed by `--sparsity`, `--pattern` and `--set`, whose values are
    JSON or words.

    Raises ValueError for a field that does not exist or is given twice, for `masked` and options `of_text`
    that do nothing for this recipe, and what `Recipe` raises.
    """
    from sinkprune_core.pruning import recipe as recipes

    options = {"sparsity": sparsity, "pattern": pattern}
    changes: dict[str, object] = {field: value for field, value in options.items() if value is not None}
    known = [declared.name for declared in fields(recipes.Recipe)]
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: write FIELD=VALUE, e.g. --set allocation=owl")
        if field not in known:
            near = suggestion(field, known)
            raise ValueError(
                f"--set {assignment}: a recipe has no {field!r}{near or ';'} it has {', '.join(known)}"
            )

        if field in changes:
            raise ValueError(f"--set {assignment}: {field} is given twice; give it once")

        try:
            changes[field] = json.loads(text)
        except ValueError:
            changes[field] = text  # a word needs no quotes

    recipe = recipes.preset(name, **without_rounded_share(changes))
    if not recipe.rule.calibrated:
        refuse(f"criterion={recipe.criterion} uses no calibration text", **(of_text or {}))
    if recipe.pattern != "structured":
        refuse(f"it is for pattern=structured, and this recipe has {recipe.pattern}", masked=masked)
    return recipe


def without_rounded_share(changes: dict[str, object]) -> dict[str, object]:
    """Return fields of a recipe without a sparsity that is N / M of its pattern as a person rounds it.

    Another sparsity stays and is refused by `Recipe`.
    """
    from sinkprune_core.pruning.patterns import n_and_m

    pattern, given = changes.get("pattern"), changes.get("sparsity")
    ratio = n_and_m(pattern) if isinstance(pattern, str) else None
    if ratio is None or not isinstance(given, float):
        return changes

    if not math.isclose(given, ratio[0] / ratio[1], abs_tol=ROUNDED):
        return changes
    return {name: value for name, value in changes.items() if name != "sparsity"}


def usual_sequences(recipe: Recipe) -> int:
    """Return how many calibration sequences a recipe sees where none are asked for."""
    looks_at_noise = recipe.inputs != "clean" or recipe.exclude != "none"  # to prune, or to find sinks
    return NOISED_SEQUENCES if looks_at_noise and recipe.noise_levels > 2 else SEQUENCES


def what_is_pruned(
    model: str,
    where: Where,
    source: Source,
    recipe: Recipe,
    shape: tuple[int | None, int | None],
    seed: int,
    batch: int,
    streamed: bool | None,
) -> tuple[LanguageModel, Calibration | None, list[str]]:
    """Return the model, its calibration text, and the names of what that text was taken from."""
    import torch

    from sinkprune.cli import common
    from sinkprune_core.calibration.text import Calibration

    if not recipe.rule.calibrated:
        return common.open_model(model, where, streamed), None, []

    sequences, length = shape
    lm, texts = common.model_and_texts(
        model,
        where,
        source,
        sequences or usual_sequences(recipe),
        length,
        seed=seed,
        held_out=False,
        streamed=streamed,
    )
    return lm, Calibration(torch.cat(list(texts.values())), seed, batch), list(texts)


def check_noise(assignments: tuple[str, ...], lm: LanguageModel) -> None:
    """Raise ValueError where noise is asked for and the model reads its text without."""
    noise = [assignment for assignment in assignments if assignment.startswith("noise=")]
    if not lm.is_diffusion:
        refuse(f"{lm.name} is autoregressive and sees its text clean", set=" ".join(noise))


def tell_needs(
    lm: LanguageModel, recipe: Recipe, text: Calibration | None, where: Where, out: Path, work: Path
) -> list[str]:
    """Say what pruning takes; return what this machine lacks for it, in sentences."""
    from sinkprune.cli import common
    from sinkprune.runs.memory_and_disk import lacks, pruning_needs, weight_bytes

    device, _ = common.place_of(where)
    needed = pruning_needs(lm, recipe, text if recipe.rule.calibrated else None)
    common.say_needs(lm, device, f"{recipe.name}, sparsity {recipe.sparsity}", needed)
    loaded = weight_bytes(lm) if lm.has_blocks_in_memory else 0
    return lacks(needed, device, out, work, common.WAYS_OUT, loaded)


# what is written


def finished_from(out: Path, recipe: Recipe, masked: bool) -> dict | None:
    """Return what an output that is there was made from, if its card says this recipe and shape."""
    from sinkprune.models.card import read_card
    from sinkprune.scratch import remove_leftovers

    remove_leftovers(out)  # of a process that was killed when it had just finished
    card = read_card(out)
    made_from = card.get(MADE_FROM) or {}
    is_of_recipe = card.get("recipe") == json.loads(json.dumps(recipe.card()))
    return made_from if is_of_recipe and made_from.get("masked") == masked else None


def check_same(made_from: dict, out: Path | None, lm: LanguageModel, text: Calibration | None) -> None:
    """Raise FileExistsError for the output of another model or calibration text."""
    from sinkprune.runs.work_folder import identity

    expected = identity(lm, text)
    parts = ("model", "settings", "calibration")
    differing = [name for name in parts if made_from.get(name) != expected[name]]
    if differing:
        raise FileExistsError(
            f"--out {out} exists, made by this recipe from another {', '.join(differing)}: "
            "choose another name or remove it first"
        )


def save(
    lm: LanguageModel, report: Report, model: str, out: Path, made_from: dict, sources: list[str]
) -> None:
    """Write the pruned model and its table of linears, and say what came out.

    `made_from` is what the work folder and the command line say of it, and `sources` are what the calibration
    text was taken from, by name.
    """
    from sinkprune.models.shrinking import shrink
    from sinkprune.recovery.model_card import card_of, provenance, save_model
    from sinkprune_core.pruning.structured import removable

    is_smaller = bool(report.kept_units) and not made_from["masked"]
    widths = widths_left(lm, report)

    if is_smaller:
        lm = shrink(lm, report.kept_units)
    elif report.recipe.compensate:  # its biases need a class of model that has some
        units = {kind: range(units.count(lm.model.config)) for kind, units in removable(lm).items()}
        lm = shrink(lm, [units] * len(lm.blocks))

    made_from = {**made_from, **provenance(model)}
    made_from.pop("format", None)
    made_from["dtype"] = str(lm.model.dtype).removeprefix("torch.")
    if sources:
        made_from["text"] = sources

    before = card_of(model).get("recipe")
    if before is not None:  # of a model that was pruned already
        made_from["recipe_before"] = before

    table = report.linears.to_csv(index=False)
    named = lm.named(out.name)  # two models are told apart by their names
    save_model(named, out, {TABLE: table}, **report.card(), **{MADE_FROM: made_from})

    weights = int(report.linears.weights.sum())
    done = "removed" if is_smaller else "zero"
    say(
        f"{out}: {report.sparsity:.4f} of {weights:,} weights in the blocks' linears are {done}"
        f"{widths}; {report.unpruned_parameters:,} other parameters are unpruned",
        sys.stdout,
    )


def widths_left(lm: LanguageModel, report: Report) -> str:
    """Return, of a structured recipe, how many units every block of the dense model `lm` keeps, in words."""
    from sinkprune_core.pruning.structured import is_rounded, removable

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


def discard(folder: Path, recipe: Recipe, is_own: bool) -> None:
    """Remove a job that is saved, and its work folder where that was made for this job alone."""
    from sinkprune.runs.checkpoint import job_folder
    from sinkprune.runs.recipe_identity import settings_digest
    from sinkprune.runs.work_folder import remove_job, remove_root

    if not folder.is_dir():
        return

    remove_job(job_folder(folder, settings_digest(recipe)))
    if is_own and not remove_root(folder):
        print(
            f"{folder} stays: it holds other jobs (--work goes on with them), or files of others",
            file=sys.stderr,
        )
