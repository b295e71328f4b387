"""Where methods prune differently: masks are compared weight by weight, against independent counts."""

import pandas as pd
import pytest
import torch
from naive import same, weights_of
from scipy import stats

from sinkprune_companion.experiments.masks import mask_differences
from sinkprune_companion.experiments.pruning_findings import mask_findings
from sinkprune_core import Calibration, Recipe, preset, prune, weights_kept


def kept_of(lm, recipe: Recipe, text: Calibration, layers) -> dict[tuple[int, str], torch.Tensor]:
    """Return which weights of some blocks are kept, by layer and linear."""
    with weights_kept(lm):
        prune(lm, recipe, text, progress=False)
        return {
            (layer, name): linear.weight != 0
            for layer in layers
            for name, linear in lm.linears(lm.blocks[layer]).items()
        }


def test_mask_differences_count_kept_weights_that_only_one_mask_keeps(tiny_dlm, calibration):
    recipes = {
        "wanda": preset("wanda", sparsity=0.5),
        "unstable": preset("unstable", sparsity=0.7, noise_levels=2),
    }
    before = weights_of(tiny_dlm)
    variants = {name: (recipe, calibration) for name, recipe in recipes.items()}
    found = mask_differences(tiny_dlm, variants, [("wanda", "unstable")])
    assert same(weights_of(tiny_dlm), before)

    layers = range(len(tiny_dlm.blocks))
    kept = {name: kept_of(tiny_dlm, recipe, calibration, layers) for name, recipe in recipes.items()}
    assert list(zip(found.layer, found.linear, strict=True)) == list(kept["wanda"])
    for row in found.itertuples():
        one, other = (kept[name][row.layer, row.linear] for name in ("wanda", "unstable"))
        assert row.differ == pytest.approx(float((one ^ other).sum() / (one.sum() + other.sum())))
    assert found.differ.between(0.05, 0.9).all()


def test_findings_of_masks_are_means_over_linear_maps():
    rows = [("other text", (0.02, 0.04)), ("all-sinks", (0.0, 0.02)), ("wanda", (0.03, 0.03))]
    masks = pd.DataFrame(
        [
            {"one": "noised-dense", "other": other, "layer": layer, "linear": "q_proj", "differ": differ}
            for other, values in rows
            for layer, differ in enumerate(values)
        ]
    )

    found = mask_findings(masks)

    assert {name: round(each.value, 6) for name, each in found.items()} == {
        "masks_other_text": 0.03,
        "masks_all_sinks": 0.01,
        "masks_wanda": 0.03,
    }

    low = 0.03 - 0.01 * stats.t.ppf(0.975, 1)  # 0.02 and 0.04, one degree of freedom
    assert found["masks_other_text"].low == pytest.approx(low)
