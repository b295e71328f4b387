"""Views of a trace say what the trace says: texts and sinks exactly, attention within half a level."""

import math

import pytest
import torch

from sinkprune_companion.figures import step_views
from sinkprune_core import Sampler, trace

SAMPLER = Sampler(length=14, steps=7, block=None)
PROMPT = 5


@pytest.fixture(scope="module", params=["diffusion", "autoregressive"])
def traced(request, make_lm, make_ids) -> tuple:
    lm = make_lm(request.param)
    return lm, trace(lm, make_ids(2, PROMPT), SAMPLER, progress=False)


def states_of(view: dict) -> list[list[int]]:
    """Return what stands at every position at every step, as the page replays it."""
    states = [view["first"]]
    for change in view["changes"]:
        state = list(states[-1])
        for position, token in change:
            state[position] = token
        states.append(state)
    return states


def mass_of(layer: dict, most: float) -> torch.Tensor:
    """Return the attention that the letters of a layer stand for."""
    levels = torch.tensor([step_views.LETTERS.index(letter) for letter in layer["mass"]])
    return step_views.LEAST * (most / step_views.LEAST) ** (levels / (len(step_views.LETTERS) - 1))


def test_every_text_of_the_trajectory_comes_back(traced):
    lm, one = traced
    view = step_views.view(lm, one, 1)
    for state, ids in zip(states_of(view), one.ids_BSK[1].tolist(), strict=True):
        tokens = [None if number == step_views.MASK else view["tokens"][number] for number in state]
        assert tokens == [None if id == lm.mask_token_id else lm.tokenizer.decode([id]) for id in ids]
    assert view["visible"] == one.visible_SK.sum(1).tolist()


def test_attention_comes_back_within_half_a_level_and_sinks_exactly(traced):
    lm, one = traced
    view = step_views.view(lm, one, 0, sink_std=1.0, layers=True)
    length = one.final_BK.shape[1]

    assert [layer["name"] for layer in view["layers"]] == [step_views.MEAN, "layer 0", "layer 1", "layer 2"]

    expected = [one.mass_BSK[0], *one.mass_BSLK[0].unbind(1)]
    for layer, mass_SK in zip(view["layers"], expected, strict=True):
        shown = mass_of(layer, length).view_as(mass_SK)
        seen = one.visible_SK & (mass_SK > step_views.LEAST)
        off = (shown / mass_SK).log().abs()[seen]
        levels = len(step_views.LETTERS) - 1
        assert len(off) and off.max() <= math.log(length / step_views.LEAST) / levels / 2 + 1e-4

    sinks = [keys.nonzero().flatten().tolist() for keys in one.sinks(1.0)[0]]
    assert view["layers"][0]["sinks"] == sinks and any(sinks)


def test_a_page_shows_no_token_as_markup_and_needs_no_network(traced):
    lm, one = traced
    views = step_views.views([(lm, one)], 2)
    views[0]["tokens"][0] = "</script><b>"
    page = step_views.page("writing", "A & B", step_views.data(views, SAMPLER.steps, pick=True))
    assert page.count("</script>") == 1 and "<b>" not in page and "<title>A &amp; B</title>" in page
    assert "http" not in page
