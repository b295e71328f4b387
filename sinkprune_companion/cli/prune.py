"""`sinkprune prune`: say what it takes, prune a model and save it in transformers format."""

from __future__ import annotations

import argparse
import json
import sys
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions, add_model_options, check_model_name
from sinkprune_companion.cli.options import (
    add_number,
    real,
    suggestion,
    whole,
)
from sinkprune_companion.cli.prune_output import check_places, is_finished, places_held, save

if TYPE_CHECKING:
    from sinkprune_core.pruning.recipe import Recipe

SUMMARY = "prune a model and save it in transformers format"
PRESETS = (
    "magnitude",
    "wanda",
    "dwanda",
    "sparsegpt",
    "noised-dense",
    "all-sinks",
    "unstable",
    "stable",
    "random",
    "only-sinks",
    "paper",
    "paper-no-sinks",
    "paper-dream",
    "paper-sparsegpt",
    "sparsegpt-unstable",
    "structured-magnitude",
    "structured",
    "structured-sink",
    "structured-no-sinks",
    "flap",
)  # of pruning.recipe, which takes torch; a test compares them
SEQUENCES = 128  # of calibration text that is seen clean
# Where each is seen at all noise levels: they choose nearly the zeros that 128 sequences choose.
NOISED_SEQUENCES = 32
CALIBRATION = ("text", "data", "split", "sequences", "length", "batch", "seed")


@dataclass(frozen=True, kw_only=True)
class PruneOptions(ModelOptions):
    """The options of `sinkprune prune`."""

    sequences: int | None = whole(None, least=1)
    length: int | None = whole(None, least=2)
    out: Path | None = None
    preset: str = "unstable"
    sparsity: float | None = real(None, least=0, most=1, without_most=True)
    pattern: str | None = None
    set: tuple[str, ...] = ()
    work: Path | None = None
    stream: bool = False
    masked: bool = False
    dry_run: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.out is None and not self.dry_run:
            raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
        if self.out is not None and self.out == self.work:
            raise ValueError(
                f"--out and --work are both {self.out}: the work folder needs a place of its own"
            )
        if self.preset not in PRESETS:
            near = suggestion(self.preset, PRESETS)
            raise ValueError(
                f"--preset {self.preset} is unknown{near or ';'} choose one of {', '.join(PRESETS)}"
            )
        if self.stream and self.device_map is not None:
            raise ValueError(
                "--stream and --device-map exclude each other: "
                "a model comes from disk block by block, or lies on its devices"
            )

    @property
    def work_folder(self) -> Path | None:
        """Where finished blocks and statistics are kept; None for a dry run that names no folder."""
        if self.work is not None or self.out is None:
            return self.work
        return self.out.with_name(self.out.name + ".work")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `PruneOptions`."""
    add_model_options(parser, PruneOptions)
    add_number(
        parser,
        PruneOptions,
        "sequences",
        "calibration sequences",
        f"{SEQUENCES}, and {NOISED_SEQUENCES} for a recipe that sees each at several noise levels",
    )
    add_number(parser, PruneOptions, "length", "tokens per sequence", "128, with --text 512")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the pruned model goes; it must not exist"
    )
    group = parser.add_argument_group("how to prune")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"a recipe of the literature: {', '.join(PRESETS)} (default: {PruneOptions.preset})",
    )
    add_number(group, PruneOptions, "sparsity", "share of zeros in the blocks' linears", "0.5")
    group.add_argument("--pattern", help="row, layer, global, N:M such as 2:4, or structured")
    group.add_argument(
        "--set",
        action="append",
        metavar="FIELD=VALUE",
        help="any other field of a recipe, e.g. --set allocation=owl (repeatable)",
    )
    group.add_argument(
        "--masked",
        action="store_true",
        help="structured: keep the dense shape with zeros instead of a smaller model",
    )
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keeps finished blocks and statistics: a killed run goes on, and another sparsity needs no "
        "forward (default: OUT.work, removed at the end)",
    )
    group.add_argument(
        "--stream",
        action="store_true",
        help="read blocks from disk one at a time "
        "(default: only where the model does not fit well into memory)",
    )
    group.add_argument("--dry-run", action="store_true", help="say what it takes, and stop")


def run(options: PruneOptions) -> int:
    """Say what pruning takes, prune, save, and only then remove the work folder."""
    check_model_name(options.model)
    options.check_text()
    check_places(options)
    recipe = recipe_of(options)
    refuse_idle(options, recipe)
    if options.sequences is None:
        options = replace(options, sequences=SEQUENCES if sees_no_noise(recipe) else NOISED_SEQUENCES)
    with places_held(options, recipe):
        return prune_and_save(options, recipe)


def prune_and_save(options: PruneOptions, recipe: Recipe) -> int:
    """Load the model and do what `run` says, in places that are held."""
    import torch

    from sinkprune_companion.cli.inputs import documents_of, on_device, open_model, sequences_of
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.costs.pruning import pruning_cost
    from sinkprune_core.pruning.engine import prune
    from sinkprune_core.pruning.recipe import check

    options = on_device(options)
    if options.dry_run and plan_unfetched(options, recipe):
        return 0
    documents = documents_of(options, held_out=False)
    lm = open_model(options, options.stream or None)
    sources = sequences_of(lm, options, documents, options.length, held_out=False)
    calibration = Calibration(torch.cat(list(sources.values())), options.seed, options.batch)
    check(lm, recipe, calibration)
    if is_finished(options, lm, recipe, calibration):
        return 0
    cost = pruning_cost(lm, recipe, calibration, options.out, options.work_folder)
    streamed = " streamed from disk" if lm.is_streamed else ""
    print(f"{lm.name}{streamed}, {recipe.name}, sparsity {recipe.sparsity}: {cost}", file=sys.stderr)
    if cost.missing:
        raise RuntimeError(f"this machine lacks {'; '.join(cost.missing)}")
    if options.dry_run:
        return 0
    save(lm, prune(lm, recipe, calibration, work=options.work_folder), options)
    return 0


def kept(options: PruneOptions) -> str:
    """Return what an interrupted run leaves."""
    if options.dry_run or options.work_folder is None or not options.work_folder.exists():
        return "nothing was done yet, and nothing was written"
    return (
        f"finished blocks and statistics are kept in {options.work_folder}, "
        "and the same command goes on from there"
    )


def recipe_of(options: PruneOptions) -> Recipe:
    """Return the recipe of `--preset` with `--sparsity`, `--pattern` and the fields of `--set` changed.

    Raises ValueError for a field that does not exist or is given twice, and for a value of another type.
    """
    from sinkprune_core.pruning.recipe import Recipe, preset

    changes: dict[str, object] = {}
    for name in ("sparsity", "pattern"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    hints = typing.get_type_hints(Recipe)
    for assignment in options.set:
        name, value = parse_assignment(assignment, hints)
        if name in changes:
            raise ValueError(f"--set {assignment}: {name} is given twice; give it once")
        changes[name] = value
    return preset(options.preset, **changes)


def parse_assignment(assignment: str, hints: dict[str, type]) -> tuple[str, object]:
    """Return field and value of `FIELD=VALUE`: a JSON value, or a word.

    `hints` has the types of all fields. Raises ValueError for another field, and for a value of another type.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ValueError(f"--set {assignment}: write FIELD=VALUE, e.g. --set allocation=owl")
    if name not in hints:
        near = suggestion(name, hints)
        raise ValueError(
            f"--set {assignment}: a recipe has no {name!r}{near or ';'} it has {', '.join(hints)}"
        )
    try:
        value = json.loads(text)
    except ValueError:
        value = text  # a word needs no quotes
    kinds = [kind for kind in typing.get_args(hints[name]) or (hints[name],) if isinstance(kind, type)]
    if float in kinds:
        kinds.append(int)
    if not isinstance(value, tuple(kinds)):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"--set {assignment}: {name} takes {names}, not {value!r}")
    return name, value


def refuse_idle(options: PruneOptions, recipe: Recipe) -> None:
    """Raise ValueError for an option that would do nothing with this recipe."""
    from sinkprune_core.pruning.criteria import CRITERIA

    criterion = f"criterion={recipe.criterion}"
    if not CRITERIA[recipe.criterion].calibrated:
        options.refuse(CALIBRATION, f"{criterion} uses no calibration text")
    if recipe.pattern != "structured":
        options.refuse(("masked",), f"it is for pattern=structured, and this recipe has {recipe.pattern}")
    changed = {assignment.partition("=")[0] for assignment in options.set}
    rules = (
        (("damping", "block_size"), recipe.criterion != "sparsegpt", "only criterion=sparsegpt has it"),
        (("owl_m",), recipe.allocation != "owl", "only allocation=owl has it"),
        (("owl_lambda",), recipe.allocation == "uniform", "allocation=uniform makes all layers equal"),
        (("sink_std", "stability_threshold"), recipe.exclude == "none", "exclude=none looks for no sinks"),
        (
            ("noise_levels", "noise"),
            sees_no_noise(recipe),
            "inputs=clean with exclude=none has no noise levels",
        ),
    )
    for names, is_idle, reason in rules:
        for name in changed.intersection(names):
            if is_idle:
                raise ValueError(f"--set {name} does nothing here: {reason}; leave it out")


def sees_no_noise(recipe: Recipe) -> bool:
    """Return whether a recipe sees its text clean only, and looks for no sinks in noised text."""
    return recipe.inputs == "clean" and recipe.exclude == "none"


def plan_unfetched(options: PruneOptions, recipe: Recipe) -> bool:
    """Print what a model that this machine lacks would take, download included.

    Returns False, and prints nothing, where there is nothing to download.
    """
    import torch

    from sinkprune_companion.cli.inputs import STREAM_ABOVE, default_length
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.costs.pruning import pruning_cost
    from sinkprune_core.models.catalog import EMBEDDED
    from sinkprune_core.models.devices import choose_dtype
    from sinkprune_core.models.hub import available_memory, parse, requirements
    from sinkprune_core.models.meta_model import meta_model
    from sinkprune_core.pruning.recipe import check

    row, _ = parse(options.model)
    need = requirements(options.model, options.dtype, options.device)
    if row is None or row.id in EMBEDDED or not need.download:
        return False
    streamed = options.stream or need.memory > STREAM_ABOVE * available_memory(options.device)
    lm = meta_model(row, choose_dtype(options.dtype, options.device), streamed)
    length = options.length or default_length(options, row.context or 2048)
    ids_NT = torch.zeros(options.sequences, length, dtype=torch.long)
    calibration = Calibration(ids_NT, options.seed, options.batch)
    check(lm, recipe, calibration)
    out = options.out or Path()
    work = options.work or (Path() if streamed else None)
    cost = pruning_cost(lm, recipe, calibration, out, work, device=options.device)
    print(
        f"{row.id} is not on this machine: {need.download / 1e9:.1f} GB to download; "
        f"then{' streamed from disk,' if streamed else ''} {recipe.name}, sparsity {recipe.sparsity}: {cost}",
        file=sys.stderr,
    )
    missing = [lack for lack in need.missing if not streamed or "disk" in lack]
    for lack in (*missing, *cost.missing):
        print(f"this machine lacks {lack}", file=sys.stderr)
    return True
