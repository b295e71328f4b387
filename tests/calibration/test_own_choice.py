"""A user's own choice of calibration tokens: `Recipe(exclude=function)`."""

import dataclasses
import json

import pytest
import torch
from naive import same, weights_of

from sinkprune import prune
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.saving import save
from sinkprune.models.streaming import stream
from sinkprune_core import Calibration, Recipe, weights_kept
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.pruning.recipe import as_settings

NOISED = {"inputs": "noised", "noise_levels": 2, "sink_std": 1.0}


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


def pruned(lm, recipe, short_text, **options):
    """Return the weights after pruning, and the report; the model gets its own back."""
    with weights_kept(lm):
        report = prune(lm, recipe, short_text, progress=False, **options)
        return weights_of(lm), report


def test_a_function_leaves_out_what_it_returns(tiny_dlm, short_text):
    recipe = Recipe(propagation="dense", exclude=first_half, **NOISED)
    _, report = pruned(tiny_dlm, recipe, short_text)
    assert report.left_out_share == 0.5
    rows = rows_for(tiny_dlm, short_text, recipe.statistics_key, progress=False)
    assert rows.weight_RT.tolist() == [[0.0] * 6 + [1.0] * 6] * 10


@pytest.mark.parametrize(
    ("function", "name"), [(sinks_above_the_threshold, "all"), (sinks_that_move, "unstable")]
)
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_a_function_prunes_as_the_named_choice_that_it_equals(
    tiny_dlm, short_text, function, name, criterion, propagation
):
    named = Recipe(criterion, propagation=propagation, exclude=name, **NOISED)
    own = dataclasses.replace(named, exclude=function)

    expected, report = pruned(tiny_dlm, named, short_text)
    found, own_report = pruned(tiny_dlm, own, short_text)

    assert same(found, expected)
    assert own_report.left_out_share == report.left_out_share > 0


def test_a_report_names_the_function(tiny_dlm, short_text):
    recipe = Recipe(exclude=first_half, **NOISED)
    assert recipe.name == "wanda noised sequential first_half"
    _, report = pruned(tiny_dlm, recipe, short_text)
    card = json.loads(json.dumps(report.card()))
    assert card["recipe"]["exclude"] == f"{__name__}.first_half"
    assert card["recipe"] == {**as_settings(recipe), "exclude": f"{__name__}.first_half"}


def test_equal_functions_share_statistics_and_others_do_not(tiny_dlm, short_text):
    recipe = Recipe(propagation="dense", exclude=first_half, **NOISED)
    recipes = [
        recipe,
        dataclasses.replace(recipe, sparsity=0.7),
        dataclasses.replace(recipe, exclude=sinks_that_move),
    ]

    keys = [each.statistics_key for each in recipes]
    assert keys[0] == keys[1] != keys[2]

    found = dense_statistics(tiny_dlm, recipes, short_text, progress=False)
    assert set(found) == set(keys)

    shared, _ = pruned(tiny_dlm, recipes[1], short_text, statistics=found[keys[1]])
    assert same(shared, pruned(tiny_dlm, recipes[1], short_text)[0])


@pytest.mark.parametrize("field", ["exclude", "criterion"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_is_refused_beside_a_work_folder_before_any_work(
    tiny_dlm, short_text, tmp_path, field, streamed
):
    """Two functions of one name would take each other's files."""
    lm = tiny_dlm
    if streamed:
        saved = save(tiny_dlm, tmp_path / "saved")
        lm = stream(open_checkpoint(saved), "streamed", torch.float32)

    recipe = Recipe(**{field: first_half}, **NOISED)
    with pytest.raises(ValueError, match=rf"{field}=.*first_half.* leave out work=.* has a name"):
        prune(lm, recipe, short_text, progress=False, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def above_the_mean_over_sequences(context):
    """A threshold over all that the context holds: it would show how many sequences these are."""
    mass_NST = context.profile_NST
    spread = mass_NST.std((0, 2), keepdim=True)
    return mass_NST > mass_NST.mean((0, 2), keepdim=True) + 1.5 * spread


def test_the_context_is_the_same_in_a_dense_pass_and_block_by_block(tiny_dlm, short_text):
    """N is 1 for each."""
    shares = set()
    for propagation in ("dense", "sequential"):
        recipe = Recipe(propagation=propagation, exclude=above_the_mean_over_sequences, **NOISED)
        _, report = pruned(tiny_dlm, recipe, short_text)
        shares.add(report.left_out_share)

    assert len(shares) == 1 and 0 < shares.pop() < 1


def spoiling(context):
    context.profile_NST.zero_()
    context.visible_ST.zero_()
    return torch.zeros_like(context.profile_NST)


def test_a_function_that_changes_its_context_changes_no_other_recipe(tiny_dlm, short_text):
    recipe = Recipe(propagation="dense", **NOISED)
    others = [dataclasses.replace(recipe, exclude=name) for name in ("all", "unstable", "random")]

    beside = []
    for function in (spoiling, first_half):
        recipes = [dataclasses.replace(recipe, exclude=function), *others]
        beside.append(dense_statistics(tiny_dlm, recipes, short_text, progress=False))

    for key in (other.statistics_key for other in others):
        one, other = (statistics[key] for statistics in beside)
        assert one.left_out_share == other.left_out_share > 0
        for ours, theirs in zip(one.layers, other.layers, strict=True):
            assert all(torch.equal(ours[name].norm_I, theirs[name].norm_I) for name in ours)


@pytest.mark.parametrize("wrong", [3, None, print, [first_half]])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^exclude=.*a function"):
        Recipe(exclude=wrong)


@dataclasses.dataclass
class Changeable:
    share: float = 0.5

    def __call__(self, context):
        return context.profile_NST * 0 + self.share


@pytest.mark.parametrize("field", ["exclude", "criterion"])
def test_a_dataclass_that_can_be_changed_and_a_class_itself_are_refused(field):
    for wrong in (Changeable(), Changeable):
        with pytest.raises(ValueError, match=rf"^{field}=.*@dataclass\(frozen=True\)"):
            Recipe(**{field: wrong})


WRONG = {
    "too much": lambda profile_NST: profile_NST * 0 + 1.5,
    "too little": lambda profile_NST: profile_NST * 0 - 0.1,
    "no number": lambda profile_NST: profile_NST * torch.nan,
    "another shape": lambda profile_NST: profile_NST[:, 0] * 0,
    "nothing": lambda profile_NST: None,
    "a list": lambda profile_NST: profile_NST.tolist(),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_a_function_that_returns_no_shares_is_refused(tiny_dlm, make_ids, name, propagation):
    def wrong(context):
        return WRONG[name](context.profile_NST)

    before = weights_of(tiny_dlm)
    said = r"wrong' must leave out a share in \[0, 1\] of every token, a tensor of shape"
    recipe = Recipe(propagation=propagation, exclude=wrong, **NOISED)
    with pytest.raises(ValueError, match=said):
        prune(tiny_dlm, recipe, Calibration(make_ids(3, 12)), progress=False)
    assert same(weights_of(tiny_dlm), before)
