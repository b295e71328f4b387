"""Which weights matter: every criterion is one entry of the table CRITERIA at the end.

A score says how much a weight, or a whole unit, matters: the lowest are pruned. Sink-awareness is no
criterion of its own. It reaches each through the weights of the tokens in its `InputStatistics`.

Dimensions: O output features, I input features; for structured pruning U units of a kind, K columns that a
unit owns, X weights in the rows that a unit owns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.pruning.sparsegpt import sparsegpt
from sinkprune_core.values import checked, in_short

# what they get last are the `InputStatistics` of an input, None where a criterion needs none
Score = Callable[[torch.Tensor, Any], torch.Tensor]
UnitScore = Callable[[Sequence[torch.Tensor], torch.Tensor, Any], torch.Tensor]
Solve = Callable[..., tuple[list[torch.Tensor], list[torch.Tensor]]]

CriterionName = Literal["magnitude", "wanda", "sparsegpt", "flap"]
Needs = Literal["norms", "moments", "gram"]


@dataclass(frozen=True)
class Criterion:
    """A rule that says what to prune. Recipes refuse the patterns that it has no function for."""

    needs: Needs | None = None
    """What it reads of the inputs: None (weights alone decide), "norms", "moments" or "gram". Statistics come
    from forwards: there is no place for gradients yet. It would be a field of `InputStatistics` that an
    observer of backward passes sums, block by block, as `observe` sums inputs."""
    score: Score | None = None
    """From a weight (O, I) and the statistics of its input to a score per weight, float32 (O, I)."""
    unit_score: UnitScore | None = None
    """For structured pruning: from the rows a unit owns, one tensor (U, X) per linear, its columns (O, U, K)
    and the statistics of what these columns read to a score per unit, float32 (U,)."""
    solve: Solve | None = None
    """Instead of a score, where other weights are updated: a procedure with the arguments of `sparsegpt`."""

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration text."""
        return self.needs is not None

    @property
    def chooses_units_alone(self) -> bool:
        """Whether it has no score for single weights."""
        return self.score is None and self.solve is None


def magnitude(weight_OI: torch.Tensor, inputs: InputStatistics | None) -> torch.Tensor:
    """Return |W|, float32 (O, I) (Han et al. 2015)."""
    return weight_OI.detach().float().abs()


def wanda(weight_OI: torch.Tensor, inputs: InputStatistics) -> torch.Tensor:
    """Return |W_ij| * ||x_j||_2, float32 (O, I) (Sun et al. 2023, Eq. 1).

    The norm is the root of the summed squares over all calibration tokens, as in Wanda's own code. The
    official sink-aware code sums one norm per forward instead, which weighs noise levels differently:
    `Recipe(norm_reduction="sum")`.
    """
    return weight_OI.detach().abs().float().mul_(inputs.norm_I.to(weight_OI.device))


def unit_magnitude(
    rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, inputs: InputStatistics | None
) -> torch.Tensor:
    """Return the L2 norm of all weights a unit owns, float32 (U,) (Li et al. 2017, with L2 for L1)."""
    squares_U = sum(linear_rows_UX.square().sum(1) for linear_rows_UX in rows_UX)
    return (columns_OUK.square().sum((0, 2)) + squares_U).sqrt()


def unit_wanda(
    rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, inputs: InputStatistics
) -> torch.Tensor:
    """Return sum_ij |W_ij| * ||x_j||_2 over the unit's columns j, float32 (U,) (Wanda-sp, An et al. 2024)."""
    norm_UK = _per_unit(inputs.norm_I, columns_OUK)
    return (columns_OUK.abs().sum(0) * norm_UK).sum(1)


def unit_flap(
    rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, inputs: InputStatistics
) -> torch.Tensor:
    """Return sum_j Var(x_j) * ||W_:j||_2^2 over the unit's columns j, float32 (U,).

    This is FLAP's WIFV (An et al. 2024, arXiv 2312.11983). FLAP standardises scores within a layer and kind
    to compare them across layers and kinds. Here `structured.unit_counts` fixes the numbers per layer and
    kind, and an increasing map of the scores changes no choice. FLAP's code also squares the column scores of
    attention before it sums them over a head; here they are summed as the formula gives them.
    """
    variance_UK = _per_unit(inputs.variance_I, columns_OUK)
    return (columns_OUK.square().sum(0) * variance_UK).sum(1)


def _per_unit(value_I: torch.Tensor, columns_OUK: torch.Tensor) -> torch.Tensor:
    """Return a value per input feature as (U, K), on the device of the weights."""
    return value_I.to(columns_OUK.device).view(columns_OUK.shape[1:])


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(score=magnitude, unit_score=unit_magnitude),
    "wanda": Criterion(needs="norms", score=wanda, unit_score=unit_wanda),
    "sparsegpt": Criterion(needs="gram", solve=sparsegpt),
    "flap": Criterion(needs="moments", unit_score=unit_flap),
}


def criterion_of(criterion: str | Score) -> Criterion:
    """Return the entry of the table, or one for a user's function.

    The function is called with the weight of a linear, (O, I), and the `InputStatistics` of its input, and
    returns a score for every weight. Its attribute `needs` says what it reads of the inputs, as
    `Criterion.needs` does; without one it reads norms. Raises ValueError for what no statistics have.
    """
    if isinstance(criterion, str):
        return CRITERIA[criterion]

    needs = checked("criterion.needs", getattr(criterion, "needs", "norms"), Needs | None)
    return Criterion(needs=needs, score=_one_for_every_weight(criterion))


def _one_for_every_weight(function: Score) -> Score:
    """Return a user's function that raises ValueError for scores of another shape than the weight's."""

    def score(weight_OI: torch.Tensor, inputs: InputStatistics | None) -> torch.Tensor:
        score_OI = function(weight_OI.detach(), inputs)
        if getattr(score_OI, "shape", None) != weight_OI.shape:
            raise ValueError(
                f"criterion={getattr(function, '__qualname__', function)!r} must return a score for every "
                f"weight, a tensor of shape {tuple(weight_OI.shape)}; got {in_short(score_OI)}"
            )
        return score_OI.detach().to(weight_OI.device, torch.float32)

    return score
