"""One loop for every method: `prune(lm, recipe, calibration) -> Report`.

Blocks are visited in order. Each receives calibration text, the statistics of what its linears receive are
taken, its linears are pruned, and the next block receives what the dense block or the pruned one makes.

Dimensions: R calibration rows, T position, O output features, I input features.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from pydantic import InstanceOf
from torch import nn
from tqdm.auto import tqdm

from sinkprune.files import held, resolved
from sinkprune.runs.checkpoint import PruningCheckpoint, RunState
from sinkprune.runs.waiting import hidden_store
from sinkprune_core.blocks import BlockInput, Rows, block_inputs, run_block, visit
from sinkprune_core.calibration.dense_statistics import DenseStatistics, collect
from sinkprune_core.calibration.input_statistics import InputStatistics, observe
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import StatisticsKey, rows_for, settings_digest
from sinkprune_core.forwards import is_finite
from sinkprune_core.language_model import LanguageModel, check_finite, weight_OI, zero_out
from sinkprune_core.memory import rows_in_cache
from sinkprune_core.pruning import structured
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import GlobalThreshold, Select, allocate, n_and_m, outlier_share, select
from sinkprune_core.pruning.recipe import Recipe, check
from sinkprune_core.pruning.report import Report
from sinkprune_core.pruning.sparsegpt import SingularGram
from sinkprune_core.values import checked_arguments

Linears = dict[str, nn.Module]  # of a block, by name
Statistics = dict[str, InputStatistics]  # of what they receive
Zeros = dict[str, int]  # how many of their weights are zero


def dense_statistics(
    lm: LanguageModel, recipes: Sequence[Recipe], calibration: Calibration, progress: bool = True
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics that recipes with dense propagation prune from, by `recipe.statistics_key`.

    One pass serves all recipes with the same states of the text. Raises ValueError for a recipe with
    sequential propagation, or one that needs Gram matrices, which are too large to keep.
    """
    for recipe in recipes:
        check(lm, recipe, calibration)
        if recipe.propagation != "dense":
            raise ValueError(
                f"recipe {recipe.name!r} has propagation={recipe.propagation!r}: "
                "its statistics depend on what it pruned before"
            )
        if CRITERIA[recipe.criterion].needs == "gram":
            raise ValueError(
                f"recipe {recipe.name!r} needs a Gram matrix per input: "
                "those are used block by block and not kept"
            )
    return collect(lm, [recipe.statistics_key for recipe in recipes], calibration, progress)


@checked_arguments
@torch.no_grad()
def prune(
    lm: InstanceOf[LanguageModel],
    recipe: InstanceOf[Recipe],
    calibration: InstanceOf[Calibration] | None = None,
    progress: bool = True,
    statistics: InstanceOf[DenseStatistics] | None = None,
    work: Path | str | None = None,
) -> Report:
    """Prune the weights that `recipe` chooses, in place; see `weights_kept` to have them back.

    `statistics` are those of this recipe from `dense_statistics` of this model, where they are known already.
    `work` is a folder in which finished blocks and statistics are kept, so that a killed run goes on where it
    was and another sparsity needs no forward. A structured recipe zeroes whole units; `shrink(lm,
    report.kept_units)` removes them.

    Raises ValueError before any work for a recipe that does not fit the model, its calibration text or the
    statistics, and, naming the model or the linear, for weights or activations that are not finite and for a
    Gram matrix that stays singular.
    """
    check(lm, recipe, calibration)
    if statistics is not None:
        wanted = (recipe.statistics_key, calibration and calibration.fingerprint, lm.name)
        same = (statistics.key, statistics.text, statistics.model) == wanted
        if not same or recipe.propagation != "dense":
            raise ValueError(
                f"statistics are not those of recipe {recipe.name!r}, this calibration text and {lm.name}: "
                "take them from dense_statistics(lm, [recipe], calibration)"
            )
    work = None if work is None else resolved(work)
    inner = f"{lm.blocks_name}."
    outer = [named for named in lm.model.named_parameters() if not named[0].startswith(inner)]
    check_finite(lm, outer)  # those of a block are checked when pruning comes to it
    finished = dict(lm.finished) if lm.is_streamed else {}
    try:
        with nullcontext() if work is None else held(work):
            return _prune(PruningRun(lm, recipe, calibration, progress, work), statistics)
    finally:
        for layer, block in finished.items():  # of a run that ended before it took them back
            lm.finished.setdefault(layer, block)


def _prune(run: "PruningRun", statistics: DenseStatistics | None) -> Report:
    """Visit the blocks in order; see `prune`."""
    lm = run.lm
    run.take_statistics(statistics)
    run.decide()
    inputs = run.first_inputs()
    for layer in run.layers_to_prune():
        with lm.resident(layer) as block:
            outputs, block_statistics = run.observe(layer, block, inputs)
            run.prune_block(layer, block, block_statistics)
            if run.recipe.propagation == "sequential":
                outputs = run.outputs_of_pruned(layer, block, inputs)
            run.finish(layer, block)
        inputs = outputs
    return run.report()


class PruningRun:
    """A run of `prune`: what it prunes and how, and what it has done so far."""

    def __init__(
        self,
        lm: LanguageModel,
        recipe: Recipe,
        calibration: Calibration | None,
        progress: bool,
        work: Path | str | None,
    ):
        if lm.is_streamed and work is None:
            raise ValueError(f"{lm.name} is streamed from disk: pass work=, a folder for its finished blocks")
        self.started = time.perf_counter()
        self.lm = lm
        self.recipe = recipe
        self.criterion = CRITERIA[recipe.criterion]
        self.calibration = calibration
        self.progress = progress
        self.checkpoint = None
        self.folder: Path | None = None  # where hidden states and inputs wait; None: in memory
        self.own_rows: Rows | None = None  # of a user's function, whose weights tell its job from others
        if work is not None:
            self.own_rows = self._rows_of_own_choice(Path(work))
            job = self._digest(recipe)
            self.checkpoint = PruningCheckpoint(Path(work), lm, job, calibration)
            self.folder = self.checkpoint.folder
        self.state = self.checkpoint.state if self.checkpoint else RunState()
        self.dense: DenseStatistics | None = None  # of the dense model, if they serve all blocks
        self.rows: Rows | None = None  # otherwise: what goes through the blocks to show their statistics
        self.selects: list[Select] = []  # what chooses the pruned weights of every layer
        self.plan: structured.Plan | None = None  # of structured pruning: how many units leave

    def _rows_of_own_choice(self, work: Path) -> Rows | None:
        """Return the calibration rows of a user's function, from dense blocks; None for a named choice."""
        if not callable(self.recipe.exclude) or not self.criterion.calibrated:
            return None
        finished = dict(self.lm.finished) if self.lm.is_streamed else {}
        for layer, block in finished.items():
            if work in block.file.parents:
                del self.lm.finished[layer]
        try:
            return self._calibration_rows()
        finally:
            if finished:
                self.lm.finished.update(finished)

    def _digest(self, settings: Recipe | StatisticsKey) -> str:
        return settings_digest(settings, self.own_rows and self.own_rows.weight_RT)

    # before the first block

    def take_statistics(self, known: DenseStatistics | None) -> None:
        """Take the statistics of the dense model, or make the rows that will show them block by block."""
        if not self.criterion.calibrated:
            return
        if self.recipe.propagation == "dense" and self.criterion.needs != "gram":
            self.dense = known or self._dense_statistics()
            if known:
                self.started -= known.seconds
        elif self.checkpoint:
            self.rows = self.checkpoint.rows(self._calibration_rows)
        else:
            self.rows = self._calibration_rows()

    def _calibration_rows(self) -> Rows:
        key = self.recipe.statistics_key
        return self.own_rows or rows_for(self.lm, self.calibration, key, self.progress, folder=self.folder)

    def _dense_statistics(self) -> DenseStatistics:
        key = self.recipe.statistics_key
        compute = partial(collect, self.lm, [key], self.calibration, self.progress, self.folder)
        if self.checkpoint is None:
            return compute()[key]
        return self.checkpoint.statistics(self._digest(key), lambda: compute()[key])

    def decide(self) -> None:
        """Decide from the dense model what concerns all blocks."""
        recipe = self.recipe
        if recipe.pattern == "structured":
            self.plan = structured.plan(self.lm, recipe.sparsity)
        else:
            threshold = self._global_threshold() if recipe.pattern == "global" else None
            outliers = self._outlier_shares() if recipe.allocation == "owl" else None
            given = recipe.allocation, recipe.sparsity, len(self.lm.blocks), recipe.owl_lambda, outliers
            self.selects = [select(recipe.pattern, sparsity, threshold) for sparsity in allocate(*given)]
        if self.checkpoint:
            self.checkpoint.write()

    def _outlier_shares(self) -> list[float]:
        """Return the share of outliers among Wanda's scores of every layer, in the dense model (OWL).

        A run that goes on has them from its work folder.
        """
        if self.state.outlier_shares is not None:
            return self.state.outlier_shares
        dense = self.dense or self._dense_statistics()
        shares = []
        for layer, block in enumerate(visit(self.lm, self.progress, "outliers")):
            scores = []
            for name, linear in self.lm.linears(block).items():
                inputs = dense.layers[layer][name].with_norm(self.recipe.norm_reduction)
                scores.append(finite(CRITERIA["wanda"].score(weight_OI(linear), inputs), layer, name))
            shares.append(outlier_share(scores, self.recipe.owl_m))
        self.state.outlier_shares = shares
        return shares

    def _global_threshold(self) -> GlobalThreshold:
        """Return the threshold over all linears; those of finished blocks have had their part of the ties."""
        if self.state.threshold is None:
            found = GlobalThreshold.of(self._all_scores, self.recipe.sparsity)
            self.state.threshold = (float(found.value), found.ties)
        threshold = GlobalThreshold(*self.state.threshold)
        for score_OI in islice(self._all_scores(), len(self.state.table)):
            threshold.take(score_OI)
        return threshold

    def _all_scores(self) -> Iterator[torch.Tensor]:
        """Yield the scores of all linears of the dense model, in order."""
        for layer, block in enumerate(visit(self.lm, self.progress, "scores of all layers")):
            statistics = self.dense.layers[layer] if self.dense else {}
            for name, linear in self.lm.linears(block).items():
                yield self._score(layer, name, weight_OI(linear), statistics)

    def first_inputs(self) -> list[BlockInput]:
        """Take finished blocks back; return what the next one receives, empty where no block need run."""
        if self.checkpoint:
            batch = 1 if self.calibration is None else self.calibration.batch
            from_dense = self.recipe.propagation == "dense"
            return self.checkpoint.resume(self.lm, self.rows, batch, from_dense)
        if self.rows is None:
            return []
        return block_inputs(self.lm, self.rows, self.calibration.batch)

    # block by block

    def layers_to_prune(self) -> Iterable[int]:
        """Return the layers that are not finished, with a progress bar."""
        return tqdm(
            range(self.state.done, len(self.lm.blocks)),
            desc=f"prune {self.lm.name}: {self.recipe.name}",
            initial=self.state.done,
            total=len(self.lm.blocks),
            unit="block",
            disable=not self.progress,
            leave=False,
        )

    def observe(
        self, layer: int, block: nn.Module, inputs: list[BlockInput]
    ) -> tuple[list[BlockInput], Statistics]:
        """Return what a dense block makes of its inputs, if the next one receives it, and the statistics."""
        keep = self.recipe.propagation == "dense" and layer + 1 < len(self.lm.blocks)
        with observe(self.lm.linears(block), gram=self.criterion.needs == "gram") as observer:
            outputs = run_block(block, inputs, observer, self._store(layer) if keep else None, keep)
        statistics = self.dense.layers[layer] if self.dense else observer.statistics()
        return outputs, statistics

    def outputs_of_pruned(self, layer: int, block: nn.Module, inputs: list[BlockInput]) -> list[BlockInput]:
        """Return what a pruned block makes of its inputs; nobody reads that of the last one."""
        if layer + 1 == len(self.lm.blocks):
            return []
        return run_block(block, inputs, store_RTD=self._store(layer))

    def _store(self, layer: int) -> torch.Tensor | None:
        """Return where the output of a block is kept, None for memory."""
        return None if self.rows is None else hidden_store(self.lm, self.rows, self.folder)(layer + 1)

    def prune_block(self, layer: int, block: nn.Module, statistics: Statistics) -> None:
        """Prune the linears of one block in place, and note how many zeros each of them has."""
        linears = self.lm.linears(block)
        if self.recipe.pattern == "structured":
            zeros = self._prune_units(layer, block, statistics)
        elif self.criterion.score is not None:
            zeros = self._prune_by_score(layer, linears, statistics)
        else:
            zeros = self._prune_and_update(layer, linears, statistics)
        for name, linear in linears.items():
            rows, columns = weight_OI(linear).shape
            row = {"layer": layer, "name": name, "rows": rows, "columns": columns}
            self.state.table.append(row | {"weights": rows * columns, "zeros": zeros[name]})

    def _score(self, layer: int, name: str, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        inputs = None
        if self.criterion.calibrated:
            inputs = statistics[name].with_norm(self.recipe.norm_reduction)
        return finite(self.criterion.score(weight, inputs), layer, name)

    def _prune_by_score(self, layer: int, linears: Linears, statistics: Statistics) -> Zeros:
        """Zero the weights of the lowest scores; return the number of zeros by linear."""
        zeros = {}
        for name, linear in linears.items():
            weight = weight_OI(linear)
            rows, columns = weight.shape
            if self.recipe.pattern != "layer":  # rows can be chosen from apart
                rows = rows_in_cache(columns * torch.float32.itemsize, weight.device)
            scores = (self._score(layer, name, part, statistics) for part in weight.split(rows))
            pruned_OI = torch.cat([self.selects[layer](score, 0, columns) for score in scores])
            zero_out(weight, pruned_OI)
            zeros[name] = int(torch.count_nonzero(pruned_OI))  # many times as fast as a sum
        return zeros

    def _prune_and_update(self, layer: int, linears: Linears, statistics: Statistics) -> Zeros:
        """Prune weights and update the others, linears with one input together; return zeros by linear."""
        shared: dict[int, list[str]] = {}
        for name in linears:
            shared.setdefault(id(statistics[name]), []).append(name)
        ratio = n_and_m(self.recipe.pattern)
        group = None if ratio is None else ratio[1]
        zeros = {}
        for names in shared.values():
            weights = [finite(weight_OI(linears[name]), layer, name) for name in names]
            gram_II = finite(statistics[names[0]].gram_II, layer, names[0])
            try:
                updated, pruned = self.criterion.solve(
                    weights, gram_II, self.selects[layer], group, self.recipe.damping, self.recipe.block_size
                )
            except SingularGram as error:
                raise SingularGram(f"block {layer} {names[0]}: {error}") from None
            for name, weight, updated_OI, pruned_OI in zip(names, weights, updated, pruned, strict=True):
                weight.copy_(finite(updated_OI.to(weight.dtype), layer, name))
                zeros[name] = int(pruned_OI.sum())
        return zeros

    def _prune_units(self, layer: int, block: nn.Module, statistics: Statistics) -> Zeros:
        """Zero the units of the lowest scores; return the number of zeros by linear."""
        for name, linear in self.lm.linears(block).items():
            finite(weight_OI(linear), layer, name)
        inputs = None
        if self.criterion.calibrated:
            reduction = self.recipe.norm_reduction
            inputs = {name: each.with_norm(reduction) for name, each in statistics.items()}
        kept = {}
        for kind, score_U in structured.scores(self.lm, block, self.recipe.criterion, inputs).items():
            kept[kind] = structured.choose(finite(score_U, layer, kind), self.plan.removed[kind])
        structured.mask(self.lm, block, kept, inputs if self.recipe.compensate else None)
        self.state.kept_units.append({kind: units_U.tolist() for kind, units_U in kept.items()})
        return self.plan.zeros

    def finish(self, layer: int, block: nn.Module) -> None:
        """Keep a pruned block on disk, where there is a work folder."""
        if self.checkpoint:
            self.checkpoint.finish(self.lm, layer, block)

    # after the last block

    def report(self) -> Report:
        """Return what was done; hidden states on disk are removed."""
        if self.checkpoint:
            self.checkpoint.forget_hidden()
        linears = pd.DataFrame(self.state.table)
        parameters = sum(parameter.numel() for parameter in self.lm.model.parameters())
        calibrated_on = self.dense or self.rows
        return Report(
            recipe=self.recipe,
            model=self.lm.name,
            linears=linears,
            calibration_tokens=calibrated_on.tokens if calibrated_on else 0,
            left_out_share=calibrated_on.left_out_share if calibrated_on else 0.0,
            seconds=time.perf_counter() - self.started,
            unpruned_parameters=parameters - int(linears.weights.sum()),
            kept_units=tuple(self.state.kept_units),
            checkpoint=self.checkpoint.folder if self.checkpoint else None,
        )


def finite(value: torch.Tensor, layer: int, name: str) -> torch.Tensor:
    """Return `value`, or raise ValueError with the linear's name where it has a number that is not finite."""
    if not is_finite(value):
        raise ValueError(
            f"block {layer} {name}: weights or activations are not finite; nothing of this linear was changed"
        )
    return value
