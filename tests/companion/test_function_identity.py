"""What a user's function is known by in the key of a record: its code and all that it reads."""

import functools
import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from sinkprune_companion.run.function_identity import function_digest


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
    identities = {function_digest(held(value)) for value in (one, other)}
    assert len(identities) == 2
    assert function_digest(held(one)) in identities

    def default(context, value=one, *, more=None):
        return context

    former = function_digest(default)
    default.__defaults__ = (other,)
    assert function_digest(default) != former
    default.__defaults__ = (one,)
    assert function_digest(default) == former
    default.__kwdefaults__ = {"more": other}
    assert function_digest(default) != former


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
    former = function_digest(function)
    monkeypatch.setitem(globals(), "STEP", 0.25)
    assert function_digest(function) != former


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
        function_digest(function)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
