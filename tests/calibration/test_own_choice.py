"""A user's own choice of calibration tokens: `Recipe(exclude=function)`."""

import dataclasses
import functools
import math
import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from naive import same, weights_of

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import choice_identity
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.loading import open_checkpoint
from sinkprune_core.models.streaming import stream
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


# its identity


def make_choice(share, offset=0):
    def choice(context, step=1):
        return torch.full_like(context.profile_NST, share + offset * step)

    return choice


def held(value):
    """Return a function that closes over a value."""
    return lambda context: (value, context)[1]


LARGE = np.ones(2000)
LARGE[20:140] = 0
PAIRS = {
    "large arrays": (np.ones(2000), LARGE),
    "dtypes": (torch.zeros(4), torch.zeros(4, dtype=torch.float64)),
    "bfloat16": (torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()),
    "dictionaries of tensors": ({"a": torch.ones(2000)}, {"a": torch.from_numpy(LARGE).float()}),
    "the last bit": (0.1, math.nextafter(0.1, 1)),
    "signs of zero": (0.0, -0.0),
    "int and bool": (1, True),
    "borders of items": (["ab", "c"], ["a", "bc"]),
    "partial": (functools.partial(max, 1), functools.partial(max, 2)),
    "functions": (make_choice(0.25), make_choice(0.5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_identity_covers_what_a_function_closes_over_to_the_last_bit(name):
    one, other = PAIRS[name]
    identities = {choice_identity(held(value)) for value in (one, other)}
    assert len(identities) == 2
    assert choice_identity(held(one)) in identities

    def default(context, value=one, *, more=None):
        return context

    former = choice_identity(default)
    default.__defaults__ = (other,)
    assert choice_identity(default) != former
    default.__defaults__ = (one,)
    assert choice_identity(default) == former
    default.__kwdefaults__ = {"more": other}
    assert choice_identity(default) != former


STEP = 0.5
MUTABLE = [0.25]


def helper(context):
    return context.profile_NST * STEP


def by_helper(context):
    return [helper(part) for part in [context]]


def by_inner_function(context):
    return (lambda: STEP)()


def by_list(context):
    return context.profile_NST * MUTABLE[0]


@pytest.mark.parametrize("function", [by_helper, by_inner_function])
def test_an_identity_follows_the_functions_that_a_function_calls(function, monkeypatch):
    former = choice_identity(function)
    monkeypatch.setitem(globals(), "STEP", 0.25)
    assert choice_identity(function) != former


class Mine:
    """A class of the user's own."""


MODULE = ModuleType("of_the_user")


def by_module(context):
    return MODULE.share


def by_import(context):
    import naive  # a module of no package

    return naive


def deep(levels: int) -> list:
    found: list = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            by_list,
            "MUTABLE is a global list, which may change meanwhile; pass plain values, tensors or arrays",
        ),
        (by_module, "MODULE is a module"),
        (by_import, "naive is the module naive"),
        (held(sys.stdout), "value is a "),
        (held(Mine()), "value is a Mine"),
        (held(torch.nn.Linear(1, 1)), "value is a Linear"),
        (held(np.array([Mine()])), "value is an array of objects"),
        (held(torch.zeros(2, device="meta")), "value is a torch.strided tensor on meta"),
        (held(deep(100_000)), "one of its values is nested too deeply"),
    ],
)
def test_what_has_no_identity_is_refused_where_something_would_be_kept(function, said):
    with pytest.raises(ValueError, match="cannot be told from other functions") as error:
        choice_identity(function)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_identity_is_the_same_in_another_process(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from sinkprune_core.calibration.token_weights import choice_identity\n"
        "import numpy as np, torch\n"
        "def choice(context, words=frozenset({'a', 'bc', 'def'}), scale=np.float32(0.1)):\n"
        "    return torch.sigmoid(context.profile_NST) if context.seed in {1, 5, 99} else np.tanh(scale)\n"
        "print(choice_identity(choice))\n"
    )
    printed = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, file], env=environment, capture_output=True, text=True)
        printed.append(done.stdout)
    assert printed[0] == printed[1] and printed[0].startswith("__main__.choice:")


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


# what it gets


def above_the_mean_over_sequences(context):
    """A threshold over all that the context holds: it would show how many sequences these are."""
    mass_NST = context.profile_NST
    spread = mass_NST.std((0, 2), keepdim=True)
    return mass_NST > mass_NST.mean((0, 2), keepdim=True) + 1.5 * spread


def test_the_context_is_the_same_wherever_the_model_lies(tiny_dlm, calibration, tmp_path):
    """In memory, streamed and sequential; N is 1 for each."""
    saved = tiny_dlm.save(tmp_path / "saved")
    recipe = Recipe(propagation="dense", exclude=above_the_mean_over_sequences, **NOISED)
    shares = {}
    weights = {}
    for propagation in ("dense", "sequential"):
        here = dataclasses.replace(recipe, propagation=propagation)
        weights[propagation], report = pruned(tiny_dlm, here, calibration)
        shares[propagation] = report.left_out_share
        lm = stream(open_checkpoint(saved), "streamed", torch.float32)
        report = prune(lm, here, calibration, progress=False, work=tmp_path / f"work-{propagation}")
        shares[propagation, "streamed"] = report.left_out_share
        for layer in range(len(lm.blocks)):
            with lm.resident(layer) as block:
                for name, linear in lm.linears(block).items():
                    expected = weights[propagation][f"model.layers.{layer}.{name}.weight"]
                    assert torch.equal(linear.weight, expected), (layer, name)
    assert len(set(shares.values())) == 1 and 0 < shares["dense"] < 1


def spoiling(context):
    context.profile_NST.zero_()
    context.visible_ST.zero_()
    return torch.zeros_like(context.profile_NST)


def test_a_function_that_changes_its_context_changes_no_other_recipe(tiny_dlm, calibration):
    """They share one pass over the text."""
    recipe = Recipe(propagation="dense", **NOISED)
    others = [dataclasses.replace(recipe, exclude=name) for name in ("all", "unstable", "random")]
    beside = []
    for function in (spoiling, first_half):
        recipes = [dataclasses.replace(recipe, exclude=function), *others]
        beside.append(dense_statistics(tiny_dlm, recipes, calibration, progress=False))
    for key in (other.statistics_key for other in others):
        one, other = (statistics[key] for statistics in beside)
        assert one.left_out_share == other.left_out_share > 0
        for ours, theirs in zip(one.layers, other.layers, strict=True):
            assert all(torch.equal(ours[name].norm_I, theirs[name].norm_I) for name in ours)


# what it returns


def too_much(context):
    return context.profile_NST * 0 + 1.5


def no_number(context):
    return context.profile_NST * torch.nan


def complex_numbers(context):
    return torch.zeros_like(context.profile_NST, dtype=torch.complex64)


def sparse(context):
    return torch.zeros_like(context.profile_NST).to_sparse()


def without_numbers(context):
    return torch.zeros_like(context.profile_NST, device="meta")


WRONG = [too_much, no_number, complex_numbers, sparse, without_numbers]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_a_function_that_returns_no_shares_is_refused(tiny_dlm, make_ids, wrong, propagation):
    before = weights_of(tiny_dlm)
    said = rf"{wrong.__name__}' must leave out a share in \[0, 1\] of every token, a dense tensor of shape"
    recipe = Recipe(propagation=propagation, exclude=wrong, **NOISED)
    with pytest.raises(ValueError, match=said):
        prune(tiny_dlm, recipe, Calibration(make_ids(3, 12)), progress=False)
    assert same(weights_of(tiny_dlm), before)
