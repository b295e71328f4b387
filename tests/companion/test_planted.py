"""A planted effect: dividing all other inputs is the same as multiplying those at the sinks."""

from dataclasses import dataclass, replace

import pytest
import torch

from sinkprune_companion.experiments.planted import (
    Planted,
    by_method,
    planted_choices,
    planted_recipe,
    taken_norms,
    with_dose,
)
from sinkprune_core import Calibration, prune, weights_kept
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.token_weights import SinkContext, heads_of
from sinkprune_core.pruning.diagnosis import ALL_TOKENS, OTHER_TEXT
from sinkprune_core.pruning.engine import dense_statistics

LEVELS = 8  # of the experiment's recipes


@pytest.fixture
def lm(make_anchored_lm):
    return make_anchored_lm("diffusion")


@pytest.fixture
def text(make_text_with_separators) -> Calibration:
    return make_text_with_separators(4)


@pytest.fixture
def context(lm, text):
    key = planted_recipe("none", 0.5).statistics_key
    return SinkContext(*sink_profiles(lm, text, LEVELS, progress=False), key, heads_of(lm), text.seed)


def masks(lm, recipe, text) -> dict[tuple[int, str], torch.Tensor]:
    with weights_kept(lm):
        prune(lm, recipe, text, progress=False)
        return {place: linear.weight != 0 for place, linear in lm.all_linears().items()}


def test_sinks_count_so_many_times_as_much_as_other_tokens(context):
    out_NST = Planted(10.0)(context)
    weight_NST = 1 - out_NST
    assert torch.allclose(weight_NST[context.sinks_NST], torch.tensor(1.0))
    assert torch.allclose(weight_NST[~context.sinks_NST], torch.tensor(0.1))
    assert bool(context.sinks_NST.any())


def test_as_many_random_tokens_are_planted_as_there_are_sinks(context):
    weight_NST = 1 - Planted(10.0, "random")(context)
    is_planted_NST = weight_NST > 0.5
    assert torch.equal(is_planted_NST.sum(-1), context.sinks_NST.sum(-1))


def test_a_dose_of_one_prunes_what_no_dose_prunes(lm, text):
    none = masks(lm, planted_recipe("none", 0.5), text)
    once = masks(lm, planted_recipe(Planted(1.0), 0.5), text)
    assert all(torch.equal(none[place], once[place]) for place in none)


def test_a_larger_dose_changes_more_of_the_mask(lm, text):
    none = masks(lm, planted_recipe("none", 0.5), text)
    changed = []
    for dose in (3.0, 100.0):
        planted = masks(lm, planted_recipe(Planted(dose), 0.5), text)
        changed.append(sum(int((none[place] & ~planted[place]).sum()) for place in none))
    assert 0 < changed[0] < changed[1]


def test_official_weights_multiply_what_is_planted(context):
    from sinkprune_core.calibration.token_weights import EXCLUDE

    weight_NST = 1 - Planted(10.0, official=True)(context)
    kept_NST = 1 - EXCLUDE["official"].function(context)
    assert torch.allclose(weight_NST[context.sinks_NST], kept_NST[context.sinks_NST])
    assert torch.allclose(weight_NST[~context.sinks_NST], 0.1 * kept_NST[~context.sinks_NST])


@pytest.mark.parametrize(
    ("fields", "names"), [({"dose": 0.5}, "dose=0.5"), ({"dose": 2.0, "place": "x"}, "place='x'")]
)
def test_what_cannot_be_planted_is_one_sentence(fields, names):
    with pytest.raises(ValueError, match=names):
        Planted(**fields)


def test_every_dose_is_compared_with_a_model_without_the_tokens():
    assert list(planted_choices((1.0, 3.0))) == [
        "all, left out",
        "all, kept, 1",
        "all, kept, 3",
        "random, left out",
        "random, kept, 1",
        "random, kept, 3",
        "all, official weights, 1",
        "all, official weights, 3",
    ]


def test_norms_that_are_foreseen_are_those_that_the_planted_choice_gives(lm, text):
    """Up to one factor, by which all other inputs were divided instead."""
    dose = 10.0
    planted = with_dose(taken_norms(lm, text), dose)

    halves = {ALL_TOKENS: (0, 1), OTHER_TEXT: (2, 3)}
    for part, half in halves.items():
        recipe = planted_recipe(Planted(dose), 0.5)
        only = replace(recipe, exclude=Half(half, Planted(dose)))
        taken = dense_statistics(lm, [only], text, progress=False)[only.statistics_key]
        for layer, of_layer in enumerate(planted.by_part[part]):
            for name, norm_I in of_layer.items():
                assert torch.allclose(norm_I, dose * taken.layers[layer][name].norm_I, rtol=1e-3)


@dataclass(frozen=True)
class Half:
    """A choice of tokens on some sequences; the others are left out."""

    sequences: tuple[int, ...]
    choice: Planted

    def __call__(self, context: SinkContext) -> torch.Tensor:
        out_NST = self.choice(context)
        for number in range(len(out_NST)):
            if context.first_sequence + number not in self.sequences:
                out_NST[number] = 1.0
        return out_NST


def test_findings_are_drawn_by_method_and_dose_without_those_that_were_not_measured():
    gains = {"planted_gain_x3_50": "a", "planted_gain_x30_50": "b", "planted_gain_x3_75": "c"}
    gains |= {"planted_sparsegpt_gain_x30_50": "d", "planted_sparsegpt_random_gain_x30_50": "e"}

    found = by_method(gains, 0.5)

    assert found["Wanda"] == {"planted_gain": {3.0: "a", 30.0: "b"}}
    assert list(found["SparseGPT"]) == ["planted_sparsegpt_gain", "planted_sparsegpt_random_gain"]
    assert by_method(gains, 0.75) == {"Wanda": {"planted_gain": {3.0: "c"}}}
