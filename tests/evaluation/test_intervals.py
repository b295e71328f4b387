"""What the notebooks repeat: comparisons on common draws, and where methods prune differently, against independent counts."""

import numpy as np
import pandas as pd
import pytest
import torch

from sinkprune_core.companion import figures
from sinkprune_core.companion.variants import SharedStatistics, mask_differences
from sinkprune_core.evaluation.intervals import compare, crossed_interval, forest_table, growth
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.engine import preset, prune, weights_kept

SEQUENCES = 6


def table(variant: str, draws: int, sparsity: float = 0.5, calibrated: bool = True) -> pd.DataFrame:
    """Return made-up scores of one variant: random, on so many calibration draws."""
    values = np.random.default_rng(list(f"{variant} {sparsity}".encode())).normal(size=(draws, SEQUENCES))
    rows = [
        {
            "variant": variant,
            "sparsity": sparsity,
            "seed": r,
            "sequence": n,
            "value": values[r, n],
            "calibration_tokens": 64 * calibrated,
        }
        for r in range(draws)
        for n in range(SEQUENCES)
    ]
    return pd.DataFrame(rows)


def values(frame: pd.DataFrame) -> np.ndarray:
    return frame.sort_values(["seed", "sequence"]).value.to_numpy().reshape(-1, SEQUENCES)


# comparisons


def test_variants_are_compared_on_the_draws_that_both_have():
    many, few = table("many", 3), table("few", 2)
    found = compare(pd.concat([many, few]), {"variant": "many"}, {"variant": "few"})
    assert found == crossed_interval(values(many)[:2] - values(few))


def test_a_variant_without_calibration_serves_every_draw():
    many, dense = table("many", 3), table("dense", 1, calibrated=False)
    found = compare(pd.concat([many, dense]), {"variant": "many"}, {"variant": "dense"})
    assert found == crossed_interval(values(many) - values(dense))


def test_what_was_not_measured_gives_none_and_draws_apart_are_refused():
    many, later = table("many", 2), table("later", 2).assign(seed=lambda frame: frame.seed + 5)
    scores = pd.concat([many, later])
    assert compare(scores, {"variant": "many"}, {"variant": "other"}) is None
    assert growth(scores, {"variant": "many"}, {"variant": "many"}, "sparsity", 0.5, 0.75) is None
    with pytest.raises(ValueError, match="share no calibration draw"):
        compare(scores, {"variant": "many"}, {"variant": "later"})


def test_growth_is_a_difference_of_differences():
    parts = {(name, share): table(name, 2, share) for name in ("a", "b") for share in (0.5, 0.75)}
    found = growth(pd.concat(parts.values()), {"variant": "a"}, {"variant": "b"}, "sparsity", 0.5, 0.75)
    by_hand = (values(parts["a", 0.75]) - values(parts["b", 0.75])) - (
        values(parts["a", 0.5]) - values(parts["b", 0.5])
    )
    assert found.value == pytest.approx(by_hand.mean()) and found == crossed_interval(by_hand)
    assert growth(pd.concat(parts.values()), {"variant": "a"}, {"variant": "b"}, "sparsity", 0.5, 0.5) is None


def test_a_forest_table_has_a_row_per_estimate():
    estimate = crossed_interval(values(table("a", 2)))
    assert forest_table({"a − b": estimate}).to_dict("records") == [
        {
            "comparison": "a − b",
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "sequences": SEQUENCES,
            "interval": estimate.method,
        }
    ]


# where methods prune differently


@pytest.fixture
def calibration(make_ids) -> Calibration:
    return Calibration(make_ids(4, 12), batch=2)


def test_mask_differences_count_kept_weights_that_only_one_mask_keeps(tiny_dlm, calibration):
    recipes = {
        "wanda": preset("wanda", sparsity=0.5),
        "unstable": preset("unstable", sparsity=0.7, noise_levels=2),
    }
    shared = SharedStatistics(tiny_dlm, recipes.values(), calibration)
    before = {name: value.clone() for name, value in tiny_dlm.model.state_dict().items()}
    found = mask_differences(
        tiny_dlm,
        {name: (recipe, calibration, shared) for name, recipe in recipes.items()},
        [("wanda", "unstable")],
    )
    assert all(torch.equal(value, before[name]) for name, value in tiny_dlm.model.state_dict().items()), (
        "weights come back"
    )

    kept = {}
    for name, recipe in recipes.items():
        with weights_kept(tiny_dlm):
            prune(tiny_dlm, recipe, calibration, progress=False)
            kept[name] = {
                (layer, linear): set((module.weight.flatten() != 0).nonzero().flatten().tolist())
                for layer, block in enumerate(tiny_dlm.blocks)
                for linear, module in tiny_dlm.linears(block).items()
            }
    assert list(zip(found.layer, found.linear, strict=True)) == list(kept["wanda"])
    for row in found.itertuples():
        one, other = kept["wanda"][row.layer, row.linear], kept["unstable"][row.layer, row.linear]
        assert row.differ == pytest.approx(len(one ^ other) / (len(one) + len(other)))
    assert found.differ.between(0.05, 0.9).all()


def test_a_recipe_that_was_not_announced_takes_statistics_of_its_own(tiny_dlm, calibration):
    announced, other = preset("noised-dense", noise_levels=2), preset("unstable", noise_levels=2)
    shared = SharedStatistics(tiny_dlm, [announced], calibration)
    assert shared.of(other) is None and shared.of(announced) is not None
    pairs, variants = (
        [("one", "two")],
        {"one": (announced, calibration, shared), "two": (other, calibration, shared)},
    )
    apart = {name: (recipe, text, None) for name, (recipe, text, _) in variants.items()}
    pd.testing.assert_frame_equal(
        mask_differences(tiny_dlm, variants, pairs), mask_differences(tiny_dlm, apart, pairs)
    )


def test_equal_masks_differ_nowhere_and_unrelated_ones_by_their_sparsity(make_lm, make_ids):
    lm, variants = (
        make_lm("diffusion", seed=3),
        {name: (preset("magnitude", sparsity=0.5), None, None) for name in ("one", "again")},
    )
    same = mask_differences(lm, variants, [("one", "again")])
    assert (same.differ == 0).all()
    units = preset("structured-magnitude", sparsity=0.5)  # whole rows and columns against single weights
    apart = mask_differences(lm, {**variants, "units": (units, None, None)}, [("one", "units")])
    assert apart.differ.mean() == pytest.approx(0.5, abs=0.12)


def test_a_pair_without_its_variant_is_refused_before_any_work(tiny_dlm):
    with pytest.raises(ValueError, match=r"pairs name \['flap'\].*pairs of magnitude"):
        mask_differences(tiny_dlm, {"magnitude": (preset("magnitude"), None, None)}, [("magnitude", "flap")])


def test_figures_of_masks_and_methods_show_every_panel(tiny_dlm):
    variants = {
        name: (preset("magnitude", sparsity=share), None, None)
        for name, share in (("half", 0.5), ("more", 0.7), ("most", 0.9))
    }
    frame = mask_differences(tiny_dlm, variants, [("half", "more"), ("more", "most"), ("half", "most")])
    drawn = figures.plot_mask_differences(frame)
    titles = [axis.get_title(loc="left") for axis in drawn.axes]
    assert [title.split(":")[0] for title in titles if title] == ["half / more", "more / most", "half / most"]
    methods = pd.DataFrame(
        [
            {"pattern": pattern, "recipe": recipe, "value": 1.0, "low": 0.5, "high": 2.0}
            for pattern, recipe in (("2:4", "wanda"), ("4:8", "wanda"), ("4:8", "paper"))
        ]
    )
    left, right = figures.plot_methods(methods, "pattern", "recipe", "excess").axes
    assert (len(left.containers), len(right.containers)) == (1, 2)
    assert [label.get_text() for label in left.get_yticklabels()] == ["wanda", "paper"]
