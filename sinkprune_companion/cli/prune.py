"""`sinkprune prune`: say what it takes, prune a model and save it in transformers format."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions
from sinkprune_companion.cli.options import kept, option, path, real, switch, whole
from sinkprune_companion.cli.prune_output import check_places, finish, places_held, save
from sinkprune_core.pruning.presets import ABOUT
from sinkprune_core.spelling import suggestion

if TYPE_CHECKING:
    from sinkprune_core.pruning.recipe import Recipe

SEQUENCES = 128  # of calibration text that is seen clean, or at two noise levels
# Where each is seen at more of them: they choose nearly the zeros that 128 sequences choose.
NOISED_SEQUENCES = 32
CALIBRATION = ("text", "data", "split", "sequences", "length", "batch", "seed")
HOW = "how to prune"
RUNNING = "how to run"


@dataclass(frozen=True, kw_only=True)
class PruneOptions(ModelOptions):
    """The options of `sinkprune prune`."""

    out: Path | None = path(
        "where the pruned model goes; it must not exist (required, but with --dry-run)", "FOLDER"
    )
    sequences: int | None = whole(
        None,
        "calibration sequences",
        least=1,
        stated=f"{SEQUENCES}, and {NOISED_SEQUENCES} for a recipe that sees each at several noise levels",
    )
    length: int | None = whole(None, "tokens per sequence", least=2, stated="128, with --text 512")
    preset: str = option(
        "sparsegpt",
        "a recipe of the literature, see below (default: sparsegpt)",
        HOW,
        choices=tuple(ABOUT),
        metavar="NAME",
    )
    sparsity: float = real(0.5, "share of zeros in the blocks' linears", "of at least 0 and below 1", HOW)
    pattern: str | None = option(None, "row, layer, global, N:M such as 2:4, or structured", HOW)
    set: tuple[str, ...] = option(
        (),
        "any other field of a recipe, e.g. --set allocation=owl (repeatable)",
        HOW,
        action="append",
        metavar="FIELD=VALUE",
    )
    masked: bool = switch("structured: keep the dense shape with zeros instead of a smaller model", HOW)
    work: Path | None = path(
        "keeps finished blocks and statistics: a killed run goes on, and with dense propagation another "
        "sparsity needs no forward (default: OUT.work, removed at the end)",
        "FOLDER",
        RUNNING,
    )
    stream: bool = switch(
        "read blocks from disk one at a time (default: where the weights take most of the free memory)",
        RUNNING,
    )
    dry_run: bool = switch("say what it takes, and stop", RUNNING)

    epilog = "\n".join(
        [
            "presets:",
            *(f"  {name:<21} {about}" for name, about in ABOUT.items()),
            "",
            "example:",
            "  sinkprune prune smol-dlm --preset sparsegpt --sparsity 0.5 --out smol-dlm-pruned",
        ]
    )

    def __post_init__(self):
        super().__post_init__()
        if self.out is None and not self.dry_run:
            raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
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

    @property
    def left_behind(self) -> str:
        """What an interrupted command leaves, in words."""
        return kept("finished blocks and statistics are", None if self.dry_run else self.work_folder)


def run(options: PruneOptions) -> int:
    """Say what pruning takes, prune, save, and only then remove the work folder."""
    import torch

    from sinkprune_companion.cli.inputs import model_and_texts, on_device
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.costs.pruning import pruning_cost
    from sinkprune_core.pruning.criteria import CRITERIA
    from sinkprune_core.pruning.engine import prune

    check_places(options)
    recipe = recipe_of(options)
    if not CRITERIA[recipe.criterion].calibrated:
        options.refuse(CALIBRATION, f"criterion={recipe.criterion} uses no calibration text")
    if recipe.pattern != "structured":
        options.refuse(("masked",), f"it is for pattern=structured, and this recipe has {recipe.pattern}")
    if options.sequences is None:
        is_clean = recipe.inputs == "clean" and recipe.exclude == "none"  # nor looks for sinks in noise
        many = is_clean or recipe.noise_levels <= 2
        options = replace(options, sequences=SEQUENCES if many else NOISED_SEQUENCES)
    with places_held(options, recipe) as made_from:
        options = on_device(options)
        if options.dry_run and plan_unfetched(options, recipe):
            return 0
        lm, texts = model_and_texts(options, options.length, held_out=False, streamed=options.stream or None)
        calibration = Calibration(torch.cat(list(texts.values())), options.seed, options.batch)
        if made_from is not None:
            finish(made_from, options, lm, recipe, calibration)
            return 0
        cost = pruning_cost(lm, recipe, calibration, options.out, options.work_folder)
        streamed = " streamed from disk" if lm.is_streamed else ""
        print(f"{lm.name}{streamed}, {recipe.name}, sparsity {recipe.sparsity}: {cost}", file=sys.stderr)
        if cost.missing:
            raise RuntimeError(f"this machine lacks {'; '.join(cost.missing)}")
        if not options.dry_run:
            save(lm, prune(lm, recipe, calibration, work=options.work_folder), options)
    return 0


def recipe_of(options: PruneOptions) -> Recipe:
    """Return the recipe of `--preset` with `--sparsity`, `--pattern` and the fields of `--set` changed.

    A field is set to a JSON value, or a word. Raises ValueError for one that does not exist or is given
    twice, and what `Recipe` raises.
    """
    from sinkprune_core.pruning.recipe import Recipe, preset

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
    return preset(options.preset, **changes)


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

    need = requirements(options.model, options.dtype, options.device)
    if options.model in EMBEDDED or not need.download:
        return False
    is_streamed = options.stream or need.memory > STREAM_ABOVE * available_memory(options.device)
    row, _ = parse(options.model)
    lm = meta_model(row, choose_dtype(options.dtype, options.device), is_streamed)
    length = options.length or default_length(options, lm.model.config.max_position_embeddings)
    calibration = Calibration(torch.zeros(options.sequences, length, dtype=torch.long))
    work = options.work or (Path() if is_streamed else None)
    cost = pruning_cost(lm, recipe, calibration, options.out or Path(), work, device=options.device)
    print(
        f"{options.model} is not on this machine: {need.download / 1e9:.1f} GB to download; "
        f"then{' streamed from disk,' if is_streamed else ''} {recipe.name}, sparsity {recipe.sparsity}: "
        f"{cost}",
        file=sys.stderr,
    )
    lacks = [lack for lack in need.missing if not is_streamed or "disk" in lack]
    for lack in (*lacks, *cost.missing):
        print(f"this machine lacks {lack}", file=sys.stderr)
    return True
