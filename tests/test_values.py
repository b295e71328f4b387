"""Values from outside: one mechanism checks types and ranges, and says in one line what is allowed."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from sinkprune import nelbo, nll, score
from sinkprune.evaluation.conditional_likelihood import log_likelihood, perplexity
from sinkprune.evaluation.protocols import Protocol
from sinkprune.evaluation.two_choice import accuracy
from sinkprune_companion.training.settings import Training
from sinkprune_core import Calibration, Recipe, Sampler, generate, prune, trace
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.values import (
    AboveZero,
    AtLeastZero,
    Count,
    Number,
    PositiveShare,
    Share,
    Sparsity,
    Whole,
    check_fields,
    checked,
    checked_arguments,
)

IDS = torch.full((2, 8), 20)
NO_NUMBER = ("1", None, True, [1], {}, b"1", 1j, object(), math.nan, math.inf, -math.inf, -(10**30))
OUTSIDE = {  # numbers that a kind does not take either
    Count: (0, -1, 1.5, 1.0, np.float64(2)),
    Number: (-1, 0.5),
    AtLeastZero: (-1, -0.5),
    AboveZero: (0, -0.5),
    Share: (-0.1, 1.1),
    PositiveShare: (0, 1.1),
    Sparsity: (-0.1, 1),
}
FIELDS = {  # fields with a range, each with a number outside
    Recipe: {"noise_levels": 0, "block_size": 0, "sparsity": 1, "sink_std": -0.5, "stability_threshold": 1.1}
    | {"owl_lambda": -0.5, "owl_m": 0, "damping": -0.5, "alpha": 0},
    Sampler: {"length": 0, "steps": 0, "block": -32, "temperature": -1, "top_p": 2, "top_k": 0}
    | {"guidance": -1},
    Protocol: {"draws": 0, "grid": 0, "chunk": 0, "context": 0, "guidance": -1},
    Calibration: {"batch": 0},
    Training: {"tokens": 0, "learning_rate": 0, "decay_share": 1.1, "lengths": (), "kind": "x"},
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


def refused(name: str, make, error: type[Exception] = ValueError) -> str:
    """Return the sentence with which a value is refused; it begins with its name."""
    with pytest.raises(error, match=rf"^{name}=") as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


def pairs_of(table: dict) -> list[tuple]:
    return [(owner, part) for owner, parts in table.items() for part in parts]


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_kind_refuses_what_is_of_no_type_or_out_of_its_range(kind):
    for value in (*NO_NUMBER, *OUTSIDE[kind]):
        refused("x", lambda value=value: checked("x", value, kind))


@pytest.mark.parametrize(("cls", "name"), pairs_of(FIELDS))
def test_a_field_refuses_what_is_out_of_its_range(cls, name):
    refused(name, lambda: made(cls, **{name: FIELDS[cls][name]}))


@pytest.mark.parametrize("cls", [Recipe, Sampler, Protocol])
def test_no_field_takes_what_is_of_no_type(cls):
    for field in dataclasses.fields(cls):
        for value in (b"1", [1], {}, 1j, object(), -(10**30)):
            refused(field.name, lambda name=field.name, value=value: cls(**{name: value}))


@pytest.mark.parametrize("ids", [IDS[:, :1], IDS[:0], IDS[:, :0], IDS[0]], ids=lambda ids: str([*ids.shape]))
def test_ids_that_are_no_text_are_refused(tiny_dlm, ids):
    for use in (Calibration, partial(nelbo, tiny_dlm)):
        with pytest.raises(ValueError, match="ids"):
            use(ids)


@pytest.mark.parametrize(("function", "name"), pairs_of(CALLS))
@pytest.mark.parametrize("value", [0, 1.5, "1"])
def test_an_argument_that_is_no_count_is_refused_before_any_work(tiny_dlm, tiny_ar, function, name, value):
    lm = tiny_ar if function is nll else tiny_dlm
    refused(name, lambda: function(lm, IDS, **{name: value}))


def test_arguments_of_sampling_are_checked(tiny_dlm, tiny_ar):
    refused("seed", lambda: generate(tiny_dlm, IDS, Sampler(4, 2, None), seed=1.5))
    refused("sampler", lambda: generate(tiny_dlm, IDS, "llada"), TypeError)
    refused("length", lambda: decode(tiny_ar, IDS, 2.5))
    refused("temperature", lambda: decode(tiny_ar, IDS, 2, temperature=math.nan))


def test_arguments_of_pruning_are_checked(tiny_dlm):
    assert "LanguageModel" in refused("lm", lambda: prune("smol-dlm", Recipe()), TypeError)
    assert "Recipe" in refused("recipe", lambda: prune(tiny_dlm, "wanda"), TypeError)
    assert "Calibration" in refused("calibration", lambda: prune(tiny_dlm, Recipe(), IDS), TypeError)


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
    assert refused("count", lambda: Settings(count=0)).endswith("greater than or equal to 1")
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


def test_numbers_of_numpy_count_as_those_of_python():
    assert checked("batch", np.int64(2), Count) == 2
    assert checked("share", np.float32(0.5), Share) == 0.5
    assert refused("batch", lambda: checked("batch", np.float64(2), Count))


@pytest.mark.parametrize(
    "use", [nelbo, nll, score, accuracy, log_likelihood, perplexity, trace, generate, decode]
)
def test_a_model_of_transformers_is_asked_to_be_wrapped(tiny_dlm, use):
    """`lm` is checked wherever one is given."""
    more = {decode: (2,), accuracy: ([],), log_likelihood: ([],), perplexity: (IDS[0],)}.get(use, ())
    ids = () if use in (accuracy, log_likelihood, perplexity) else (IDS,)
    given = (tiny_dlm.model, *ids, *more)
    assert "LanguageModel" in refused("lm", lambda: use(*given), TypeError)
