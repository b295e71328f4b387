"""`sinkprune prune`: say what it takes, prune a model and save it in transformers format."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import torch

from sinkprune.cli.checks import check_distinct, check_new_path, check_writable
from sinkprune.cli.common import STREAM_ABOVE, default_length, model_and_texts, settle_device
from sinkprune.cli.options import Options
from sinkprune.files import PLANNED, held, resolved
from sinkprune.models import saving
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_dtype
from sinkprune.models.hub import available_memory, parse, requirements
from sinkprune.models.meta_model import meta_model
from sinkprune.models.reader import CARD
from sinkprune.models.weight_files import read_json
from sinkprune.runs.checkpoint import job_folder
from sinkprune.runs.pruning_cost import pruning_cost
from sinkprune.runs.work_folder import identity, marker, remove_job, remove_root
from sinkprune.scratch import remove_leftovers
from sinkprune.spelling import suggestion
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import settings_digest
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset
from sinkprune_core.pruning.report import Report
from sinkprune_core.pruning.shrink import shrink
from sinkprune_core.pruning.structured import removable

SEQUENCES = 128  # of calibration text that is seen clean, or at two noise levels
NOISED_SEQUENCES = 32  # where it is seen at more levels: they choose nearly the zeros that 128 choose
CALIBRATION = ("text", "data", "split", "sequences", "length", "batch", "seed")
TABLE = "sinkprune-linears.csv"  # a row per pruned linear
MADE_FROM = "made_from"  # on the card: digests of the model and of the calibration text


def run(options: Options) -> None:
    """Say what pruning takes, prune, save, and only then remove the work folder."""
    recipe = recipe_of(options)
    if not CRITERIA[recipe.criterion].calibrated:
        options.refuse(CALIBRATION, f"criterion={recipe.criterion} uses no calibration text")
    if recipe.pattern != "structured":
        options.refuse(("masked",), f"it is for pattern=structured, and this recipe has {recipe.pattern}")
    if options.sequences is None:
        is_clean = recipe.inputs == "clean" and recipe.exclude == "none"  # nor looks for sinks in noise
        options.sequences = SEQUENCES if is_clean or recipe.noise_levels <= 2 else NOISED_SEQUENCES
    with places_held(options, recipe) as made_from:
        settle_device(options)
        if options.dry_run and plan_unfetched(options, recipe):
            return
        lm, texts = model_and_texts(options, options.length, False, options.stream or None)
        calibration = Calibration(torch.cat(list(texts.values())), options.seed, options.batch)
        if made_from is not None:
            finish(made_from, options, lm, recipe, calibration)
            return
        cost = pruning_cost(lm, recipe, calibration, options.out or PLANNED, options.work_folder)
        streamed = " streamed from disk" if lm.is_streamed else ""
        print(f"{lm.name}{streamed}, {recipe.name}, sparsity {recipe.sparsity}: {cost}", file=sys.stderr)
        if cost.missing:
            raise RuntimeError(f"this machine lacks {'; '.join(cost.missing)}")
        if not options.dry_run:
            save(lm, prune(lm, recipe, calibration, work=options.work_folder), options)


def recipe_of(options: Options) -> Recipe:
    """Return the recipe of `--preset`, changed by `--sparsity`, `--pattern` and `--set` (to JSON, or a word).

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
    return preset(options.preset, **changes)


def plan_unfetched(options: Options, recipe: Recipe) -> bool:
    """Print what a model that is not here would take, download included; return whether it is not here."""
    need = requirements(options.model, options.dtype, options.device)
    if options.model in EMBEDDED or not need.download:
        return False
    is_streamed = options.stream or need.memory > STREAM_ABOVE * available_memory(options.device)
    lm = meta_model(parse(options.model)[0], choose_dtype(options.dtype, options.device), is_streamed)
    length = options.length or default_length(options, lm.model.config.max_position_embeddings)
    calibration = Calibration(torch.zeros(options.sequences, length, dtype=torch.long), batch=options.batch)
    places = (options.out or PLANNED, options.work_folder)
    cost = pruning_cost(lm, recipe, calibration, *places, device=options.device)
    here = f"{options.model} is not on this machine: {need.download / 1e9:.1f} GB to download; then"
    streamed = " streamed from disk," if is_streamed else ""
    print(f"{here}{streamed} {recipe.name}, sparsity {recipe.sparsity}: {cost}", file=sys.stderr)
    lacks = [lack for lack in need.missing if not is_streamed or "disk" in lack]
    for lack in (*lacks, *cost.missing):
        print(f"this machine lacks {lack}", file=sys.stderr)
    return True


# what is written


@contextmanager
def places_held(options: Options, recipe: Recipe) -> Iterator[dict | None]:
    """Hold output and work folder, unless it is a dry run; yield what an output of this recipe that is there
    was made from, or None.

    Raises FileExistsError for any other output, OSError for places that cannot be written, ValueError for
    those that do not go together and for a work folder that is none, RuntimeError for one that is in use.
    """
    check_distinct(out=options.out, work=options.work)
    if options.out is not None and (options.dry_run or not (options.out / TABLE).is_file()):
        check_new_path("out", options.out)
    if options.out is not None and options.work is not None:
        if resolved(options.out) in resolved(options.work).parents:
            raise ValueError(f"--work {options.work} lies in --out {options.out}: choose a place outside")
        check_writable("work", options.work)
    if options.dry_run:
        yield None
        return
    with held(options.out), held(options.work_folder):
        remove_leftovers(options.out)  # of a process that was killed when it had just finished
        card = {}
        with suppress(OSError, ValueError):  # of what is no card
            card = read_json(options.out / CARD)
        made_from = card.get(MADE_FROM) or {}
        is_ours = card.get("recipe") == json.loads(json.dumps(recipe.card()))
        is_whole = (options.out / TABLE).is_file() and made_from.get("masked") == options.masked
        if not (is_ours and is_whole):
            check_new_path("out", options.out)
            marker(options.work_folder)
        yield made_from if is_ours and is_whole else None


def finish(
    made_from: dict, options: Options, lm: LanguageModel, recipe: Recipe, calibration: Calibration
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


def save(lm: LanguageModel, report: Report, options: Options) -> None:
    """Write the pruned model and its table of linears, remove what the run kept, and say what came out."""
    is_smaller = bool(report.kept_units) and not options.masked
    if is_smaller:
        lm = shrink(lm, report.kept_units)
    elif report.recipe.compensate:  # its biases need a class of model that has some
        units = {kind: range(units.count(lm.model.config)) for kind, units in removable(lm).items()}
        lm = shrink(lm, [units] * len(lm.blocks))
    made_from = marker(options.work_folder) | {"masked": options.masked, "given": options.model}
    del made_from["format"]
    with suppress(OSError, ValueError, KeyError):  # of a model that was pruned before
        made_from["recipe_before"] = read_json(Path(options.model) / CARD)["recipe"]
    table = report.linears.to_csv(index=False)
    saving.save(lm, options.out, {TABLE: table}, **report.card(), **{MADE_FROM: made_from})
    discard(options, report.recipe)
    weights = int(report.linears.weights.sum())
    print(
        f"{options.out}: {report.sparsity:.4f} of {weights:,} weights in the blocks' linears are "
        f"{'removed' if is_smaller else 'zero'}; {report.unpruned_parameters:,} other parameters are unpruned"
    )
    print(f"next: sinkprune compare {shlex.quote(options.model)} {shlex.quote(str(options.out))}")


def discard(options: Options, recipe: Recipe) -> None:
    """Remove a job that is saved, and the work folder where it was made for this job alone."""
    root = options.work_folder
    remove_job(job_folder(root, settings_digest(recipe)))
    if options.work is None and not remove_root(root):
        print(
            f"{root} stays: it holds other jobs (--work goes on with them), or files of others",
            file=sys.stderr,
        )
