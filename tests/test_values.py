"""Values from outside: one mechanism checks types and ranges, and says in one line what is allowed."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sinkprune_core import Calibration, Recipe, Sampler, generate, nelbo, nll, prune, score, trace
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.evaluation.conditional_likelihood import log_likelihood
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.evaluation.two_choice import accuracy
from sinkprune_core.values import AboveZero, Count, Number, Share, Whole, check_fields, checked_arguments

IDS = torch.full((2, 8), 20)
NO_COUNT = (0, -1, 1.5, 1.0, True, "1", None, [1], np.float64(2), math.nan, math.inf)
NO_AMOUNT = (-1, -0.5, math.nan, math.inf, -math.inf, "2", None, True, [1.0], 1j)
WHOLE_FIELDS = {
    Recipe: ("noise_levels", "block_size"),
    Sampler: ("length", "steps"),
    Protocol: ("draws", "grid"),
    Calibration: ("batch",),
}
REAL_FIELDS = {
    Recipe: ("sparsity", "sink_std", "stability_threshold", "owl_lambda", "owl_m", "damping"),
    Sampler: ("temperature", "order_temperature", "guidance"),
    Protocol: ("guidance",),
}
CALLS = {
    nelbo: ("draws", "batch", "first_scored"),
    nll: ("batch", "first_scored"),
    score: ("draws", "batch"),
    trace: ("batch",),
    accuracy: ("draws", "batch"),
    log_likelihood: ("batch",),
}


def made(cls, **fields):
    return cls(IDS, **fields) if cls is Calibration else cls(**fields)


def refused(name: str, make) -> str:
    """Return the sentence with which a value is refused; it begins with its name."""
    with pytest.raises(ValueError, match=rf"^{name}=") as error:
        make()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return str(error.value)


def fields_of(table: dict) -> list[tuple]:
    return [(cls, name) for cls, names in table.items() for name in names]


@pytest.mark.parametrize(("cls", "name"), fields_of(WHOLE_FIELDS))
@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_a_field_that_is_no_count_is_refused(cls, name, value):
    said = refused(name, lambda: made(cls, **{name: value}))
    assert said.endswith("must be a whole number of at least 1")


@pytest.mark.parametrize(("cls", "name"), fields_of(REAL_FIELDS))
@pytest.mark.parametrize("value", NO_AMOUNT, ids=repr)
def test_a_field_that_is_no_amount_is_refused(cls, name, value):
    assert "must be a" in refused(name, lambda: made(cls, **{name: value}))


@pytest.mark.parametrize(("function", "name"), fields_of(CALLS))
@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_an_argument_that_is_no_count_is_refused_before_any_work(tiny_dlm, tiny_ar, function, name, value):
    lm = tiny_ar if function is nll else tiny_dlm
    refused(name, lambda: function(lm, IDS, **{name: value}))


def test_arguments_of_sampling_are_checked(tiny_dlm, tiny_ar):
    refused("seed", lambda: generate(tiny_dlm, IDS, Sampler(4, 2, None), seed=1.5))
    refused("sampler", lambda: generate(tiny_dlm, IDS, "llada"))
    refused("length", lambda: decode(tiny_ar, IDS, 2.5))
    refused("temperature", lambda: decode(tiny_ar, IDS, 2, temperature=math.nan))


def test_arguments_of_pruning_are_checked(tiny_dlm):
    assert refused("lm", lambda: prune("smol-dlm", Recipe())) == "lm='smol-dlm' must be a LanguageModel"
    assert refused("recipe", lambda: prune(tiny_dlm, "wanda")) == "recipe='wanda' must be a Recipe"
    said = refused("calibration", lambda: prune(tiny_dlm, Recipe(), IDS))
    assert said == "calibration=a tensor of torch.int64 must be a Calibration or None"


def test_a_number_of_another_type_becomes_a_float_and_settings_stay_equal():
    assert Recipe(sparsity=0, sink_std=2) == Recipe(sparsity=0.0)
    assert repr(Recipe(sink_std=2).sink_std) == "2.0"
    for half in (np.float64(0.5), np.float32(0.5), torch.tensor(0.5)):
        recipe = Recipe(sparsity=half)
        assert type(recipe.sparsity) is float and recipe == Recipe(sparsity=0.5)


@dataclass(frozen=True)
class Settings:
    share: Share = 0.5
    count: Count | None = None
    free: list = None

    def __post_init__(self):
        check_fields(self)


def test_only_annotated_kinds_are_checked_and_none_where_it_is_allowed():
    assert Settings(1, None, "anything") == Settings(1.0, free="anything")
    assert refused("count", lambda: Settings(count=0)).endswith("a whole number of at least 1 or None")
    assert refused("share", lambda: Settings(share="x" * 100)).startswith("share=a str must be")


def test_a_function_gets_what_was_checked_and_its_defaults_stay():
    @checked_arguments
    def function(first: AboveZero, *rest: object, second: Number = 3, third: Whole | None = None):
        return first, rest, second, third

    assert function(2, "a", "b") == (2.0, ("a", "b"), 3, None)
    assert function(2, third=-1, second=0) == (2.0, (), 0, -1)
    with pytest.raises(TypeError, match="missing a required argument"):
        function()
    refused("second", lambda: function(1.0, second=-1))
