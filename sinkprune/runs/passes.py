"""How often the text of a planned run goes through the blocks, in how many rows, and what for.

Dimensions: R calibration rows, that is sequences in all states that statistics come from.
"""

from dataclasses import dataclass

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan, is_written
from sinkprune_core.pruning.recipe import Recipe


@dataclass(frozen=True)
class Passes:
    """All passes of a run."""

    rows: int = 0  # R
    of_rows: int = 0  # passes of all R rows: for statistics, and for the outputs of pruned blocks
    sink_rows: int = 0  # of the forwards that show the sinks; 0 where nobody asks for them
    rows_run: int = 0  # that go through all blocks, in all passes
    hidden_rows: int = 0  # whose hidden states wait at a time: before a block and after it, or of the sinks


def passes_of(
    plan: Plan,
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    waits_on_disk: bool = False,
) -> Passes:
    """Return the passes of a run with this plan, whose inputs may wait on the disk."""
    if plan.source == "nowhere" or calibration is None:
        return Passes()

    sequences = len(calibration.ids_NT)
    in_all_states = sequences * recipe.noise_levels
    rows = in_all_states if recipe.inputs == "noised" else sequences
    sink_rows = 0
    if recipe.exclude != "none":
        sink_rows = in_all_states if lm.is_diffusion else sequences

    of_rows, of_sinks = 0, 0
    if plan.takes_dense:
        of_rows += 1
        shows_both = plan.joint_rows is not None or waits_on_disk  # sinks and statistics, in one pass
        of_sinks += 0 if shows_both else 1
    if plan.source == "block by block":
        of_rows += 1
        of_sinks += 1
    if recipe.propagation == "sequential":
        of_rows += 1

    rows_run = of_rows * rows + of_sinks * sink_rows
    if is_written(lm, recipe):
        rows_run += in_all_states

    hidden_rows = max(2 * rows, sink_rows)
    if plan.joint_rows is not None and plan.source == "dense model":
        hidden_rows = 0

    return Passes(rows, of_rows, sink_rows, rows_run, hidden_rows)
