"""Which weights matter: a score per weight, the higher the more it is kept.

Sink-awareness is no criterion of its own: it reaches these functions as weights on the calibration tokens.

Dimensions: O output features, I input features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


def magnitude(weight_OI: torch.Tensor, norm_I: torch.Tensor | None) -> torch.Tensor:
    """Return |W|, float32 (O, I) (Han et al. 2015)."""
    return weight_OI.detach().float().abs()


def wanda(weight_OI: torch.Tensor, norm_I: torch.Tensor | None) -> torch.Tensor:
    """Return |W_ij| * ||x_j||_2, float32 (O, I) (Sun et al. 2023, Eq. 1).

    The norm is the root of the summed squares over all calibration tokens, as in Wanda's own code. The official
    sink-aware code sums one norm per forward instead, which weighs noise levels differently.
    """
    return weight_OI.detach().float().abs() * norm_I.to(weight_OI.device)


@dataclass(frozen=True)
class Criterion:
    """A score function and whether it needs calibration activations."""

    score: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
    calibrated: bool


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude, calibrated=False),
    "wanda": Criterion(wanda, calibrated=True),
}
