"""What a pruning run says it did."""

from dataclasses import dataclass

import pandas as pd

from sinkprune_core.pruning.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Report:
    """What pruning did."""

    recipe: Recipe
    model: str
    linears: pd.DataFrame  # a row per linear: layer, name, rows, columns, weights, zeros (pruned by this run)
    calibration_tokens: int  # tokens that went through the blocks for statistics
    left_out_share: float  # 1 minus the mean weight of a calibration token
    seconds: float
    unpruned_parameters: int = 0  # outside `linears`: embeddings, head, norms, biases, linears that stay
    kept_units: tuple[dict[str, list[int]], ...] = ()  # structured pruning: per block, those that stay

    @property
    def sparsity(self) -> float:
        """The share of the linears' weights that this run pruned."""
        return float(self.linears.zeros.sum() / self.linears.weights.sum())

    def card(self) -> dict:
        """Return the report as plain JSON values, without the row per linear."""
        return {
            "recipe": self.recipe.card(),
            "model": self.model,
            "sparsity": self.sparsity,
            "pruned_parameters": int(self.linears.weights.sum()),
            "unpruned_parameters": self.unpruned_parameters,
            "calibration_tokens": self.calibration_tokens,
            "left_out_share": self.left_out_share,
            "seconds": self.seconds,
        }
