"""Which weights of a block become zero: what is decided before the first block, and what is done to one.

Dimensions: O output features, I input features, U units of a kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from sinkprune_core.blocks import visit
from sinkprune_core.calibration.input_statistics import in_full_precision
from sinkprune_core.language_model import zero_out
from sinkprune_core.memory import rows_in_cache
from sinkprune_core.pruning import structured
from sinkprune_core.pruning.criteria import CRITERIA, Criterion
from sinkprune_core.pruning.patterns import GlobalThreshold, Select, allocate, n_and_m, outlier_share, select
from sinkprune_core.pruning.pruning_run import OfLinears, PruningRun, Statistics
from sinkprune_core.pruning.sparsegpt import SingularGram
from sinkprune_core.values import is_finite

Linears = dict[str, nn.Linear]  # of a block, by name
Zeros = dict[str, int]  # how many weights of each linear became zero


# before the first block, from the dense model


def decide(run: PruningRun, source: Statistics) -> "Choice":
    """Decide what concerns all blocks: how much each loses, or from which score on.

    A run that goes on has it in its progress.
    """
    recipe = run.recipe
    choice = Choice(run)
    if run.plan.units is not None:
        return choice

    threshold = None
    if recipe.pattern == "global":
        threshold = _global_threshold(choice, source)

    outliers: list[float] = []
    if recipe.allocation == "owl":
        outliers = _outlier_shares(choice)

    sparsities = recipe.sparsities or allocate(
        recipe.allocation, recipe.sparsity, len(run.lm.blocks), recipe.owl_lambda, outliers
    )
    choice.selects = [select(recipe.pattern, sparsity, threshold) for sparsity in sparsities]

    return choice


def _outlier_shares(choice: "Choice") -> list[float]:
    """Return the share of outliers among Wanda's scores of every layer, in the dense model (OWL)."""
    progress = choice.progress
    if progress.outlier_shares is not None:
        return progress.outlier_shares

    run = choice.run
    dense = run.dense

    shares = []
    for layer, block in visit(run.lm, run.shows_progress, "outliers"):
        scores = [
            choice.score(layer, name, linear.weight, dense.layers[layer], CRITERIA["wanda"])
            for name, linear in run.linears(layer, block).items()
        ]
        shares.append(outlier_share(scores, run.recipe.owl_m))

    progress.outlier_shares = shares
    return shares


def _global_threshold(choice: "Choice", source: Statistics) -> GlobalThreshold:
    """Return the threshold over all linears; those of finished blocks have had their part of the ties."""
    progress = choice.progress
    if progress.threshold is None:
        found = GlobalThreshold.of(lambda: _all_scores(choice, source), choice.run.recipe.sparsity)
        progress.threshold = (float(found.value), found.ties)

    threshold = GlobalThreshold(*progress.threshold)
    finished_linears = len(progress.table)
    for score_OI in islice(_all_scores(choice, source), finished_linears):
        threshold.take(score_OI)

    return threshold


def _all_scores(choice: "Choice", source: Statistics) -> Iterator[torch.Tensor]:
    """Yield the scores of all linears of the dense model, in order."""
    run = choice.run
    for layer, block in visit(run.lm, run.shows_progress, "scores of all layers"):
        inputs = source.of_block(layer, block)
        for name, linear in run.linears(layer, block).items():
            score_OI = choice.score(layer, name, linear.weight, inputs, choice.criterion)
            if bool((score_OI < 0).any()):  # of a user's function
                raise ValueError(f"block {layer} {name}: pattern='global' orders scores of at least 0")
            yield score_OI


# block by block


@dataclass
class Choice:
    """What chooses the weights of a block, and makes them zero."""

    run: PruningRun
    selects: list[Select] = field(default_factory=list)  # per layer, for single weights

    def __post_init__(self):
        self.recipe = self.run.recipe
        self.progress = self.run.progress
        self.criterion = self.recipe.rule
        self.has_changed = self.progress.done > 0  # whether a weight of the model is pruned

    def zero(self, layer: int, block: nn.Module, inputs: OfLinears) -> None:
        """Prune the linears of a block in place, and note how many zeros each of them has."""
        linears = self.run.linears(layer, block)
        with in_full_precision(next(block.parameters()).device):
            if self.run.plan.units is not None:
                zeros = self._zero_units(layer, block, inputs, self.run.plan.units)
            elif self.criterion.score is not None:
                zeros = self._zero_by_score(layer, linears, inputs)
            else:
                zeros = self._zero_and_update(layer, linears, inputs)

        for name, linear in linears.items():
            rows, columns = linear.weight.shape
            row = {"layer": layer, "name": name, "rows": rows, "columns": columns}
            self.progress.table.append(row | {"weights": rows * columns, "zeros": zeros[name]})

    def score(
        self, layer: int, name: str, weight: torch.Tensor, inputs: OfLinears, criterion: Criterion
    ) -> torch.Tensor:
        """Return the scores of a linear's weights, or of some rows of them."""
        assert criterion.score is not None
        of_linear = None
        if criterion.calibrated:
            of_linear = inputs[name].with_norm(self.recipe.norm_reduction)

        with in_full_precision(weight.device):
            try:
                score = criterion.score(weight, of_linear)
            except Exception as error:  # of a function of the user's
                error.add_note(f"block {layer} {name}: {self._state()}")
                raise

        return self._finite(score, layer, name)

    def _zero_by_score(self, layer: int, linears: Linears, inputs: OfLinears) -> Zeros:
        """Zero the weights of the lowest scores."""
        zeros = {}
        for name, linear in linears.items():
            weight = linear.weight
            pruned_parts = []
            for part in weight.split(self._rows_together(weight)):
                score = self.score(layer, name, part, inputs, self.criterion)
                pruned_parts.append(self.selects[layer](score, 0, score.shape[1]))

            pruned_OI = torch.cat(pruned_parts)

            self.has_changed = True
            zero_out(weight, pruned_OI)
            zeros[name] = int(torch.count_nonzero(pruned_OI))  # many times as fast as a sum

        return zeros

    def _rows_together(self, weight: torch.Tensor) -> int:
        """Return how many rows of a linear must, or may, be chosen from together."""
        rows, columns = weight.shape
        is_of_user = not isinstance(self.recipe.criterion, str)  # it may compare rows
        if self.recipe.pattern == "layer" or is_of_user:
            return rows
        return rows_in_cache(columns * torch.float32.itemsize, weight.device)

    def _zero_and_update(self, layer: int, linears: Linears, inputs: OfLinears) -> Zeros:
        """Prune weights and update the others, linears with one input together."""
        assert self.criterion.solve is not None
        sharing: dict[int, list[str]] = {}
        for name in linears:
            sharing.setdefault(id(inputs[name]), []).append(name)

        ratio = n_and_m(self.recipe.pattern)
        group = None if ratio is None else ratio[1]

        zeros = {}
        for names in sharing.values():
            weights = [self._finite(linears[name].weight, layer, name) for name in names]
            gram_II = inputs[names[0]].gram_II
            assert gram_II is not None
            self._finite(gram_II, layer, names[0])

            try:
                updated, pruned = self.criterion.solve(
                    weights, gram_II, self.selects[layer], group, self.recipe.damping, self.recipe.block_size
                )
            except SingularGram as error:
                raise SingularGram(f"block {layer} {names[0]}: {error}; {self._state()}") from None

            for name, weight, updated_OI, pruned_OI in zip(names, weights, updated, pruned, strict=True):
                new_OI = self._finite(updated_OI.to(weight.dtype), layer, name)
                self.has_changed = True
                weight.copy_(new_OI)
                zeros[name] = int(pruned_OI.sum())

        return zeros

    def _zero_units(
        self, layer: int, block: nn.Module, inputs: OfLinears, units: structured.UnitCounts
    ) -> Zeros:
        """Zero the units of the lowest scores."""
        lm, recipe = self.run.lm, self.recipe
        for name, linear in lm.linears(block).items():
            self._finite(linear.weight, layer, name)

        assert self.criterion.unit_score is not None
        of_linears = None
        if self.criterion.calibrated:
            of_linears = {name: each.with_norm(recipe.norm_reduction) for name, each in inputs.items()}

        kept = {}
        for kind, score_U in structured.scores(lm, block, self.criterion.unit_score, of_linears).items():
            kept[kind] = structured.choose(self._finite(score_U, layer, kind), units.removed[kind])

        self.has_changed = True
        structured.mask(lm, block, kept, of_linears if recipe.compensate else None)
        self.progress.kept_units.append({kind: units_U.tolist() for kind, units_U in kept.items()})
        return units.zeros

    def _finite(self, value: torch.Tensor, layer: int, name: str) -> torch.Tensor:
        """Return `value`; raise ValueError, naming the linear, where it has a number that is not finite."""
        if not is_finite(value):
            raise ValueError(f"block {layer} {name}: weights or activations are not finite; {self._state()}")
        return value

    def _state(self) -> str:
        """Return what an error leaves behind, in words."""
        if not self.has_changed:
            return "nothing of this linear was changed, nor of any other"
        return (
            "nothing of this linear was changed, but those before it are pruned: load the model again, or "
            "prune inside `weights_kept`, which gives it back"
        )
