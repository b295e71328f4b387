"""Views of a trace say what the trace says: texts and sinks exactly, attention within half a level."""

import itertools
import json
import math

import pytest
import torch

from sinkprune_companion.figures import step_views
from sinkprune_companion.run import records
from sinkprune_companion.run.records import Run
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.trace import Trace, trace

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
    view = step_views.view(lm, one, 1, "a model")
    for state, ids in zip(states_of(view), one.ids_BSK[1].tolist(), strict=True):
        tokens = [None if number == step_views.MASK else view["tokens"][number] for number in state]
        assert tokens == [None if id == lm.mask_token_id else lm.tokenizer.decode([id]) for id in ids]
    assert view["visible"] == one.visible_SK.sum(1).tolist()


def test_attention_comes_back_within_half_a_level_and_sinks_exactly(traced):
    lm, one = traced
    view = step_views.view(lm, one, 0, "a model", sink_std=1.0, layers=True)
    length = one.final_BK.shape[1]
    assert [layer["name"] for layer in view["layers"]] == [step_views.MEAN, "layer 1", "layer 2", "layer 3"]
    expected = [one.mass_BSK[0], *one.mass_BSLK[0].unbind(1)]
    for layer, mass_SK in zip(view["layers"], expected, strict=True):
        shown = mass_of(layer, length).view_as(mass_SK)
        seen = one.visible_SK & (mass_SK > step_views.LEAST)
        off = (shown / mass_SK).log().abs()[seen]
        levels = len(step_views.LETTERS) - 1
        assert len(off) and off.max() <= math.log(length / step_views.LEAST) / levels / 2 + 1e-4
    sinks = [keys.nonzero().flatten().tolist() for keys in one.sinks(1.0)[0]]
    assert view["layers"][0]["sinks"] == sinks and any(sinks)


@pytest.mark.parametrize("steps", [1, 2, 23, 24, 25, 48, 100])
def test_long_trajectories_are_thinned_evenly_with_their_ends(steps):
    shown = step_views.shown_steps(steps)
    apart = {after - before for before, after in itertools.pairwise(shown)}
    assert len(shown) == min(steps, step_views.STEPS) and shown[0] == 0 and shown[-1] == steps - 1
    assert not apart or max(apart) - min(apart) <= 1


def test_a_page_shows_no_token_as_markup_and_is_the_same_to_the_byte(traced, tmp_path, monkeypatch):
    lm, one = traced
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    run = Run("01_test", "p", {"seed": 0})
    views = step_views.views([(lm, one)], 2)
    views[0]["tokens"][0] = "</script><b>"
    shown = step_views.data(views, SAMPLER.steps, pick=True)
    written = []
    for _ in range(2):
        step_views.save_slider(run, "writing", "A & B", shown)
        step_views.save_explorer(run, "explorer", "all of it", shown)
        folder = tmp_path / "runs" / "p" / "figures" / "01_test"
        written.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert written[0] == written[1]
    assert set(written[0]) == {"writing.html", "explorer.json", "explorer_steps.json"}
    page = written[0]["writing.html"].decode()
    assert page.count("</script>") == 1 and "<b>" not in page and "<title>A &amp; B</title>" in page
    assert "http" not in page, "a page that needs no network"
    assert json.loads(written[0]["explorer_steps.json"]) == json.loads(json.dumps(shown))
    assert json.loads(written[0]["explorer.json"])["caption"] == "all of it"


def test_views_of_different_lengths_are_refused(traced, make_ids):
    lm, one = traced
    longer = trace(lm, make_ids(1, PROMPT + 1), SAMPLER, progress=False)
    views = [step_views.view(lm, each, 0, "a model") for each in (one, longer)]
    with pytest.raises(ValueError, match=r"views have \[19, 20\] tokens"):
        step_views.data(views, SAMPLER.steps)


def test_two_models_of_full_size_fit_into_300_kilobytes():
    """By the size of what a slider of notebook 01 holds: 24 steps of 128 tokens, two models."""
    generator = torch.Generator().manual_seed(0)
    steps, keys, layers = 48, 160, 2
    ids = torch.arange(keys).expand(1, steps, keys).clone()
    mass = torch.rand(1, steps, layers, keys, generator=generator)
    one = Trace(
        ids,
        ids[:, -1],
        mass,
        torch.zeros(1, layers, keys),
        mass.mean(1)[:, :, None],
        torch.tensor([(0, keys)] * steps),
        32,
        causal=False,
    )

    class Words:
        mask_token_id = None

        class tokenizer:
            @staticmethod
            def decode(ids):
                return " ".join(f"token{number}" for number in ids)

    views = [step_views.view(Words, one, 0, name) for name in ("one", "two")]
    assert len(step_views.page("writing", "title", step_views.data(views, steps))) < 300_000
