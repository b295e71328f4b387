"""A user's own choice of calibration tokens: `Recipe(exclude=function)`."""

import dataclasses
import json

import pytest
import torch
from naive import same, weights_of

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import choice_identity, rows_for
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.pruning.engine import dense_statistics, prune
from sinkprune_core.pruning.recipe import Recipe

NOISED = {"inputs": "noised", "noise_levels": 2, "sink_std": 1.0}


@pytest.fixture
def calibration(make_ids) -> Calibration:
    return Calibration(make_ids(5, 12, seed=7), seed=3, batch=4)


def first_half(context):
    """The first half of every sequence, whatever its attention."""
    length = context.profile_NST.shape[-1]
    return (torch.arange(length) < length // 2).expand_as(context.profile_NST)


def sinks_above_the_threshold(context):
    """As `all`."""
    return context.sinks_NST


def sinks_that_move(context):
    """As `unstable`."""
    return context.split_sinks()[1]


def pruned(lm, recipe, calibration, **options):
    """Return the weights after pruning, and the report; the model gets its own back."""
    with weights_kept(lm):
        report = prune(lm, recipe, calibration, progress=False, **options)
        return weights_of(lm), report


def test_a_function_leaves_out_what_it_returns(tiny_dlm, calibration):
    recipe = Recipe(propagation="dense", exclude=first_half, **NOISED)
    _, report = pruned(tiny_dlm, recipe, calibration)
    assert report.left_out_share == 0.5
    rows = rows_for(tiny_dlm, calibration, recipe.statistics_key, progress=False)
    assert rows.weight_RT.tolist() == [[0.0] * 6 + [1.0] * 6] * 10


@pytest.mark.parametrize(
    ("function", "name"), [(sinks_above_the_threshold, "all"), (sinks_that_move, "unstable")]
)
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_a_function_prunes_as_the_named_choice_that_it_equals(
    tiny_dlm, calibration, tmp_path, killed_at, function, name, criterion, propagation
):
    """Straight, and killed and resumed in a work folder."""
    named = Recipe(criterion, propagation=propagation, exclude=name, **NOISED)
    own = dataclasses.replace(named, exclude=function)
    expected, report = pruned(tiny_dlm, named, calibration)
    found, own_report = pruned(tiny_dlm, own, calibration)
    assert same(found, expected)
    assert own_report.left_out_share == report.left_out_share > 0
    with killed_at(1), weights_kept(tiny_dlm):
        prune(tiny_dlm, own, calibration, progress=False, work=tmp_path)
    folders = list(tmp_path.glob("job-*"))
    resumed, resumed_report = pruned(tiny_dlm, own, calibration, work=tmp_path)
    assert [resumed_report.checkpoint] == folders == list(tmp_path.glob("job-*"))
    assert same(resumed, expected)


def test_a_report_names_the_function(tiny_dlm, calibration):
    recipe = Recipe(exclude=first_half, **NOISED)
    assert recipe.name == "wanda noised sequential first_half"
    _, report = pruned(tiny_dlm, recipe, calibration)
    card = json.loads(json.dumps(report.card()))
    assert card["recipe"]["exclude"] == f"{__name__}.first_half"
    assert card["recipe"] == {**dataclasses.asdict(recipe), "exclude": f"{__name__}.first_half"}


def test_equal_functions_share_statistics_and_others_do_not(tiny_dlm, calibration):
    recipe = Recipe(propagation="dense", exclude=first_half, **NOISED)
    recipes = [
        recipe,
        dataclasses.replace(recipe, sparsity=0.7),
        dataclasses.replace(recipe, exclude=sinks_that_move),
    ]
    keys = [each.statistics_key for each in recipes]
    assert keys[0] == keys[1] != keys[2]
    found = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    assert set(found) == set(keys)
    shared, _ = pruned(tiny_dlm, recipes[1], calibration, statistics=found[keys[1]])
    assert same(shared, pruned(tiny_dlm, recipes[1], calibration)[0])


def make_choice(share, offset=0):
    def choice(context, step=1):
        return torch.full_like(context.profile_NST, share + offset * step)

    return choice


SHARE = 0.25


def share_of_a_constant(context):
    return torch.full_like(context.profile_NST, SHARE)


def test_an_identity_tells_functions_apart_and_not_their_copies():
    same_line = [lambda context: context.sinks_NST, lambda context: ~context.sinks_NST]
    large = [make_choice(torch.zeros(3000)), make_choice(torch.eye(3000)[1500])]
    functions = [first_half, sinks_that_move, make_choice(0.25), make_choice(0.5), *same_line, *large]
    identities = [choice_identity(function) for function in functions]
    assert len(set(identities)) == len(functions)
    assert choice_identity(make_choice(0.5)) == identities[3]
    assert identities[0].startswith(f"{__name__}.first_half:")


def test_an_identity_follows_a_constant_that_the_function_reads(monkeypatch):
    former = choice_identity(share_of_a_constant)
    monkeypatch.setitem(globals(), "SHARE", 0.5)
    assert choice_identity(share_of_a_constant) != former


def test_a_named_choice_is_its_name():
    assert choice_identity("all") == "all"


def test_a_changed_function_of_the_same_name_starts_anew(tiny_dlm, calibration, tmp_path):
    """Neither statistics nor finished blocks of the former one are taken for its own."""
    checkpoints = set()
    for share in (0.25, 0.5):
        recipe = Recipe(propagation="dense", exclude=make_choice(share), **NOISED)
        _, report = pruned(tiny_dlm, recipe, calibration, work=tmp_path)
        assert report.left_out_share == share
        checkpoints.add(report.checkpoint)
    assert len(checkpoints) == 2
    assert len(list(tmp_path.glob("statistics-*.safetensors"))) == 2


@pytest.mark.parametrize("wrong", [3, None, print, [first_half]])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is unknown; choose one of none, .*, only, or give a function"):
        Recipe(exclude=wrong)


def too_much(context):
    return context.profile_NST * 0 + 1.5


def too_little(context):
    return context.profile_NST * 0 - 0.1


def no_number(context):
    return context.profile_NST * torch.nan


def another_shape(context):
    return context.profile_NST[:, 0] * 0


def nothing(context):
    return None


@pytest.mark.parametrize("wrong", [too_much, too_little, no_number, another_shape, nothing])
@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_a_function_that_returns_no_shares_is_refused(tiny_dlm, make_ids, wrong, propagation):
    before = weights_of(tiny_dlm)
    said = rf"{wrong.__name__}' must leave out a share in \[0, 1\] of every token, shape \(\d, 2, 12\); got"
    recipe = Recipe(propagation=propagation, exclude=wrong, **NOISED)
    with pytest.raises(ValueError, match=said):
        prune(tiny_dlm, recipe, Calibration(make_ids(3, 12)), progress=False)
    assert same(weights_of(tiny_dlm), before)
