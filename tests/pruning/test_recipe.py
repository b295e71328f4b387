"""Recipes: what cannot work is refused before any change, and a preset is what the literature says."""

import re
from dataclasses import replace
from typing import get_args

import pytest
from naive import same, weights_of

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.pruning.engine import dense_statistics, prune
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.recipe import PRESETS, READ_BY, NormReduction, Recipe, compared_preset, preset


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"criterion": "taylor"}, "criterion='taylor' must be 'magnitude', 'wanda'"),
        ({"pattern": "column"}, "pattern='column' must be one of row, layer, global, structured"),
        ({"pattern": "4:4"}, "1 <= N < M"),
        ({"exclude": "all", "alpha": 0.0}, "alpha=0.0 must be greater than 0"),
        ({"pattern": "2:4", "sparsity": 0.6}, "sparsity=0.6 does not fit pattern='2:4', which means 0.5"),
        ({"pattern": "2:4", "allocation": "owl"}, "allocation='owl' does not go with pattern='2:4'"),
        ({"criterion": "flap"}, "criterion='flap' scores whole channels: it needs pattern='structured'"),
        ({"criterion": "sparsegpt", "pattern": "structured"}, "it takes no pattern='structured'"),
        ({"pattern": "global"}, "it needs propagation='dense'"),
        ({"criterion": "magnitude", "allocation": "owl"}, "allocation='owl' needs calibrated scores"),
    ],
)
def test_fields_that_cannot_be_are_refused_with_their_value_and_what_is_allowed(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Recipe(**fields)
    assert "\n" not in str(caught.value)


READ_BY_NOBODY = {
    "inputs": (Recipe, {"criterion": "magnitude", "inputs": "noised"}, "only a criterion that looks at"),
    "exclude": (Recipe, {"criterion": "magnitude", "exclude": "unstable"}, "only a criterion that looks at"),
    "norm_reduction": (
        Recipe,
        {"criterion": "sparsegpt", "norm_reduction": "sum"},
        "only a criterion that reads norms, or allocation='owl',",
    ),
    "alpha": (Recipe, {"alpha": 5.0}, "only exclude='all' or 'official' reads it"),
    "compensate": (Recipe, {"compensate": True}, "only pattern='structured' with a calibrated criterion"),
    "targets": (Recipe, {"targets": ("mlp.*",), "pattern": "structured"}, "only a pattern of single weights"),
    "ignore": (Recipe, {"ignore": ("mlp.*",), "pattern": "structured"}, "only a pattern of single weights"),
    "owl_lambda": (Recipe, {"owl_lambda": 0.1}, "only allocation='owl' reads it"),
    "owl_m": (Recipe, {"owl_m": 2.0}, "only allocation='owl' reads it"),
    "damping": (Recipe, {"damping": 0.1}, "only criterion='sparsegpt' reads it"),
    "block_size": (
        Recipe,
        {"criterion": "magnitude", "block_size": 64},
        "only criterion='sparsegpt' reads it",
    ),
    "round_to": (Recipe, {"round_to": 64}, "only pattern='structured' reads it"),
    "noise_levels": (preset, {"name": "sparsegpt", "noise_levels": 4}, "only inputs='noised', or a choice"),
    "noise": (preset, {"name": "sparsegpt", "noise": "half-clean"}, "only inputs='noised', or a choice"),
    "propagation": (preset, {"name": "magnitude", "propagation": "dense"}, "only a criterion that looks at"),
    "sink_std": (preset, {"name": "dwanda", "sink_std": 1.0}, "only a choice of tokens to exclude reads it"),
    "stability_threshold": (
        preset,
        {"name": "all-sinks", "stability_threshold": 0.5},
        "only exclude='unstable' or 'stable' reads it",
    ),
}


@pytest.mark.parametrize("field", READ_BY)
def test_a_field_that_nothing_reads_is_refused_where_it_is_stated(field):
    make, fields, said = READ_BY_NOBODY[field]
    prefix = f"{field}={fields[field]!r} has no effect on this recipe: {said}"
    with pytest.raises(ValueError, match=re.escape(prefix)) as caught:
        make(**fields)
    assert "\n" not in str(caught.value)


def test_settings_of_a_comparison_stand_in_every_recipe_of_it():
    """So a record's key is the same whoever reads the setting."""
    assert compared_preset("wanda", noise_levels=4, sink_std=1.5) == Recipe(noise_levels=4, sink_std=1.5)
    assert compared_preset("unstable", noise_levels=4) == preset("unstable", noise_levels=4)


@pytest.mark.parametrize(("pattern", "rounded"), [("1:3", 0.333333), ("2:3", 0.666667), ("2:4", 0.5)])
def test_a_rounded_sparsity_of_a_pattern_is_its_own(pattern, rounded):
    zeros, group = map(int, pattern.split(":"))
    assert Recipe(pattern=pattern, sparsity=rounded).sparsity == zeros / group


def test_another_sparsity_than_a_patterns_is_told_in_full():
    said = "sparsity=0.333 does not fit pattern='1:3', which means 0.3333333333333333: "
    with pytest.raises(ValueError, match=re.escape(said)):
        Recipe(pattern="1:3", sparsity=0.333)


# presets


def test_settings_are_those_of_the_papers():
    recipe = Recipe()
    assert (recipe.owl_lambda, recipe.owl_m, recipe.damping, recipe.block_size) == (0.08, 5, 0.01, 128)


def test_every_preset_is_a_recipe_with_a_name_of_its_own():
    names = [name for name in PRESETS if name != "recommended"]  # which is one of the others
    recipes = [preset(name, sparsity=0.25) for name in names]
    assert len(set(recipes)) == len({recipe.name for recipe in recipes}) == len(names)
    assert {recipe.sparsity for recipe in recipes} == {0.25}
    assert {recipe.criterion for recipe in recipes} >= {"magnitude", "wanda", "sparsegpt", "flap"}
    assert {recipe.exclude for recipe in recipes} == set(EXCLUDE)
    assert {recipe.norm_reduction for recipe in recipes} == set(get_args(NormReduction))


def test_a_preset_whose_criterion_scores_units_takes_no_other_pattern():
    assert preset("structured", pattern="structured").pattern == "structured"
    with pytest.raises(ValueError, match=r"criterion='flap' .* needs pattern='structured'"):
        preset("flap", pattern="row")


def test_what_is_recommended_depends_on_the_sparsity():
    half = {"noise": "half-clean", "noise_levels": 2}
    for sparsity, name, fields in (
        (0.49, "sparsegpt", {}),
        (0.5, "sparsegpt-noised", half),
        (0.75, "sparsegpt-noised", half | {"allocation": "owl"}),
    ):
        assert preset("recommended", sparsity=sparsity) == preset(name, sparsity=sparsity, **fields)

    assert preset("recommended", sparsity=0.9, inputs="clean").inputs == "clean"
    assert preset("recommended", pattern="2:4") == preset("sparsegpt", pattern="2:4")


@pytest.mark.parametrize("changes", [{"owl_lambda": 0.05}, {"owl_m": 3.0}, {"noise_levels": 3}])
def test_what_is_recommended_from_a_sparsity_on_can_be_changed_there(changes):
    """A change may be of a field that only what comes from that sparsity on reads."""
    (field, value), *_ = changes.items()
    assert getattr(preset("recommended", sparsity=0.75, **changes), field) == value
    with pytest.raises(ValueError, match=f"^{field}="):
        preset("recommended", sparsity=0.25, **changes)


@pytest.mark.parametrize("sparsity", ["0.75", 1.5, [0.75]])
def test_a_sparsity_that_is_none_is_refused_before_it_is_compared(sparsity):
    with pytest.raises(ValueError, match=r"^sparsity="):
        preset("recommended", sparsity=sparsity)


def test_sparsities_beside_a_pattern_that_has_its_own_are_the_ones_refused():
    with pytest.raises(ValueError, match=r"sparsities=\(0.2, 0.8\) need pattern='row'"):
        preset("wanda", pattern="1:4", sparsities=[0.2, 0.8])


def test_recommended_shares_zeros_out_over_layers_unless_their_sparsities_are_given():
    chosen = preset("recommended", sparsities=(0.8, 0.8))
    assert chosen.allocation == "uniform" and chosen.noise == "half-clean"
    with pytest.raises(ValueError, match="sparsities="):
        preset("recommended", sparsities=(0.8, 0.8), allocation="owl")

    for changes in ({}, {"targets": "mlp.*"}, {"ignore": "*.q_proj"}):
        assert preset("recommended", sparsity=0.8, **changes).allocation == "owl"


@pytest.mark.parametrize(
    ("fields", "sparsity"),
    [
        ({}, 0.5),
        ({"pattern": "1:4"}, 0.25),
        ({"pattern": "1:3", "sparsity": 0.3333333}, 1 / 3),
        ({"sparsities": (0.6, 0.7)}, (0.6 + 0.7) / 2),
        ({"sparsities": [0.1, 0.2, 0.3], "sparsity": 0.2}, (0.1 + 0.2 + 0.3) / 3),
    ],
)
def test_a_sparsity_is_what_pattern_or_sparsities_mean(fields, sparsity):
    for recipe in (Recipe(**fields), preset("wanda", **fields)):
        assert recipe.sparsity == sparsity
        assert replace(recipe) == recipe and recipe.card()["sparsity"] == sparsity


# what does not fit a model or its text


NOISED = {"inputs": "noised"}


@pytest.mark.parametrize(
    ("kind", "fields", "length", "said"),
    [
        ("autoregressive", NOISED, 6, "inputs='noised' needs a diffusion model with a mask token"),
        ("autoregressive", {"exclude": "all", "noise_levels": 7}, 6, "noise_levels=7 exceed the 6 tokens"),
        ("diffusion", {}, None, "criterion='wanda' needs calibration text: pass a Calibration"),
        ("diffusion", {"pattern": "2:4"}, 6, "needs inputs in groups of 4; mlp.down_proj of block 0 has 45"),
        ("diffusion", {"pattern": "structured", "sparsity": 0.999}, 6, "ratio=0.999 cannot be reached"),
        ("diffusion", {**NOISED, "exclude": "non-sinks", "sink_std": 1e3}, 12, "leaves no calibration token"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_any_change(
    make_lm, make_ids, kind, fields, length, said
):
    lm = make_lm(kind)
    before = weights_of(lm)
    text = None if length is None else Calibration(make_ids(2, length))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        prune(lm, Recipe(**fields), text, progress=False)
    assert "\n" not in str(caught.value)
    assert same(weights_of(lm), before)


def test_compensation_is_refused_where_the_class_has_no_bias(make_family, make_ids):
    lm = make_family("qwen2")
    with pytest.raises(ValueError, match="Qwen2ForCausalLM has no bias for"):
        make_plan(lm, preset("flap"), Calibration(make_ids(2, 6)))


def test_dense_statistics_are_refused_where_there_are_none(tiny_dlm, make_ids):
    for recipe, said in [
        (preset("wanda"), "has propagation='sequential': its statistics depend on what it pruned before"),
        (preset("sparsegpt", propagation="dense"), "needs a Gram matrix per input"),
    ]:
        with pytest.raises(ValueError, match=said):
            dense_statistics(tiny_dlm, [recipe], Calibration(make_ids(2, 6)), progress=False)
