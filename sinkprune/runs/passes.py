"""How often the text of a planned run goes through the blocks, in how many rows, and what for.

Dimensions: R calibration rows, that is sequences in all states that statistics come from.
"""

from dataclasses import dataclass
from typing import Literal

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan, is_written
from sinkprune_core.pruning.recipe import Recipe

Shown = Literal["rollout", "sinks", "statistics", "outputs of pruned blocks"]
OF_ROWS: tuple[Shown, ...] = ("statistics", "outputs of pruned blocks")  # those of the R rows


@dataclass(frozen=True)
class Pass:
    """Rows that go through all blocks once, and what for."""

    shows: Shown
    rows: int


@dataclass(frozen=True)
class Passes:
    """All passes of a run."""

    in_order: tuple[Pass, ...] = ()
    rows: int = 0  # R
    sink_rows: int = 0  # of the forwards that show the sinks; 0 where nobody asks for them
    hidden_rows: int = 0  # whose hidden states wait at a time: before a block and after it, or of the sinks

    @property
    def rows_run(self) -> int:
        """How many rows go through all blocks, in all passes."""
        return sum(each.rows for each in self.in_order)

    @property
    def of_rows(self) -> int:
        """How many of the passes are of all R rows."""
        return sum(each.shows in OF_ROWS for each in self.in_order)


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

    passes = [Pass("rollout", in_all_states)] if is_written(lm, recipe) else []
    shows_both = plan.rows_at_once > 0 or waits_on_disk
    passes += _forwards(plan, recipe, rows, sink_rows, shows_both)

    hidden_rows = max(2 * rows, sink_rows)
    if plan.rows_at_once and plan.source == "dense model":
        hidden_rows = 0

    return Passes(tuple(passes), rows, sink_rows, hidden_rows)


def _forwards(plan: Plan, recipe: Recipe, rows: int, sink_rows: int, shows_both: bool) -> list[Pass]:
    """Return the passes of a text whose states are made; one of the dense model may show both."""
    of_sinks = [Pass("sinks", sink_rows)] if sink_rows else []
    of_statistics = [Pass("statistics", rows)]

    passes: list[Pass] = []
    if plan.takes_dense:
        passes += of_statistics if shows_both else of_sinks + of_statistics
    if plan.source == "block by block":
        passes += of_sinks + of_statistics
    if recipe.propagation == "sequential":
        passes.append(Pass("outputs of pruned blocks", rows))

    return passes
