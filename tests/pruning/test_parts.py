"""Recipes for a part of a model: some linears, a sparsity per layer, an earlier mask, an own criterion."""

import dataclasses
import hashlib
import json
import re
from typing import get_args

import pytest
import torch
from naive import linears_of, same, weights_of

from sinkprune import prune
from sinkprune.runs.recipe_identity import settings_digest
from sinkprune_core import Recipe, weights_kept
from sinkprune_core.calibration.text import NOISE
from sinkprune_core.pruning.criteria import CRITERIA, CriterionName, wanda
from sinkprune_core.pruning.plan import reads_dense
from sinkprune_core.pruning.recipe import EXCLUDE, ExcludeName, NoiseName
from sinkprune_core.pruning.structured import rounded

GRAM = {"criterion": "sparsegpt", "block_size": 16}


def pruned(lm, calibration, **fields):
    """Return the weights after pruning, and the report; the model gets its own back."""
    with weights_kept(lm):
        report = prune(lm, Recipe(**fields), calibration, progress=False)
        return weights_of(lm), report


def zeros_of(lm) -> dict:
    return {place: int((linear.weight == 0).sum()) for place, linear in linears_of(lm).items()}


# keys of records


def test_fields_that_are_not_set_stand_in_no_key():
    """The digest is what it was before there were such fields."""
    recipe = Recipe(noise_levels=4)
    assert "targets" not in recipe.card()

    fields = dataclasses.asdict(recipe)
    for name in ("targets", "ignore", "sparsities", "round_to"):
        del fields[name]

    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    assert settings_digest(recipe) == digest

    for set_field in (
        {"targets": ["mlp.*"]},
        {"ignore": "mlp.*"},
        {"sparsities": (0.5,)},
    ):
        changed = dataclasses.replace(recipe, **set_field)
        assert settings_digest(changed) != digest
        assert Recipe(**json.loads(json.dumps(changed.card()))) == changed


# some linears


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"targets": ("mlp.*",)}, lambda layer, name: name.startswith("mlp.")),
        ({"ignore": ("mlp.down_proj", "0.*")}, lambda layer, name: layer > 0 and name != "mlp.down_proj"),
        (
            {"targets": "*_proj", "ignore": "1.self_attn.*"},
            lambda layer, name: (layer, name[:4]) != (1, "self"),
        ),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"propagation": "dense", "pattern": "global"}, GRAM])
def test_only_linears_that_are_named_are_pruned(tiny_dlm, calibration, names, expected, fields):
    before = weights_of(tiny_dlm)
    report = prune(tiny_dlm, Recipe(**names, **fields), calibration, progress=False)

    chosen = [place for place in linears_of(tiny_dlm) if expected(*place)]
    assert list(zip(report.linears.layer, report.linears.name, strict=True)) == chosen
    for (layer, name), linear in linears_of(tiny_dlm).items():
        is_changed = not torch.equal(linear.weight, before[f"model.layers.{layer}.{name}.weight"])
        assert is_changed == ((layer, name) in chosen), (layer, name)

    counts = zeros_of(tiny_dlm)
    assert report.linears.zeros.tolist() == [counts[place] for place in chosen]
    assert report.sparsity == pytest.approx(0.5, abs=0.02)


def test_targets_that_are_all_linears_change_nothing(tiny_dlm, calibration):
    assert same(*(pruned(tiny_dlm, calibration, targets=names)[0] for names in ((), ("*",))))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"targets": ("mpl.*",)},
            "targets='mpl.*' fits no linear of tiny-diffusion, whose blocks have self_attn",
        ),
        ({"ignore": ("7.*",)}, "ignore='7.*' fits no linear"),
        ({"ignore": ("*",)}, "targets and ignore leave no linear of tiny-diffusion to prune"),
        ({"targets": ("0.*",), "allocation": "owl"}, "leave some without a linear: use allocation='uniform'"),
        ({"sparsities": (0.1, 0.2)}, "sparsities has 2 numbers for the 3 blocks of tiny-diffusion"),
    ],
)
def test_what_fits_no_model_is_refused_before_any_change(tiny_dlm, calibration, fields, said):
    before = weights_of(tiny_dlm)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        prune(tiny_dlm, Recipe(**fields), calibration, progress=False)
    assert "\n" not in str(caught.value) and same(weights_of(tiny_dlm), before)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"targets": 3}, "targets=3 "),
        ({"sparsities": (0.1, 1.0)}, "sparsities=(0.1, 1.0) "),
        ({"sparsities": (0.2, 0.4), "sparsity": 0.6}, "sparsity=0.6 does not fit sparsities=(0.2, 0.4)"),
        ({"sparsities": (0.6, 0.7), "sparsity": 0.5}, "sparsity=0.5 does not fit sparsities=(0.6, 0.7)"),
        ({"sparsities": (0.2, 0.4), "allocation": "owl"}, "and allocation='uniform', not pattern='row' and"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Recipe(**fields)


# a sparsity per layer


@pytest.mark.parametrize("pattern", ["row", "layer"])
def test_every_layer_gets_its_sparsity(tiny_dlm, calibration, pattern):
    shares = (0.25, 0.5, 0.75)
    report = prune(tiny_dlm, Recipe(sparsities=shares, pattern=pattern), calibration, progress=False)
    for row in report.linears.itertuples():
        share = shares[row.layer]
        in_rows = row.rows * int(row.columns * share)
        assert row.zeros == (in_rows if pattern == "row" else int(row.weights * share))
    assert report.recipe.sparsity == 0.5


def test_equal_sparsities_are_one(tiny_dlm, calibration):
    assert same(
        pruned(tiny_dlm, calibration, sparsities=(0.4, 0.4, 0.4))[0],
        pruned(tiny_dlm, calibration, sparsity=0.4)[0],
    )


# an own criterion


def as_wanda(weight_OI, inputs):
    return wanda(weight_OI, inputs)


def largest_first(weight_OI, inputs):
    assert inputs is None
    return -weight_OI.abs()


largest_first.needs = None


def by_diagonal(weight_OI, inputs):
    """What a weight's removal alone adds to the squared error."""
    return weight_OI.float().square() * inputs.gram_II.diagonal()


by_diagonal.needs = "gram"


@pytest.mark.parametrize("fields", [{}, {"propagation": "dense", "pattern": "global"}, {"pattern": "layer"}])
def test_an_own_criterion_prunes_as_the_named_one_that_it_equals(tiny_dlm, calibration, fields):
    expected, _ = pruned(tiny_dlm, calibration, criterion="wanda", **fields)
    found, report = pruned(tiny_dlm, calibration, criterion=as_wanda, **fields)

    assert same(found, expected)
    assert report.recipe.name.startswith("as_wanda clean")
    assert json.loads(json.dumps(report.card()))["recipe"]["criterion"] == f"{__name__}.as_wanda"


def test_an_own_criterion_says_what_it_reads(tiny_dlm, calibration):
    found, report = pruned(tiny_dlm, None, criterion=largest_first)
    weights = weights_of(tiny_dlm)
    for layer, name in linears_of(tiny_dlm):
        key = f"model.layers.{layer}.{name}.weight"
        assert float(found[key].abs().max()) < float(weights[key].abs().max())

    assert report.calibration_tokens == 0

    of_gram, _ = pruned(tiny_dlm, calibration, criterion=by_diagonal)
    expected, _ = pruned(tiny_dlm, calibration, criterion="wanda")  # the root of the same score
    differing = sum(int((of_gram[key] != expected[key]).sum()) for key in expected)
    assert differing <= 4, "rounding may exchange two weights"


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda weight_OI, inputs: None, "got None"),
        (lambda weight_OI, inputs: weight_OI[0], "got a tensor of torch.float32"),
    ],
)
def test_a_criterion_that_returns_no_scores_is_refused(tiny_dlm, calibration, wrong, got):
    with pytest.raises(ValueError, match=f"must return a score for every weight, .*{got}"):
        prune(tiny_dlm, Recipe(criterion=wrong), calibration, progress=False)


def test_a_criterion_that_fails_midway_says_which_linears_are_pruned_already(tiny_dlm, calibration):
    scored = []

    def fails_at_the_fifth(weight_OI, inputs):
        scored.append(weight_OI.shape)
        if len(scored) == 5:
            raise LookupError("no score")
        return weight_OI.abs().float()

    with pytest.raises(LookupError, match="no score") as caught:
        prune(tiny_dlm, Recipe(criterion=fails_at_the_fifth), calibration, progress=False)

    (note,) = caught.value.__notes__
    assert note.startswith("block 0 ") and "those before it are pruned" in note and "weights_kept" in note


def test_what_is_no_criterion_is_refused():
    for wrong in (3, None, print):
        with pytest.raises(ValueError, match=r"^criterion=.*'wanda'.*a function"):
            Recipe(criterion=wrong)

    def by_gradient(weight_OI, inputs):
        return weight_OI

    for needs in ("gradients", "signs"):
        by_gradient.needs = needs
        with pytest.raises(ValueError, match=rf"^criterion\.needs='{needs}' .*'moments'"):
            Recipe(criterion=by_gradient)


def test_names_that_tools_complete_are_those_of_the_tables():
    for names, table in (
        (CriterionName, CRITERIA),
        (ExcludeName, EXCLUDE),
        (NoiseName, NOISE),
    ):
        assert get_args(names) == tuple(table)


@pytest.mark.parametrize(
    ("fields", "reads"),
    [
        ({}, False),
        ({"allocation": "owl"}, True),
        ({"propagation": "dense"}, True),
        ({"criterion": "magnitude"}, False),
        ({"criterion": "sparsegpt", "propagation": "dense"}, False),
    ],
)
def test_who_reads_statistics_of_the_dense_model(fields, reads):
    assert reads_dense(Recipe(**fields)) == reads


@pytest.mark.parametrize(
    ("channels", "removed", "leave"), [(970, 0, 0), (970, 1, 10), (1024, 1, 0), (1024, 40, 64), (100, 7, 7)]
)
def test_channels_leave_so_that_a_multiple_stays_where_any_do(channels, removed, leave):
    assert rounded(channels, removed, 64) == leave
