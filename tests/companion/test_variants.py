"""Variants are pruned once, their measures are kept on record, and the model is left dense."""

import pandas as pd

from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.variants import Variant
from sinkprune_core import Calibration, preset, prune


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
