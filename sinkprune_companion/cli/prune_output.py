"""What `sinkprune prune` leaves: who may write it, whether it is finished already, and how it is saved.

This module imports no torch, so that help starts without it.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sinkprune_companion.cli.options import check_distinct, check_new_path, check_writable
from sinkprune_core.files import held, resolved
from sinkprune_core.resuming.work_folder import identity, marker, remove_job, remove_root
from sinkprune_core.scratch import remove_leftovers

if TYPE_CHECKING:
    from sinkprune_companion.cli.prune import PruneOptions
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.models.language_model import LanguageModel
    from sinkprune_core.pruning.recipe import Recipe
    from sinkprune_core.pruning.report import Report

TABLE = "sinkprune-linears.csv"  # a row per pruned linear
MADE_FROM = "made_from"  # on the card: digests of the model and of the calibration text


def check_places(options: PruneOptions) -> None:
    """Raise an OSError or ValueError for places that cannot be written or do not go together.

    An output that exists is an error unless `sinkprune prune` made it.
    """
    check_distinct(out=options.out, work=options.work)
    if options.out is None:
        return
    if options.work is not None and resolved(options.out) in resolved(options.work).parents:
        raise ValueError(f"--work {options.work} lies in --out {options.out}: choose a place outside")
    if options.dry_run or not (options.out / TABLE).is_file():
        check_new_path("out", options.out)
    if options.work is not None:
        check_writable("work", options.work)


@contextmanager
def places_held(options: PruneOptions, recipe: Recipe) -> Iterator[dict | None]:
    """Hold output and work folder, unless it is a dry run; yield what the output that is there was made from.

    It was made by this recipe, and is None where there is no output yet. Raises FileExistsError for any other
    output, ValueError for a work folder that is not one, and RuntimeError where another process is at work.
    """
    from sinkprune_core.models.language_model import CARD
    from sinkprune_core.models.weight_files import read_json

    if options.dry_run:
        yield None
        return
    with held(options.out), held(options.work_folder):
        remove_leftovers(options.out)  # of a process that was killed when it had just finished
        made_from = None
        with suppress(OSError, ValueError):  # of what is no card
            card = read_json(options.out / CARD)
            if card.get("recipe") == json.loads(json.dumps(recipe.card())):
                made_from = card.get(MADE_FROM)
        is_ours = made_from is not None and made_from.get("masked") == options.masked
        if not is_ours or not (options.out / TABLE).is_file():
            check_new_path("out", options.out)
            marker(options.work_folder)
            made_from = None
        yield made_from


def finish(
    made_from: dict, options: PruneOptions, lm: LanguageModel, recipe: Recipe, calibration: Calibration
) -> None:
    """Say that the output is what this command would make, and remove what is left of the work.

    Raises FileExistsError for the output of another model or calibration text.
    """
    expected = identity(lm, calibration)
    compared = ("model", "settings", "calibration")
    differing = [name for name in compared if made_from.get(name) != expected[name]]
    if differing:
        raise FileExistsError(
            f"--out {options.out} exists, made by this recipe from another {', '.join(differing)}: "
            "choose another name or remove it first"
        )
    if options.work_folder.is_dir():
        discard(options, recipe)
    print(f"{options.out}: finished already, from the same model, recipe and calibration text")


def save(lm: LanguageModel, report: Report, options: PruneOptions) -> None:
    """Write the pruned model and its table of linears, remove what the run kept, and say what came out."""
    from sinkprune_core.pruning.shrink import shrink
    from sinkprune_core.pruning.structured import removable

    is_smaller = bool(report.kept_units) and not options.masked
    if is_smaller:
        lm = shrink(lm, report.kept_units)
    elif report.recipe.compensate:  # its biases need a class of model that has some
        units = {kind: range(units.count(lm.model.config)) for kind, units in removable(lm).items()}
        lm = shrink(lm, [units] * len(lm.blocks))
    made_from = marker(options.work_folder) | {"masked": options.masked}
    del made_from["format"]
    table = report.linears.to_csv(index=False)
    lm.save(options.out, {TABLE: table}, **report.card(), **{MADE_FROM: made_from})
    discard(options, report.recipe)
    weights = int(report.linears.weights.sum())
    print(
        f"{options.out}: {report.sparsity:.4f} of {weights:,} weights in the blocks' linears are "
        f"{'removed' if is_smaller else 'zero'}; {report.unpruned_parameters:,} other parameters are unpruned"
    )
    print(f"next: sinkprune compare {shlex.quote(options.model)} {shlex.quote(str(options.out))}")


def discard(options: PruneOptions, recipe: Recipe) -> None:
    """Remove a job that is saved, and the work folder where it was made for this job alone."""
    from sinkprune_core.calibration.token_weights import settings_digest
    from sinkprune_core.resuming.checkpoint import job_folder

    root = options.work_folder
    remove_job(job_folder(root, settings_digest(recipe)))
    if options.work is None and not remove_root(root):
        print(f"{root} stays: it holds other jobs, or files that are not sinkprune's", file=sys.stderr)
