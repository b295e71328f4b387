"""What tells recipes from one another in a work folder, a user's functions included.

Dimensions: R calibration rows, T position, O output features, I input features.
"""

import hashlib
import json

import torch

from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.calibration.token_weights import StatisticsKey, choice_name
from sinkprune_core.pruning.criteria import Score, criterion_of, needs_of
from sinkprune_core.pruning.recipe import Recipe, as_settings


def settings_digest(settings: Recipe | StatisticsKey, weight_RT: torch.Tensor | None = None) -> str:
    """Return a SHA-256 prefix over all fields of a recipe, or of the part that decides its statistics.

    A user's choice of tokens counts by its name and the weights `weight_RT` that it gives to the calibration
    tokens, a user's criterion as `criterion_identity` says.
    """
    exclude = choice_name(settings.exclude)
    if weight_RT is not None:
        exclude += hashlib.sha256(weight_RT.numpy().tobytes()).hexdigest()

    fields = as_settings(settings) | {"exclude": exclude}
    if isinstance(settings, Recipe):
        fields["criterion"] = criterion_identity(settings.criterion)

    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def criterion_identity(criterion: str | Score) -> str:
    """Return what tells a criterion from others: its name; of a user's also the scores of a small linear."""
    name = choice_name(criterion)
    if isinstance(criterion, str):
        return name

    scores_OI = probed(criterion).cpu().contiguous()
    return f"{name} {hashlib.sha256(scores_OI.numpy().tobytes()).hexdigest()}"


def probed(function: Score) -> torch.Tensor:
    """Return the scores that a user's function gives to a small linear, float32 (O, I).

    It gets as much of the linear's input as it says that it reads. Raises what the function raises, and
    ValueError for what is no score.
    """
    needs_of(function)
    rng = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(5, 6, generator=rng)
    norm_I, summed_I, mean_I, variance_I = torch.rand(4, 6, generator=rng) + 0.1
    root_II = torch.randn(6, 6, generator=rng)

    criterion = criterion_of(function)
    assert criterion.score is not None
    gram_II = root_II @ root_II.T if criterion.needs == "gram" else None
    inputs = None
    if criterion.calibrated:
        inputs = InputStatistics(norm_I, summed_I, mean_I, variance_I, gram_II)

    return criterion.score(weight_OI, inputs)
