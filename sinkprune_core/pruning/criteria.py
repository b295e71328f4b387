"""Which weights matter: a score per weight, the higher the more it is kept; and SparseGPT, which also repairs what is left.

Sink-awareness is no criterion of its own: it reaches these functions as weights on the calibration tokens.

Dimensions: O output features, I input features, P columns of a piece.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sinkprune_core.pruning.patterns import Select

INNER = (
    32  # columns that are updated one by one; everything to the right of them waits for one matrix product
)
DIRECT = 192  # rows of a triangular matrix that is inverted at once; a larger one by halves


def magnitude(weight_OI: torch.Tensor, norm_I: torch.Tensor | None) -> torch.Tensor:
    """Return |W|, float32 (O, I) (Han et al. 2015)."""
    return weight_OI.detach().float().abs()


def wanda(weight_OI: torch.Tensor, norm_I: torch.Tensor | None) -> torch.Tensor:
    """Return |W_ij| * ||x_j||_2, float32 (O, I) (Sun et al. 2023, Eq. 1).

    The norm is the root of the summed squares over all calibration tokens, as in Wanda's own code. The official
    sink-aware code sums one norm per forward instead, which weighs noise levels differently: `Recipe(norm_reduction="sum")`.
    """
    return weight_OI.detach().float().abs() * norm_I.to(weight_OI.device)


class SingularGram(ValueError):
    """The Gram matrix of an input stays singular after damping."""


def sparsegpt(
    weights: list[torch.Tensor],
    gram_II: torch.Tensor,
    selects: list[Select],
    group: int | None,
    damping: float,
    block_size: int,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Prune linears that share one input and update what is left; return new weights, float32 (O, I), and masks.

    SparseGPT (Frantar & Alistarh 2023, Alg. 1): columns are visited in order; the error of a pruned weight is pushed
    onto the columns to its right through the Cholesky factor of the inverse Gram matrix. Scores are W^2 / U_jj^2, taken
    when a piece of `block_size` columns begins, or for an N:M pattern when a `group` of columns begins. Linears with one
    input share the factor and are solved together. Differences from the published code: inputs that are always zero
    are pruned first instead of being zeroed beyond the count, and counts are exact per row.

    Raises SingularGram when the factorisation fails.
    """
    work_IO = torch.cat([weight_OI.detach().float() for weight_OI in weights]).T.contiguous()
    sizes, columns = [len(weight_OI) for weight_OI in weights], len(work_IO)
    upper_II, dead_I = _inverse_factor(gram_II.to(work_IO.device), damping)
    diagonal_I = upper_II.diagonal().clone()
    upper_II /= diagonal_I[:, None]  # an error is then the pruned weight itself
    pruned_IO = torch.zeros_like(work_IO, dtype=torch.bool)
    block_size = block_size if group is None else -(-block_size // group) * group
    step, inner = (block_size, INNER) if group is None else (group, group)

    def choose(first: int, last: int) -> torch.Tensor:
        score_PO = (work_IO[first:last] / diagonal_I[first:last, None]).square()
        score_PO[dead_I[first:last]] = -1.0
        parts = [
            select(score_PO[:, start : start + size].T.contiguous(), first, last).T
            for select, size, start in zip(selects, sizes, _starts(sizes), strict=True)
        ]
        return torch.cat(parts, dim=1, out=pruned_IO[first:last])

    for first in range(0, columns, block_size):
        last = min(first + block_size, columns)
        error_PO = torch.empty_like(work_IO[first:last])
        for start in range(first, last, inner):
            stop = min(start + inner, last)
            if (start - first) % step == 0:
                chosen = min(start + step, last)
                error_PO[start - first : chosen - first] = choose(start, chosen)
            for column in range(start, stop):
                error_O = error_PO[column - first].mul_(work_IO[column])  # 1 where it is pruned until then
                work_IO[column + 1 : stop].addr_(upper_II[column, column + 1 : stop], error_O, alpha=-1)
            work_IO[stop:last].addmm_(
                upper_II[start:stop, stop:last].T, error_PO[start - first : stop - first], alpha=-1
            )
        work_IO[last:].addmm_(upper_II[first:last, last:].T, error_PO, alpha=-1)
    work_IO.masked_fill_(pruned_IO, 0)
    return [part.T for part in work_IO.split(sizes, dim=1)], [
        part.T for part in pruned_IO.split(sizes, dim=1)
    ]


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


def _inverse_factor(gram_II: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upper Cholesky factor of the inverse of the damped Gram matrix, and which inputs are always zero.

    A lower factor of the matrix with both axes reversed is, reversed, an upper U with G = U U^T, and U^-1 is what is
    wanted: one factorisation and one triangular inverse instead of two factorisations and a full inverse.
    """
    gram_II = gram_II.flip(0, 1)
    diagonal_I = gram_II.diagonal()
    dead_I = diagonal_I == 0
    diagonal_I[dead_I] = 1.0
    diagonal_I += damping * diagonal_I.mean()
    lower_II, failed = torch.linalg.cholesky_ex(gram_II)
    if int(failed) != 0:
        raise SingularGram(
            f"the Gram matrix of the inputs stays singular with damping={damping}: use more damping or more calibration text"
        )
    return _lower_inverse(lower_II).flip(0, 1), dead_I.flip(0)


def _lower_inverse(lower_II: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a lower triangular matrix, by halves: a third of the work of solving for the unit matrix."""
    size, half = len(lower_II), len(lower_II) // 2
    if size <= DIRECT:
        return torch.linalg.solve_triangular(
            lower_II, torch.eye(size, dtype=lower_II.dtype, device=lower_II.device), upper=False
        )
    inverse_II = torch.zeros_like(lower_II)
    upper_left, lower_right = _lower_inverse(lower_II[:half, :half]), _lower_inverse(lower_II[half:, half:])
    inverse_II[:half, :half], inverse_II[half:, half:] = upper_left, lower_right
    inverse_II[half:, :half] = lower_right @ (lower_II[half:, :half] @ -upper_left)
    return inverse_II


@dataclass(frozen=True)
class Criterion:
    """A score function (None: it has its own procedure) and which statistics of the inputs it needs."""

    score: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None
    needs: str | None  # None, "norms", "gram" or "moments"

    @property
    def calibrated(self) -> bool:
        return self.needs is not None


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude, None),
    "wanda": Criterion(wanda, "norms"),
    "sparsegpt": Criterion(None, "gram"),
    "flap": Criterion(None, "moments"),  # structured pruning only: see structured.py
}
