"""Tiny pruned models, and text for them."""

from collections.abc import Callable

import pytest
import torch

from sinkprune.recovery.text import TrainingText
from sinkprune_core import LanguageModel, preset, prune


@pytest.fixture
def make_pruned(make_lm, calibration) -> Callable[..., LanguageModel]:
    """A function that returns a tiny model pruned by a preset."""

    def make(kind: str = "diffusion", name: str = "magnitude", **changes) -> LanguageModel:
        lm = make_lm(kind, "gqa-24")
        prune(lm, preset(name, sparsity=0.5, **changes), calibration)
        return lm

    return make


@pytest.fixture
def words(make_ids) -> TrainingText:
    """Text that repeats words: easy to learn."""
    stream_T = make_ids(1, 40, seed=2)[0].repeat_interleave(16)
    return TrainingText((stream_T,), stream_T[:96].view(8, 12))


@pytest.fixture
def zeros() -> Callable[[LanguageModel], dict[str, torch.Tensor]]:
    """A function that says where the linears of a model are zero."""

    def of(lm: LanguageModel) -> dict[str, torch.Tensor]:
        return {f"{layer}.{name}": linear.weight == 0 for (layer, name), linear in lm.all_linears().items()}

    return of
