"""SparseGPT with the damping of another run: whether token weights act through the damping that they lower.

SparseGPT adds a share of the mean of a Gram matrix's diagonal to it. Tokens of large norm that are left out
lower that mean, and so the damping. Here every matrix gets the absolute number that the matrix in its place
got in another run.

Dimensions: I input features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch

from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.report import Report
from sinkprune_core.pruning.sparsegpt import sparsegpt

CRITERION = "sparsegpt"
REVISION = 1  # of `dampings`


def mean_diagonal(gram_II: torch.Tensor) -> float:
    """Return the mean that SparseGPT's damping is a share of: inputs that are always zero count as 1."""
    diagonal_I = gram_II.diagonal()
    return float(torch.where(diagonal_I == 0, 1.0, diagonal_I).mean())


@contextmanager
def sharing_by(share_of: Callable[[torch.Tensor, float], float]) -> Iterator[None]:
    """Let SparseGPT add another share of a mean diagonal, from the Gram matrix and the recipe's share."""

    def solve(weights, gram_II, select, group, damping, block_size):
        return sparsegpt(weights, gram_II, select, group, share_of(gram_II, damping), block_size)

    former = CRITERIA[CRITERION]
    CRITERIA[CRITERION] = replace(former, solve=solve)
    try:
        yield
    finally:
        CRITERIA[CRITERION] = former


class DampedVariant(Variant):
    """A variant pruned by SparseGPT with the damping that `plain`, another recipe, has on the same text.

    It is pruned as any `Variant`; the dampings are a record of `run`.
    """

    def __init__(
        self,
        run: Run,
        lm: LanguageModel,
        fingerprint: str,
        recipe: Recipe,
        calibration: Calibration,
        plain: Recipe,
    ):
        super().__init__(lm, fingerprint, recipe, calibration)
        self.run = run
        self.plain = plain

    @property
    def key(self) -> dict[str, object]:
        """What tells this variant from others in the key of a record."""
        return {**super().key, "damping_of": self.plain}

    def ready(self) -> Report:
        """Prune the model unless that was done, and return what pruning reported."""
        left = iter(self.dampings())
        with sharing_by(lambda gram_II, share: next(left) / mean_diagonal(gram_II)):
            return super().ready()

    def dampings(self) -> list[float]:
        """Return the record of what `plain` adds to every matrix, in the order of pruning."""
        plain = Variant(self.lm, self.fingerprint, self.plain, self.calibration)

        def compute() -> pd.DataFrame:
            values: list[float] = []

            def note(gram_II: torch.Tensor, share: float) -> float:
                values.append(share * mean_diagonal(gram_II))
                return share

            with sharing_by(note), plain:
                plain.ready()
            return pd.DataFrame({"damping": values})

        return self.run.record("dampings", compute, REVISION, **plain.key).damping.tolist()
