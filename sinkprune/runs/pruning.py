"""Pruning in a work folder: what a killed run goes on from, and how a model that is streamed is pruned.

`sinkprune_core` has the loop; here it gets a run whose blocks are finished on the disk, and whose rows and
statistics are computed once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import InstanceOf

from sinkprune.files import locked
from sinkprune.models.streaming import StreamedModel
from sinkprune.runs.checkpoint import PruningCheckpoint, job_folder
from sinkprune.runs.dense_pass import KeptPass
from sinkprune.runs.recipe_identity import check_named, settings_digest
from sinkprune_core.blocks import BlockInput, Rows
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning import engine
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.pruning_run import PruningRun
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
        job = settings_digest(recipe)
        with _dense_again(lm, job_folder(root, job)):
            checkpoint = PruningCheckpoint(root, lm, job, calibration)
            run = KeptRun(lm, recipe, calibration, plan, progress, statistics, checkpoint.store)
            run.checkpoint = checkpoint
            run.progress = checkpoint.state
            return engine.prune_blocks(run)


@contextmanager
def _dense_again(lm: LanguageModel, folder: Path) -> Iterator[None]:
    """Let a streamed model have its dense blocks where a folder holds finished ones."""
    if not isinstance(lm, StreamedModel):
        yield
        return
    with lm.without_blocks_in(folder):
        yield


class KeptRun(PruningRun):
    """A run in a work folder: what is computed once, and blocks that are finished, come back after a kill.

    Blocks of a streamed model are read when they are taken.
    """

    dense_pass = KeptPass
    checkpoint: PruningCheckpoint

    def make_rows(self) -> Rows:
        """Return the rows of this job."""
        return self.checkpoint.rows(super().make_rows)

    def take_dense(self) -> DenseStatistics:
        """Return the statistics that serve all jobs of this text."""
        key = settings_digest(self.recipe.statistics_key)
        return self.checkpoint.statistics(key, super().take_dense)

    def keep_decisions(self) -> None:
        """Write what was decided."""
        self.checkpoint.write()

    def resume(self, rows: Rows | None) -> list[BlockInput]:
        """Take finished blocks back; return what the next one receives of `rows`, [] where none need run."""
        batch = 1 if self.calibration is None else self.calibration.batch
        from_dense = self.recipe.propagation == "dense"
        return self.checkpoint.resume(self.lm, rows, batch, from_dense)

    def finish(self, layer: int) -> None:
        """Write a pruned block: from now on it counts."""
        self.checkpoint.finish(self.lm, layer)

    def close(self) -> None:
        """Remove the hidden states."""
        self.checkpoint.forget_hidden()
