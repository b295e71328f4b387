"""What tests of structured pruning and of shrinking share."""

from functools import partial

import pytest
import torch
from tiny_units import tiny_model


@pytest.fixture
def build(make_lm):
    """A function that builds a tiny model of a family, see `tiny_units.tiny_model`."""
    return partial(tiny_model, make_lm)


@pytest.fixture
def weight_N() -> torch.Tensor:
    return torch.rand(3 * 11, generator=torch.Generator().manual_seed(4), dtype=torch.float64).round(
        decimals=1
    )  # some tokens count for nothing
