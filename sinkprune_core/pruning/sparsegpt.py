"""SparseGPT: prune some weights and update the others so that the linear's output changes least.

Sources: Frantar & Alistarh 2023, Algorithm 1. Sink-awareness enters through the weights of the calibration
tokens that the Gram matrix was summed with, so nothing here knows about sinks.

Dimensions: O output features, I input features, P columns that are handled together. A trailing `IO` means
that a matrix is stored transposed, so that one input feature of all linears is one contiguous row.
"""

import torch

from sinkprune_core.language_model import zero_out
from sinkprune_core.pruning.patterns import Select

STRIP = 32  # columns that are updated one by one; those to their right wait for one matrix product
DIRECT = 192  # largest triangular matrix that is inverted in one step; larger ones are split into halves


class SingularGram(ValueError):
    """The Gram matrix of an input stays singular after damping."""


def sparsegpt(
    weights: list[torch.Tensor],
    gram_II: torch.Tensor,
    select: Select,
    group: int | None,
    damping: float,
    block_size: int,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Prune linears that share one input, update what is left; return new weights, float32 (O, I), and masks.

    Columns are visited in order; the error of a pruned weight is pushed onto the columns to its right through
    the Cholesky factor of the inverse Gram matrix. Scores are W^2 / U_jj^2. `select` gets them when a block
    of `block_size` columns begins, or for an N:M pattern when a `group` of columns begins. Linears with one
    input share the factor and are solved together. Differences from the published code: inputs that are
    always zero are pruned first instead of being zeroed beyond the count, and counts are exact per row.

    Raises SingularGram when the factorisation fails.
    """
    solver = _Solver(weights, gram_II, select, damping)
    if group is None:
        scored_together, strip = block_size, STRIP
    else:
        block_size = -(-block_size // group) * group  # rounded up to whole groups
        scored_together, strip = group, group

    columns = len(solver.weight_IO)
    for first in range(0, columns, block_size):
        last = min(first + block_size, columns)
        solver.solve_block(first, last, scored_together, strip)

    return solver.results()


class _Solver:
    """The weights of all linears while their columns are visited, with the factor they share."""

    def __init__(self, weights: list[torch.Tensor], gram_II: torch.Tensor, select: Select, damping: float):
        self.select = select
        self.outputs = [len(weight_OI) for weight_OI in weights]
        joined_OI = torch.cat([weight_OI.detach().float() for weight_OI in weights])
        self.weight_IO = joined_OI.T.contiguous()
        self.pruned_IO = torch.zeros_like(self.weight_IO, dtype=torch.bool)
        self.factor_II, self.always_zero_I = _inverse_factor(gram_II.to(self.weight_IO.device), damping)
        self.diagonal_I = self.factor_II.diagonal().clone()
        self.factor_II /= self.diagonal_I[:, None]  # an error is then the pruned weight itself

    def solve_block(self, first: int, last: int, scored_together: int, strip: int) -> None:
        """Prune the columns first … last - 1 and pass their errors on to all columns to the right."""
        error_PO = torch.empty_like(self.weight_IO[first:last])
        for start in range(first, last, strip):
            stop = min(start + strip, last)
            if (start - first) % scored_together == 0:
                self._choose(start, min(start + scored_together, last))

            strip_error_PO = error_PO[start - first : stop - first]
            self._solve_strip(start, stop, strip_error_PO)
            self._push(strip_error_PO, start, stop, last)

        self._push(error_PO, first, last, len(self.weight_IO))

    def _choose(self, first: int, last: int) -> None:
        """Choose what is pruned in some columns, linear by linear."""
        score_PO = (self.weight_IO[first:last] / self.diagonal_I[first:last, None]).square()
        score_PO[self.always_zero_I[first:last]] = -1.0
        parts = score_PO.split(self.outputs, dim=1)
        masks = [self.select(part_PO.T.contiguous(), first, last).T for part_PO in parts]
        torch.cat(masks, dim=1, out=self.pruned_IO[first:last])

    def _solve_strip(self, start: int, stop: int, error_PO: torch.Tensor) -> None:
        """Write the errors of a strip into `error_PO`, column by column, and update its later columns."""
        for column in range(start, stop):
            error_O = error_PO[column - start]
            torch.mul(self.weight_IO[column], self.pruned_IO[column], out=error_O)
            factor_P = self.factor_II[column, column + 1 : stop]
            self.weight_IO[column + 1 : stop].addr_(factor_P, error_O, alpha=-1)

    def _push(self, error_PO: torch.Tensor, first: int, last: int, end: int) -> None:
        """Subtract the errors of columns first … last - 1 from the columns last … end - 1."""
        self.weight_IO[last:end].addmm_(self.factor_II[first:last, last:end].T, error_PO, alpha=-1)

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the new weights and the masks of every linear, (O, I)."""
        zero_out(self.weight_IO, self.pruned_IO)
        weights = [part_IO.T for part_IO in self.weight_IO.split(self.outputs, dim=1)]
        masks = [part_IO.T for part_IO in self.pruned_IO.split(self.outputs, dim=1)]
        return weights, masks


def _inverse_factor(gram_II: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upper Cholesky factor of the inverse of the damped Gram matrix, and the always-zero inputs.

    With both axes reversed, a lower factor becomes an upper U with G = U U^T, whose inverse is what is
    wanted. So one factorisation and one triangular inverse do for two factorisations and a full inverse.
    """
    reversed_II = gram_II.flip(0, 1)
    diagonal_I = reversed_II.diagonal()
    always_zero_I = diagonal_I == 0
    diagonal_I[always_zero_I] = 1.0
    diagonal_I += damping * diagonal_I.mean()
    lower_II, failed = torch.linalg.cholesky_ex(reversed_II)
    del reversed_II, diagonal_I  # the largest take gigabytes

    if int(failed) != 0:
        raise SingularGram(
            f"the Gram matrix of the inputs stays singular with damping={damping}: "
            "use more damping or more calibration text"
        )

    return _lower_inverse(lower_II).flip(0, 1), always_zero_I.flip(0)


def _lower_inverse(lower_II: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a lower triangular matrix, by halves.

    This takes a third of the FLOPs of solving for the identity.
    """
    size = len(lower_II)
    if size <= DIRECT:
        identity_II = torch.eye(size, dtype=lower_II.dtype, device=lower_II.device)
        return torch.linalg.solve_triangular(lower_II, identity_II, upper=False)

    half = size // 2
    upper_left = _lower_inverse(lower_II[:half, :half])
    lower_right = _lower_inverse(lower_II[half:, half:])
    inverse_II = torch.zeros_like(lower_II)
    inverse_II[:half, :half] = upper_left
    inverse_II[half:, half:] = lower_right
    inverse_II[half:, :half] = lower_right @ (lower_II[half:, :half] @ -upper_left)

    return inverse_II
