"""SparseGPT with the damping of another run."""

import pytest
import torch

from sinkprune_companion.experiments.fixed_damping import DampedVariant
from sinkprune_companion.experiments.variants import Variant
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.language_model import weight_OI
from sinkprune_core.pruning.recipe import preset

PLAIN = preset("sparsegpt", sparsity=0.5)
WEIGHTED = preset("paper-sparsegpt", sparsity=0.5, noise_levels=3, sink_std=0.5)


@pytest.fixture
def text(make_ids) -> Calibration:
    return Calibration(make_ids(6, 24), seed=1)


def pruned_weights(variant) -> list[torch.Tensor]:
    with variant:
        variant.ready()
        blocks = variant.lm.blocks
        return [weight_OI(m).clone() for block in blocks for m in variant.lm.linears(block).values()]


def test_the_damping_of_a_run_given_to_itself_changes_nothing(run, tiny_dlm, text):
    plain = pruned_weights(Variant(tiny_dlm, "tiny", PLAIN, text))
    again = pruned_weights(DampedVariant(run, tiny_dlm, "tiny", PLAIN, text, PLAIN))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert torch.equal(one == 0, other == 0)
    weighted = DampedVariant(run, tiny_dlm, "tiny", WEIGHTED, text, PLAIN)
    assert weighted.key != Variant(tiny_dlm, "tiny", WEIGHTED, text).key, "another record"
