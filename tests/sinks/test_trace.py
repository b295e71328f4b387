"""Traces: the attention of every state that generation visits, for any batch, and kept on disk."""

import dataclasses

import pytest
import torch

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune.trace_files import load_trace, save_trace
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.sinks.attention import track
from sinkprune_core.sinks.trace import Trace, query_windows, trace

KINDS = ("autoregressive", "diffusion")
PROMPT, LENGTH = 5, 19
SAMPLER = Sampler(length=14, steps=4, block=None)
FIELDS = [field.name for field in dataclasses.fields(Trace)]


def traced(lm, prompt_BT, sampler=SAMPLER, **options) -> Trace:
    return trace(lm, prompt_BT, sampler, progress=False, **options)


def mass_of(lm, ids_BT, windows=None) -> torch.Tensor:
    """Return attention mass, (B, L, H, S, K)."""
    with track(lm.model, windows) as tracker:
        lm.hidden(ids_BT)
        return tracker.take()


@pytest.mark.parametrize("kind", KINDS)
def test_the_mass_of_visible_keys_is_1_on_average_and_heads_are_its_mean_over_steps(make_lm, make_ids, kind):
    result = traced(make_lm(kind), make_ids(3, PROMPT))
    visible_SK = result.visible_SK
    assert (result.mass_BSK * ~visible_SK == 0).all(), "a key that does not exist receives nothing"
    mean_BS = result.mass_BSK.sum(-1) / visible_SK.sum(-1)
    torch.testing.assert_close(mean_BS, torch.ones(3, 4))
    by_head_BK = result.heads_BLHK.mean((1, 2))
    torch.testing.assert_close(by_head_BK, result.mass_BSK.sum(1) / visible_SK.sum(0))


def test_a_diffusion_trace_holds_the_states_of_generation_and_their_attention(tiny_dlm, make_ids):
    prompt_BT, states = make_ids(3, PROMPT), []
    final_BK = generate(
        tiny_dlm, prompt_BT, SAMPLER, seed=2, watch=lambda step, ids_BT: states.append(ids_BT.clone())
    )
    result = traced(tiny_dlm, prompt_BT, seed=2)

    assert torch.equal(result.final_BK, final_BK)
    assert torch.equal(result.ids_BSK, torch.stack(states, 1))
    assert (result.ids_BSK == MASK_TOKEN_ID).sum(-1).tolist() == [[14, 10, 6, 3]] * 3

    mass_SBLHK = torch.stack([mass_of(tiny_dlm, state_BT)[:, :, :, 0] for state_BT in states])
    torch.testing.assert_close(result.layers_BSLK, mass_SBLHK.mean(3).transpose(0, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.heads_BLHK, mass_SBLHK.mean(0), atol=1e-5, rtol=1e-5)

    assert result.visible_SK.all() and not result.prefix_BLK.any()
    assert torch.equal(result.mass_BSLK, result.layers_BSLK)
    torch.testing.assert_close(result.layers_BSLK.sum(-1), torch.full((3, 4, 3), float(LENGTH)))


def test_a_causal_trace_keeps_the_prompt_and_every_window_apart(tiny_ar, make_ids):
    prompt_BT = make_ids(3, PROMPT)
    result = traced(tiny_ar, prompt_BT)

    assert torch.equal(result.final_BK, decode(tiny_ar, prompt_BT, 14))
    assert torch.equal(result.ids_BSK, result.final_BK[:, None].expand(-1, 4, -1))

    windows = [(0, 5), (5, 8), (8, 11), (11, 14), (14, 19)]
    assert result.windows_S2.tolist() == [list(window) for window in windows[1:]]

    mass_BSLK = mass_of(tiny_ar, result.final_BK, windows).mean(2).transpose(1, 2)
    torch.testing.assert_close(result.prefix_BLK, mass_BSLK[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.layers_BSLK, mass_BSLK[:, 1:], atol=1e-5, rtol=1e-5)

    queries_S = torch.tensor([3.0, 3, 3, 5])
    torch.testing.assert_close(result.layers_BSLK.sum(-1), queries_S[:, None].expand(3, 4, 3))


@pytest.mark.parametrize(
    "sampler", [SAMPLER, Sampler(14, 4, None, "random", "time", 0.9)], ids=["greedy", "random"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_does_not_depend_on_the_batch(make_lm, make_ids, kind, sampler):
    lm, prompt_BT = make_lm(kind), make_ids(5, PROMPT)
    whole = traced(lm, prompt_BT, sampler, seed=1)
    for batch in (1, 2):
        parts = traced(lm, prompt_BT, sampler, seed=1, batch=batch)
        for name in FIELDS:
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(make_lm, make_ids, tmp_path, kind):
    result = traced(make_lm(kind), make_ids(2, PROMPT))
    save_trace(result, tmp_path / "trace.safetensors")
    again = load_trace(tmp_path / "trace.safetensors")
    for name in FIELDS:
        one, other = getattr(result, name), getattr(again, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert [path.name for path in tmp_path.iterdir()] == ["trace.safetensors"]


def test_more_causal_steps_than_tokens_are_refused(tiny_ar, make_ids):
    with pytest.raises(ValueError, match="steps=8 exceed length=4"):
        traced(tiny_ar, make_ids(1, PROMPT), Sampler(4, 8, None, schedule="time"))


@pytest.mark.parametrize(("first", "last", "steps"), [(0, 10, 3), (5, 19, 4), (0, 7, 7), (2, 9, 1)])
def test_query_windows_partition_the_queries(first, last, steps):
    windows = query_windows(first, last, steps)
    assert [query for window in windows for query in range(*window)] == list(range(first, last))
    widths = [stop - start for start, stop in windows]
    assert len(windows) == steps
    assert widths[:-1] == [(last - first) // steps] * (steps - 1)
    assert widths[-1] >= widths[0]


def test_a_guided_sampler_is_refused(tiny_dlm, make_ids):
    with pytest.raises(ValueError, match=r"guidance=1\.0 runs two forwards per step"):
        trace(tiny_dlm, make_ids(1, 4), Sampler(length=4, steps=2, block=None, guidance=1.0), progress=False)
