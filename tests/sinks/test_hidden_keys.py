"""Keys hidden from attention: eager attention under a mask, what that changes, and what it leaves alone."""

import pytest
import torch
from naive_attention import eager
from transformers import DynamicCache

from sinkprune_core.sinks.attention import hide, track

KINDS = ("autoregressive", "diffusion")


def forward_and_interrupt(lm, ids_BT) -> None:
    lm.hidden(ids_BT)
    raise KeyboardInterrupt


def draw_hidden(rows: int, keys: int, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", ["gqa", "mha"])
@pytest.mark.parametrize("kind", KINDS)
def test_hiding_is_eager_attention_under_the_mask_and_respects_padding(make_lm, make_ids, kind, shape, side):
    lm, ids_BT, hidden_BK = make_lm(kind, shape), make_ids(3, 10), draw_hidden(3, 10)
    padding = slice(0, 3) if side == "left" else slice(7, 10)
    attention_mask_BT = torch.ones_like(ids_BT)
    attention_mask_BT[0, padding] = 0

    with hide(lm.model, hidden_BK):
        found_BTD = lm.hidden(ids_BT, attention_mask_BT)

    real_BT = attention_mask_BT.bool()
    expected_BTD, _ = eager(lm, ids_BT, attention_mask_BT=attention_mask_BT, hidden_BK=hidden_BK)
    torch.testing.assert_close(found_BTD[real_BT], expected_BTD[real_BT], atol=1e-4, rtol=1e-4)

    assert not torch.allclose(found_BTD[1:], lm.hidden(ids_BT)[1:], atol=1e-2)

    of_other_rows_BTD, _ = eager(lm, ids_BT, hidden_BK=hidden_BK.roll(1, 0))
    assert not torch.allclose(found_BTD[1:], of_other_rows_BTD[1:], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tracker_measures_what_hiding_leaves(make_lm, make_ids, kind):
    lm, ids_BT, hidden_BK = make_lm(kind), make_ids(2, 11), draw_hidden(2, 11)
    _, maps_BLHQK = eager(lm, ids_BT, hidden_BK=hidden_BK)
    expected_BLHK = maps_BLHQK.sum(3)

    with track(lm.model, chunk=4) as tracker, hide(lm.model, hidden_BK):
        lm.hidden(ids_BT)
        inside_BLHSK = tracker.take()

    with hide(lm.model, hidden_BK), track(lm.model, chunk=4) as tracker:
        lm.hidden(ids_BT)
        around_BLHSK = tracker.take()

    assert torch.equal(inside_BLHSK, around_BLHSK)
    torch.testing.assert_close(inside_BLHSK[:, :, :, 0], expected_BLHK, atol=1e-5, rtol=1e-5)

    hidden_mass = inside_BLHSK[:, :, :, 0].movedim(3, 1)[hidden_BK]
    assert (hidden_mass <= 1 + 1e-6).all() and (hidden_mass > 0).all()  # its own query and no other
    torch.testing.assert_close(
        inside_BLHSK.sum((2, 3, 4)), torch.full((2, 3), 11.0 * lm.model.config.num_attention_heads)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_hidden_key_holds_reaches_no_other_position(make_lm, make_ids, kind):
    lm, ids_BT = make_lm(kind), make_ids(2, 9)
    other_BT = ids_BT.clone()
    other_BT[:, 2] = 17 + (ids_BT[:, 2] - 16) % 50
    hidden_BK = torch.arange(9)[None] == 2
    rest_T = ~hidden_BK[0]

    with hide(lm.model, hidden_BK):
        assert torch.equal(lm.hidden(ids_BT)[:, rest_T], lm.hidden(other_BT)[:, rest_T])
        assert not torch.allclose(lm.hidden(ids_BT)[:, 2], lm.hidden(other_BT)[:, 2], atol=1e-2)
    assert not torch.allclose(lm.hidden(ids_BT)[:, rest_T], lm.hidden(other_BT)[:, rest_T], atol=1e-2)


@pytest.mark.parametrize("former", ["sdpa", "eager"])
def test_hidden_keys_come_back_after_an_exception(tiny_dlm, make_ids, former):
    ids_BT = make_ids(1, 5)
    tiny_dlm.model.set_attn_implementation(former)
    before_BTD = tiny_dlm.hidden(ids_BT)
    attributes = [module.__dict__.keys() for module in tiny_dlm.model.modules()]
    hidden_BK = draw_hidden(1, 5, share=1.0)

    with pytest.raises(KeyboardInterrupt), track(tiny_dlm.model), hide(tiny_dlm.model, hidden_BK):
        forward_and_interrupt(tiny_dlm, ids_BT)

    assert tiny_dlm.model.config._attn_implementation == former
    assert [module.__dict__.keys() for module in tiny_dlm.model.modules()] == attributes
    assert torch.equal(tiny_dlm.hidden(ids_BT), before_BTD)


@pytest.mark.parametrize("keys", [torch.zeros(1, 5), torch.zeros(5, dtype=torch.bool), [True] * 5])
def test_keys_that_are_no_bool_rows_are_refused_before_anything_changes(tiny_dlm, keys):
    with (
        pytest.raises(ValueError, match=r"expected a bool tensor of \(batch, keys\)"),
        hide(tiny_dlm.model, keys),
    ):
        pass
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


def test_keys_that_do_not_fit_the_forward_are_refused(tiny_ar, make_ids):
    with (
        pytest.raises(ValueError, match=r"shape \(2, 7\); expected \(3, 6\), or \(1, 6\)"),
        hide(tiny_ar.model, draw_hidden(2, 7)),
    ):
        tiny_ar.hidden(make_ids(3, 6))

    with (
        pytest.raises(ValueError, match=r"torch\.float32"),
        hide(tiny_ar.model, lambda layer: torch.zeros(1, 6)),
    ):
        tiny_ar.hidden(make_ids(3, 6))

    assert tiny_ar.model.config._attn_implementation == "sdpa"


def test_a_cache_is_refused_because_positions_would_be_a_guess(tiny_ar, make_ids):
    cache = DynamicCache(config=tiny_ar.model.config)
    tiny_ar.next_logits(make_ids(1, 5), cache)
    with (
        pytest.raises(ValueError, match="1 queries and 6 keys: keys can be hidden in full forwards only"),
        hide(tiny_ar.model, draw_hidden(1, 6)),
    ):
        tiny_ar.next_logits(make_ids(1, 1), cache)


def test_one_block_of_hidden_keys_at_a_time(tiny_dlm):
    with hide(tiny_dlm.model, lambda layer: None):
        with (
            pytest.raises(RuntimeError, match="keys are hidden already"),
            hide(tiny_dlm.model, lambda layer: None),
        ):
            pass
        assert all("_hidden_keys" in block.self_attn.__dict__ for block in tiny_dlm.blocks)
    assert not any("_hidden_keys" in block.self_attn.__dict__ for block in tiny_dlm.blocks)
