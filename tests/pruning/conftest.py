"""Weights of tokens for tests of structured pruning and of shrinking."""

import pytest
import torch


@pytest.fixture
def weight_N() -> torch.Tensor:
    """Weights of 3 x 11 tokens, some of which count for nothing."""
    drawn_N = torch.rand(3 * 11, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return drawn_N.round(decimals=1)
