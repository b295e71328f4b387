"""Variants are pruned once, saved or on record, and leave the model dense."""

import pandas as pd
import pytest

from sinkprune import load
from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.stand_ins import stand_in
from sinkprune_companion.experiments.variants import Variant, saved_variant
from sinkprune_companion.run.texts import any_text
from sinkprune_core import Calibration, preset, prune


def test_a_saved_variant_is_pruned_once_and_leaves_the_model_dense(run, tmp_path, monkeypatch):
    lm = load(stand_in("GSAI-ML/LLaDA-8B-Base", tmp_path))
    dense, text = lm.fingerprint(), Calibration(any_text(lm, 4, 64, False)["documentation"])

    folder = saved_variant(run, lm, dense, preset("unstable", noise_levels=3), text)
    assert lm.fingerprint() == dense and folder.is_relative_to(tmp_path / "runs" / "p" / "models")
    other = saved_variant(run, lm, dense, preset("unstable", noise_levels=3, sparsity=0.6), text)
    smaller = saved_variant(run, lm, dense, preset("structured"), text)

    assert len({folder, other, smaller}) == 3
    assert load(smaller).model.num_parameters() < lm.model.num_parameters()

    monkeypatch.setattr(variants, "prune", lambda *args, **more: pytest.fail("pruned again"))
    assert saved_variant(run, lm, dense, preset("unstable", noise_levels=3), text) == folder
    prune(lm, preset("unstable", noise_levels=3), text, progress=False)
    assert load(folder).fingerprint() == lm.fingerprint() != dense


# a variant of which several things are asked


def test_a_variant_is_pruned_once_when_first_asked_and_its_weights_come_back(
    run, tiny_dlm, make_ids, monkeypatch
):
    pruned_by = []

    def noted(lm, recipe, *rest, **more):
        pruned_by.append(recipe)
        return prune(lm, recipe, *rest, **more)

    monkeypatch.setattr(variants, "prune", noted)
    before = tiny_dlm.fingerprint()
    text, recipe = Calibration(make_ids(2, 12)), preset("wanda")
    one, two = {"natural/crop": make_ids(2, 12, seed=1)}, {"natural/crop": make_ids(2, 12, seed=2)}
    with Variant(tiny_dlm, before, recipe, text) as variant:
        assert pruned_by == [] and tiny_dlm.fingerprint() == before
        first = variant.scores(run, one, 2, variant="wanda")
        second = variant.scores(run, two, 2, variant="wanda")
        assert pruned_by == [recipe] and tiny_dlm.fingerprint() != before
    assert tiny_dlm.fingerprint() == before
    assert set(first.text) == {"natural"} and set(first.start) == {"crop"}
    assert first.calibration_tokens.tolist() == [24, 24] and first.value.tolist() != second.value.tolist()
    with Variant(tiny_dlm, before, recipe, text) as again:
        pd.testing.assert_frame_equal(again.scores(run, one, 2, variant="wanda"), first)
    assert pruned_by == [recipe], "what is on record needs no pruning"
