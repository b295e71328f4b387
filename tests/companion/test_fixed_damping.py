"""SparseGPT with the damping of another run."""

import pytest
import torch

from sinkprune_companion.experiments.fixed_damping import DampedVariant
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run.records import Run
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


def damped(lm, recipe, text, tmp_path, monkeypatch) -> DampedVariant:
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    return DampedVariant(Run("09_best_recipe", "test", {}), lm, "tiny", recipe, text, PLAIN)


def test_the_damping_of_a_run_given_to_itself_changes_nothing(tiny_dlm, text, tmp_path, monkeypatch):
    plain = pruned_weights(Variant(tiny_dlm, "tiny", PLAIN, text))
    again = pruned_weights(damped(tiny_dlm, PLAIN, text, tmp_path, monkeypatch))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert torch.equal(one == 0, other == 0)
    weighted = damped(tiny_dlm, WEIGHTED, text, tmp_path, monkeypatch)
    assert weighted.key != Variant(tiny_dlm, "tiny", WEIGHTED, text).key, "another record"
