"""The two seams of the loop: where blocks live, and what answers for the inputs of a block.

A loop that finishes blocks on a disk, or goes on from there, hands in its own `Blocks` and its own
`PruningRun`.

Dimensions: R calibration rows, T position, D hidden width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from torch import nn

from sinkprune_core.blocks import BlockInput, Rows, block_inputs, run_block
from sinkprune_core.calibration.dense_statistics import DensePass, DenseStatistics
from sinkprune_core.calibration.input_statistics import InputStatistics, observe
from sinkprune_core.calibration.store import IN_MEMORY, Store
from sinkprune_core.calibration.text import Calibration, Trajectories
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan
from sinkprune_core.pruning.recipe import Recipe

OfLinears = dict[str, InputStatistics]
"""What the linears of a block receive, by their names in it; empty for a criterion that does not ask."""


# blocks


@dataclass
class Progress:
    """How far a run has come, and what it decided from the dense model."""

    done: int = 0  # finished blocks
    table: list[dict] = field(default_factory=list)  # a row per pruned linear
    kept_units: list[dict[str, list[int]]] = field(default_factory=list)  # per block of a structured recipe
    outlier_shares: list[float] | None = None  # per layer of the dense model, for allocation="owl"
    threshold: tuple[float, int] | None = None  # score and ties of the dense model, for pattern="global"


class Blocks:
    """The blocks of a model in memory: a run takes one after the other, and gives it back pruned.

    Raises ValueError for a model whose blocks are not in memory.
    """

    def __init__(self, lm: LanguageModel):
        if not lm.has_blocks_in_memory:
            raise ValueError(
                f"{lm.name} has no weights in memory: prune it with `sinkprune.prune(…, work=folder)`"
            )

        self.lm = lm
        self.progress = Progress()

    def keep_decisions(self) -> None:
        """Keep what `progress` says was decided from the dense model."""

    def resume(self, run: "PruningRun", rows: Rows | None) -> list[BlockInput]:
        """Take finished blocks back; return what the next one receives of `rows`, [] where none need run."""
        if rows is None or run.calibration is None:
            return []
        return block_inputs(self.lm, rows, run.calibration.batch)

    @contextmanager
    def taken(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory; it counts as finished if nothing goes wrong."""
        with self.lm.resident(layer) as block:
            yield block
            self.finish(layer, block)

    def finish(self, layer: int, block: nn.Module) -> None:
        """Take a pruned block back."""
        self.progress.done = layer + 1

    def close(self) -> None:
        """Let go of what only the next block would have needed."""


# the run, and its statistics


class PruningRun:
    """What is pruned, how, and from which text; its rows and dense statistics are made once, at need."""

    dense_pass: type[DensePass] = DensePass  # how statistics of the dense model are taken

    def __init__(
        self,
        lm: LanguageModel,
        recipe: Recipe,
        calibration: Calibration | None,
        plan: Plan,
        shows_progress: bool = True,
        known: DenseStatistics | None = None,
        store: Store = IN_MEMORY,
    ):
        self.lm = lm
        self.recipe = recipe
        self.calibration = calibration
        self.plan = plan
        self.shows_progress = shows_progress
        self.known = known  # statistics of the dense model, taken before
        self.store = store

    def linears(self, layer: int, block: nn.Module) -> dict[str, nn.Linear]:
        """Return the linears of a block that are pruned, by name."""
        of_block = self.lm.linears(block)
        return {name: linear for name, linear in of_block.items() if self.recipe.prunes(layer, name)}

    @cached_property
    def states(self) -> Trajectories:
        """The states in which the model sees the text."""
        assert self.calibration is not None
        return Trajectories(self.lm, self.calibration)

    @cached_property
    def rows(self) -> Rows:
        """The rows that go from block to block, with the weights of their tokens."""
        return self.make_rows()

    @cached_property
    def dense(self) -> DenseStatistics:
        """The statistics of the dense model."""
        return self.known or self.take_dense()

    def make_rows(self) -> Rows:
        """Compute the rows."""
        assert self.calibration is not None
        return rows_for(
            self.lm,
            self.calibration,
            self.recipe.statistics_key,
            self.shows_progress,
            store=self.store,
            states=self.states,
        )

    def take_dense(self) -> DenseStatistics:
        """Compute the statistics of the dense model."""
        assert self.calibration is not None
        key = self.recipe.statistics_key
        dense_pass = self.dense_pass(
            self.lm,
            [key],
            self.calibration,
            self.shows_progress,
            self.store,
            self.states,
            self.plan.joint_rows,
        )

        return dense_pass.collect()[key]

    def statistics_source(self) -> "StatisticsSource":
        """Return where the statistics of every block come from, as the plan says."""
        if self.plan.source == "nowhere":
            return NoStatistics()
        if self.plan.source == "dense model":
            return StatisticsOfDense(self.dense)
        return StatisticsOnTheWay(self, self.rows)


class StatisticsSource(Protocol):
    """Where the statistics of what a block's linears receive come from."""

    rows: Rows | None
    """What goes from block to block, where something does."""
    tokens: int
    """Calibration tokens that the statistics come from."""
    left_out_share: float
    """1 minus the mean weight of a calibration token."""

    def begin(self, inputs: list[BlockInput]) -> None:
        """Take what the first block that is left receives."""
        ...

    def of_block(self, layer: int, block: nn.Module) -> OfLinears:
        """Return the statistics of a block that is dense yet."""
        ...

    def advance(self, layer: int, block: nn.Module) -> None:
        """Make what the next block receives, now that this one is pruned."""
        ...


class NoStatistics:
    """No statistics: weights alone decide."""

    rows: Rows | None = None
    tokens: int = 0
    left_out_share: float = 0.0

    def begin(self, inputs: list[BlockInput]) -> None:
        """Nothing goes from block to block."""

    def of_block(self, layer: int, block: nn.Module) -> OfLinears:
        """Return no statistics."""
        return {}

    def advance(self, layer: int, block: nn.Module) -> None:
        """Nothing goes from block to block."""


class StatisticsOfDense(NoStatistics):
    """Statistics that were taken of the dense model."""

    def __init__(self, dense: DenseStatistics):
        self.layers = dense.layers
        self.tokens = dense.tokens
        self.left_out_share = dense.left_out_share

    def of_block(self, layer: int, block: nn.Module) -> OfLinears:
        """Return the statistics of a block."""
        return self.layers[layer]


class StatisticsOnTheWay:
    """Statistics that are taken of a block when pruning comes to it, on the way through the model."""

    def __init__(self, run: PruningRun, rows: Rows):
        self.run = run
        self.layers = len(run.lm.blocks)
        self.rows: Rows | None = rows
        self.tokens = rows.tokens
        self.left_out_share = rows.left_out_share
        self.from_dense = run.recipe.propagation == "dense"
        self.wants_gram = run.recipe.rule.needs == "gram"
        self.hidden = run.store.hidden(run.lm, rows)
        self.inputs: list[BlockInput] = []
        self.outputs: list[BlockInput] = []

    def begin(self, inputs: list[BlockInput]) -> None:
        """Take what the first block that is left receives."""
        self.inputs = inputs

    def of_block(self, layer: int, block: nn.Module) -> OfLinears:
        """Send the text through a dense block; what comes out is kept where the next block receives it."""
        keep = self.from_dense and not self._is_last(layer)
        store_RTD = self.hidden(layer + 1) if keep else None

        with observe(self.run.linears(layer, block), gram=self.wants_gram) as observer:
            self.outputs = run_block(block, self.inputs, observer, store_RTD, keep)
        return observer.statistics()

    def advance(self, layer: int, block: nn.Module) -> None:
        """Send the text through the pruned block where the next one receives that; nobody reads the last."""
        if not self.from_dense and not self._is_last(layer):
            self.outputs = run_block(block, self.inputs, store_RTD=self.hidden(layer + 1))
        self.inputs = self.outputs

    def _is_last(self, layer: int) -> bool:
        return layer + 1 == self.layers
