"""SparseGPT with the damping of another run."""

import pytest
import torch

from sinkprune_companion.experiments.fixed_damping import DampedVariant, sharing_by
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.language_model import weight_OI
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset

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


def test_weighted_tokens_are_damped_as_plain_ones_and_are_known_by_another_key(
    tiny_dlm, text, tmp_path, monkeypatch
):
    weighted = pruned_weights(Variant(tiny_dlm, "tiny", WEIGHTED, text))
    variant = damped(tiny_dlm, WEIGHTED, text, tmp_path, monkeypatch)
    fixed = pruned_weights(variant)
    assert any(not torch.equal(one, other) for one, other in zip(weighted, fixed, strict=True))
    assert variant.key != Variant(tiny_dlm, "tiny", WEIGHTED, text).key
    zeros = [int((weights == 0).sum()) for weights in weighted]
    assert [int((weights == 0).sum()) for weights in fixed] == zeros


def test_the_dampings_of_a_recipe_are_those_of_every_matrix_it_solves(tiny_dlm, text, tmp_path, monkeypatch):
    values = damped(tiny_dlm, WEIGHTED, text, tmp_path, monkeypatch).dampings()
    inputs_of_a_block = 4  # queries, keys and values read one; gate and up another
    assert len(values) == inputs_of_a_block * len(tiny_dlm.blocks) and min(values) > 0


def test_another_share_is_that_of_a_recipe_with_it(tiny_dlm, text):
    def first_block() -> list[torch.Tensor]:
        return [weight_OI(m).clone() for m in tiny_dlm.linears(tiny_dlm.blocks[0]).values()]

    doubled = Recipe(**{**PLAIN.card(), "damping": 2 * PLAIN.damping})
    with weights_kept(tiny_dlm):
        prune(tiny_dlm, doubled, text, progress=False)
        expected = first_block()
    with sharing_by(lambda gram_II, share: 2 * share), weights_kept(tiny_dlm):
        prune(tiny_dlm, PLAIN, text, progress=False)
        for one, other in zip(expected, first_block(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_criterion_is_as_before_after_an_error():
    former = CRITERIA["sparsegpt"]
    with pytest.raises(KeyboardInterrupt), sharing_by(lambda gram_II, share: share):
        raise KeyboardInterrupt
    assert CRITERIA["sparsegpt"] is former
