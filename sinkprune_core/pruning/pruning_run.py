"""What the loop is given: a run, which says where blocks live, and what answers for the inputs of a block.

A loop that finishes blocks on a disk, or goes on from there, hands in a `PruningRun` of its own.

Dimensions: R calibration rows, T position, D hidden width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from sinkprune_core.blocks import BlockInput, Rows, block_inputs, run_block
from sinkprune_core.calibration.dense_statistics import DensePass, DenseStatistics
from sinkprune_core.calibration.input_statistics import InputStatistics, observe
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.calibration.waiting_store import IN_MEMORY, Store
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan
from sinkprune_core.pruning.recipe import Recipe

OfLinears = dict[str, InputStatistics]
"""What the linears of a block receive, by their names in it; empty for a criterion that does not ask."""


@dataclass
class Progress:
    """How far a run has come, and what it decided from the dense model."""

    done: int = 0  # finished blocks
    table: list[dict] = field(default_factory=list)  # a row per pruned linear
    kept_units: list[dict[str, list[int]]] = field(default_factory=list)  # per block of a structured recipe
    outlier_shares: list[float] | None = None  # per layer of the dense model, for allocation="owl"
    threshold: tuple[float, int] | None = None  # score and ties of the dense model, for pattern="global"


class PruningRun:
    """What is pruned, how, and from which text; and where its blocks and its statistics live: in memory.

    Rows and statistics of the dense model are made once, at need.
    """

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
        self.progress = Progress()

    # blocks

    def linears(self, layer: int, block: nn.Module) -> dict[str, nn.Linear]:
        """Return the linears of a block that are pruned, by name."""
        of_block = self.lm.linears(block)
        return {name: linear for name, linear in of_block.items() if self.recipe.prunes(layer, name)}

    def keep_decisions(self) -> None:
        """Keep what `progress` says was decided from the dense model."""

    def resume(self, rows: Rows | None) -> list[BlockInput]:
        """Take finished blocks back; return what the next one receives of `rows`, [] where none need run."""
        if rows is None or self.calibration is None:
            return []
        return block_inputs(self.lm, rows, self.calibration.batch)

    @contextmanager
    def block(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory; it counts as finished if nothing goes wrong."""
        with self.lm.resident(layer) as block:
            yield block
            self.finish(layer)

    def finish(self, layer: int) -> None:
        """Take a pruned block back."""
        self.progress.done = layer + 1

    def close(self) -> None:
        """Let go of what only the next block would have needed."""

    # rows and statistics

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
            self.plan.joint_rows,
        )

        return dense_pass.collect()[key]


class Statistics:
    """What answers for the inputs of a block, from the source that the plan says.

    Of the dense model they are taken before the first block is pruned. Else the text goes through the model
    on the way: each block is observed when pruning comes to it. Nothing is taken where weights alone decide.
    """

    def __init__(self, run: PruningRun):
        self.run = run
        self.dense = run.dense if run.plan.source == "dense model" else None
        self.rows = run.rows if run.plan.source == "block by block" else None  # what goes on the way
        self.inputs: list[BlockInput] = []
        self.outputs: list[BlockInput] = []

        text = self.dense or self.rows
        self.tokens = text.tokens if text else 0  # of the calibration text that statistics come from
        self.left_out_share = text.left_out_share if text else 0.0  # 1 minus the mean weight of a token

    def begin(self, inputs: list[BlockInput]) -> None:
        """Take what the first block that is left receives."""
        self.inputs = inputs

    def of_block(self, layer: int, block: nn.Module) -> OfLinears:
        """Return the statistics of a block that is dense yet.

        On the way the text goes through it; what comes out is kept where the next block receives it.
        """
        if self.dense is not None:
            return self.dense.layers[layer]
        if self.rows is None:
            return {}

        keep = self._passes_dense_outputs and not self._is_last(layer)
        wants_gram = self.run.recipe.rule.needs == "gram"

        with observe(self.run.linears(layer, block), gram=wants_gram) as observer:
            store_RTD = self._hidden(layer + 1) if keep else None
            self.outputs = run_block(block, self.inputs, observer, store_RTD, keep)
        return observer.statistics()

    def advance(self, layer: int, block: nn.Module) -> None:
        """Make what the next block receives, now that this one is pruned; nobody reads the last one's."""
        if self.rows is None:
            return

        if not self._passes_dense_outputs and not self._is_last(layer):
            self.outputs = run_block(block, self.inputs, store_RTD=self._hidden(layer + 1))
        self.inputs = self.outputs

    @property
    def _passes_dense_outputs(self) -> bool:
        return self.run.recipe.propagation == "dense"

    def _hidden(self, layer: int) -> torch.Tensor | None:
        """Return where hidden states before a block are kept."""
        assert self.rows is not None
        return self.run.store.hidden(self.run.lm, self.rows)(layer)

    def _is_last(self, layer: int) -> bool:
        return layer + 1 == len(self.run.lm.blocks)
