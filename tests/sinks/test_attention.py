"""Attention mass, measured without changing what the model computes."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import eager

from sinkprune_core.sinks.attention import even_share, track

KINDS = ("autoregressive", "diffusion")
SHAPES = ("gqa", "mha")


def mass_of(lm, ids_BT, windows=None, chunk=128, attention_mask_BT=None) -> torch.Tensor:
    with track(lm.model, windows, chunk) as tracker:
        lm.hidden(ids_BT, attention_mask_BT)
        return tracker.take()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_mass_is_the_column_sum_of_eager_attention_and_respects_padding(make_lm, make_ids, kind, shape, side):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 11)
    padding = slice(0, 4) if side == "left" else slice(7, 11)
    attention_mask_BT = torch.ones_like(ids_BT)
    attention_mask_BT[0, padding] = 0

    mass_BLHSK = mass_of(lm, ids_BT, chunk=3, attention_mask_BT=attention_mask_BT)
    assert mass_BLHSK.shape == (3, 3, lm.model.config.num_attention_heads, 1, 11)
    assert mass_BLHSK.dtype == torch.float32

    _, maps_BLHQK = eager(lm, ids_BT, attention_mask_BT=attention_mask_BT)
    torch.testing.assert_close(mass_BLHSK[:, :, :, 0], maps_BLHQK.sum(3), atol=1e-5, rtol=1e-5)

    # row sums are 1 and would say nothing; heads in another order would be seen
    assert not torch.allclose(mass_BLHSK[:, :, :, 0], maps_BLHQK.sum(4), atol=1e-2)
    assert not torch.allclose(mass_BLHSK, mass_BLHSK.flip(2), atol=1e-2)

    assert not mass_BLHSK[0, ..., padding].any()
    assert mass_BLHSK[1:, ..., padding].any()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), cuts=st.sets(st.integers(1, 15), max_size=5), chunk=st.integers(1, 20))
def test_windows_add_up_to_the_whole(make_lm, make_ids, kind, cuts, chunk):
    lm, ids_BT = make_lm(kind), make_ids(2, 16)
    edges = [0, *sorted(cuts), 16]
    windows = list(pairwise(edges))

    mass_BLHSK = mass_of(lm, ids_BT, windows, chunk)
    torch.testing.assert_close(mass_BLHSK.sum(3, keepdim=True), mass_of(lm, ids_BT), atol=1e-5, rtol=1e-5)

    _, maps_BLHQK = eager(lm, ids_BT)
    for window, (first, last) in enumerate(windows):
        torch.testing.assert_close(
            mass_BLHSK[:, :, :, window], maps_BLHQK[:, :, :, first:last].sum(3), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tracking_changes_no_bit_of_the_output(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 13)
    before_BTD = lm.hidden(ids_BT)
    with track(lm.model, chunk=5) as tracker:
        during_BTD = lm.hidden(ids_BT)
        tracker.take()
    assert torch.equal(before_BTD, during_BTD)
    assert torch.equal(before_BTD, lm.hidden(ids_BT))


def test_mass_keeps_no_map_for_gradients(make_lm, make_ids):
    lm, ids_BT = make_lm("diffusion"), make_ids(2, 9)
    lm.model.requires_grad_(True)
    with track(lm.model) as tracker:
        lm.model(ids_BT)
        mass_BLHSK = tracker.take()
    assert mass_BLHSK.grad_fn is None
    torch.testing.assert_close(mass_BLHSK, mass_of(lm, ids_BT), atol=1e-5, rtol=1e-5)


def forward_and_interrupt(lm, ids_BT) -> None:
    lm.hidden(ids_BT)
    raise KeyboardInterrupt


@pytest.mark.parametrize("former", ["sdpa", "eager"])
def test_the_former_implementation_comes_back_after_an_exception(tiny_dlm, make_ids, former):
    tiny_dlm.model.set_attn_implementation(former)
    before = [dict(module.__dict__) for module in tiny_dlm.model.modules()]

    with pytest.raises(KeyboardInterrupt), track(tiny_dlm.model) as tracker:
        forward_and_interrupt(tiny_dlm, make_ids(1, 5))

    assert tiny_dlm.model.config._attn_implementation == former
    assert [module.__dict__.keys() for module in tiny_dlm.model.modules()] == [
        attributes.keys() for attributes in before
    ]

    held = tracker.take()
    tiny_dlm.hidden(make_ids(1, 5))
    assert held.shape[-1] == 5

    with pytest.raises(RuntimeError):  # a forward after the block leaves nothing behind
        tracker.take()


def test_a_second_forward_without_taking_is_an_error(tiny_dlm, make_ids):
    with track(tiny_dlm.model):
        tiny_dlm.hidden(make_ids(1, 5))
        with pytest.raises(RuntimeError, match="layer 0 ran twice"):
            tiny_dlm.hidden(make_ids(1, 5))
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


def test_a_chunk_of_no_query_is_refused_before_anything_changes(tiny_dlm):
    with pytest.raises(ValueError, match="chunk=0 must be at least 1"), track(tiny_dlm.model, chunk=0):
        pass
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(queries=st.integers(1, 12), data=st.data(), causal=st.booleans())
def test_even_share_by_brute_force(queries, data, causal):
    cuts = data.draw(st.lists(st.integers(0, queries), min_size=2, max_size=2).map(sorted))
    windows = [tuple(cuts), (0, queries)]
    share_SK = even_share(queries, windows, causal)

    for window, (first, last) in enumerate(windows):
        for key in range(queries):
            expected = sum(
                1 / (query + 1) if causal else 1 / queries
                for query in range(first, last)
                if not causal or key <= query
            )
            assert share_SK[window, key].item() == pytest.approx(expected, abs=1e-6)
