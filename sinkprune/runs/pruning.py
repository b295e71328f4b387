"""Pruning in a work folder, from which a killed run resumes, and of a model that is streamed.

`sinkprune_core` has the loop; here it gets a run whose blocks are finished on the disk, and whose rows and
statistics are computed once.
"""

from contextlib import nullcontext
from pathlib import Path

import torch
from pydantic import InstanceOf

from sinkprune.files import locked
from sinkprune.models.streaming import StreamedModel
from sinkprune.runs.resume import ResumedRun, WorkFolder, check_named, identity, job_of
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning import engine
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.report import Report
from sinkprune_core.values import Flag, Place, checked_arguments


@checked_arguments
@torch.no_grad()
def prune(
    lm: InstanceOf[LanguageModel],
    recipe: InstanceOf[Recipe],
    calibration: InstanceOf[Calibration] | None = None,
    progress: Flag = True,
    statistics: InstanceOf[DenseStatistics] | None = None,
    work: Place | None = None,
) -> Report:
    """Prune the weights that `recipe` chooses, in place, as `sinkprune_core.prune` does.

    `work` is a folder in which finished blocks and statistics are kept, so that a killed run goes on where it
    was and another sparsity needs no forward. A streamed model needs one.

    Raises what `sinkprune_core.prune` does, ValueError for a work folder of another run and for a user's
    function beside one, and RuntimeError for one that is in use.
    """
    if work is not None or lm.is_streamed:
        check_named(criterion=recipe.criterion, exclude=recipe.exclude)
    if work is None:
        if lm.is_streamed:
            make_plan(lm, recipe, calibration)  # a recipe that cannot be comes first
            raise ValueError(f"{lm.name} is streamed from disk: pass work=, a folder for its finished blocks")
        return engine.prune(lm, recipe, calibration, progress, statistics)

    root = Path(work).resolve()
    plan = make_plan(lm, recipe, calibration)  # what does not fit is said before work
    engine.check_before(lm, recipe, calibration, statistics)

    with locked(root):
        is_streamed = isinstance(lm, StreamedModel)
        with lm.without_blocks_in(root / job_of(recipe)) if is_streamed else nullcontext():
            work_folder = WorkFolder(root, identity(lm, calibration))
            run = ResumedRun(work_folder, lm, recipe, calibration, plan, progress, statistics)
            return engine.prune_blocks(run)
