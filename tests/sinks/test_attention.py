"""Attention mass, measured without changing what the model computes; and keys hidden from attention, measured by what changes."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_core.sinks.attention import Tracker, even_share, hide, track

KINDS = ("autoregressive", "diffusion")
SHAPES = ("gqa", "mha")


def eager_maps(lm, ids_BT, attention_mask_BT=None) -> torch.Tensor:
    """Return transformers' own attention maps, (B, L, H, Q, K), with queries that see no key at all set to zero."""
    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        maps = lm.model.base_model(
            ids_BT, attention_mask=attention_mask_BT, use_cache=False, output_attentions=True
        ).attentions
    finally:
        lm.model.set_attn_implementation(former)
    maps_BLHQK = torch.stack(maps, dim=1)
    if attention_mask_BT is None:
        return maps_BLHQK
    sees_BQK = attention_mask_BT.bool()[:, None, :].expand(-1, ids_BT.shape[1], -1)
    if not lm.is_diffusion:
        sees_BQK = sees_BQK.tril()
    return maps_BLHQK * sees_BQK.any(-1)[:, None, None, :, None]


def mass_of(lm, ids_BT, windows=None, chunk=128, attention_mask_BT=None) -> torch.Tensor:
    with track(lm.model, windows, chunk) as tracker:
        lm.hidden(ids_BT, attention_mask_BT)
        return tracker.take()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_mass_is_the_column_sum_of_eager_attention(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 17)
    maps_BLHQK = eager_maps(lm, ids_BT)
    mass_BLHSK = mass_of(lm, ids_BT)
    assert (
        mass_BLHSK.shape == (3, 3, lm.model.config.num_attention_heads, 1, 17)
        and mass_BLHSK.dtype == torch.float32
    )
    torch.testing.assert_close(mass_BLHSK[:, :, :, 0], maps_BLHQK.sum(3), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        mass_BLHSK[:, :, :, 0], maps_BLHQK.sum(4), atol=1e-2
    )  # row sums are 1 and would say nothing
    assert not torch.allclose(
        mass_BLHSK, mass_BLHSK.flip(2), atol=1e-2
    )  # heads in another order would be seen


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_mass_respects_padding(make_lm, make_ids, kind, shape, side):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 11)
    padding = slice(0, 4) if side == "left" else slice(7, 11)
    attention_mask_BT = torch.ones_like(ids_BT)
    attention_mask_BT[0, padding] = 0
    mass_BLHSK = mass_of(lm, ids_BT, chunk=3, attention_mask_BT=attention_mask_BT)
    torch.testing.assert_close(
        mass_BLHSK[:, :, :, 0], eager_maps(lm, ids_BT, attention_mask_BT).sum(3), atol=1e-5, rtol=1e-5
    )
    assert not mass_BLHSK[0, ..., padding].any()
    assert mass_BLHSK[1:, ..., padding].any()


@pytest.mark.parametrize("kind", KINDS)
def test_mass_sums_to_queries_times_heads(make_lm, make_ids, kind):
    lm = make_lm(kind)
    mass_BLHSK = mass_of(lm, make_ids(2, 19))
    torch.testing.assert_close(
        mass_BLHSK.sum((2, 3, 4)), torch.full((2, 3), 19.0 * lm.model.config.num_attention_heads)
    )


def test_directions_differ_in_mass(tiny_ar, tiny_dlm, make_ids):
    ids_BT = make_ids(1, 9)
    causal_BLHSK, both_BLHSK = mass_of(tiny_ar, ids_BT), mass_of(tiny_dlm, ids_BT)
    assert (causal_BLHSK[..., -1] <= 1 + 1e-6).all()  # one query sees the last key
    assert (both_BLHSK[..., -1] > 1).any()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.sampled_from(SHAPES),
    length=st.integers(1, 20),
    chunk=st.integers(1, 25),
    batch=st.integers(1, 4),
)
def test_mass_is_the_same_for_any_chunk_and_batch(make_lm, make_ids, kind, shape, length, chunk, batch):
    lm, ids_BT = make_lm(kind, shape), make_ids(4, length)
    parts = [mass_of(lm, part_BT, chunk=chunk) for part_BT in ids_BT.split(batch)]
    torch.testing.assert_close(torch.cat(parts), mass_of(lm, ids_BT), atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), cuts=st.sets(st.integers(1, 15), max_size=5), chunk=st.integers(1, 20))
def test_windows_add_up_to_the_whole(make_lm, make_ids, kind, cuts, chunk):
    lm, ids_BT = make_lm(kind), make_ids(2, 16)
    edges = [0, *sorted(cuts), 16]
    windows = list(zip(edges[:-1], edges[1:], strict=True))
    mass_BLHSK = mass_of(lm, ids_BT, windows, chunk)
    torch.testing.assert_close(mass_BLHSK.sum(3, keepdim=True), mass_of(lm, ids_BT), atol=1e-5, rtol=1e-5)
    maps_BLHQK = eager_maps(lm, ids_BT)
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


@pytest.mark.parametrize("former", ["sdpa", "eager"])
def test_the_former_implementation_comes_back_after_an_exception(tiny_dlm, make_ids, former):
    tiny_dlm.model.set_attn_implementation(former)
    before = [dict(module.__dict__) for module in tiny_dlm.model.modules()]
    with pytest.raises(KeyboardInterrupt), track(tiny_dlm.model) as tracker:
        tiny_dlm.hidden(make_ids(1, 5))
        raise KeyboardInterrupt
    assert tiny_dlm.model.config._attn_implementation == former
    assert [module.__dict__.keys() for module in tiny_dlm.model.modules()] == [
        attributes.keys() for attributes in before
    ]
    held = tracker.take()
    tiny_dlm.hidden(make_ids(1, 5))
    assert held.shape[-1] == 5
    with pytest.raises(RuntimeError):  # a forward after the block leaves nothing behind
        tracker.take()


def test_queries_one_at_a_time_with_a_cache_give_the_same_mass(tiny_ar, make_ids):
    from transformers import DynamicCache

    ids_BT = make_ids(2, 8)
    cache, total_BLHK = DynamicCache(config=tiny_ar.model.config), torch.zeros(2, 3, 4, 8)
    with track(tiny_ar.model) as tracker:
        for position in range(8):
            tiny_ar.next_logits(ids_BT[:, position : position + 1], cache)
            total_BLHK[..., : position + 1] += tracker.take()[:, :, :, 0]
    torch.testing.assert_close(total_BLHK, mass_of(tiny_ar, ids_BT)[:, :, :, 0], atol=1e-5, rtol=1e-5)


def test_an_additive_mask_counts_like_a_bool_mask():
    query_BHQE, key_BGKE = (
        torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)),
        torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(1)),
    )
    allowed_B1QK = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(2)) < 0.6
    allowed_B1QK |= torch.eye(6, dtype=torch.bool)
    added_B1QK = torch.zeros(2, 1, 6, 6).masked_fill(~allowed_B1QK, -torch.inf)
    expected_BHK = (
        (query_BHQE @ key_BGKE.repeat_interleave(2, 1).transpose(2, 3) * 0.5 + added_B1QK).softmax(-1).sum(2)
    )
    for mask in (allowed_B1QK, added_B1QK):
        tracker = Tracker(None, chunk=4)
        tracker.add(0, query_BHQE, key_BGKE, mask, scaling=0.5, causal=False)
        torch.testing.assert_close(tracker.take()[:, 0, :, 0], expected_BHK, atol=1e-5, rtol=1e-5)


def test_taking_twice_is_an_error(tiny_dlm, make_ids):
    with track(tiny_dlm.model) as tracker:
        tiny_dlm.hidden(make_ids(1, 5))
        tracker.take()
        with pytest.raises(RuntimeError, match="no forward ran"):
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_preference_measures_the_even_share(make_lm, make_ids, kind):
    lm = make_lm(kind)
    for block in lm.blocks:
        block.self_attn.q_proj.weight.zero_()
    windows = [(0, 4), (4, 11)]
    mass_BLHSK = mass_of(lm, make_ids(2, 11), windows)
    torch.testing.assert_close(
        mass_BLHSK,
        even_share(11, windows, causal=kind == "autoregressive").expand_as(mass_BLHSK),
        atol=1e-5,
        rtol=1e-5,
    )


# hidden keys


def draw_hidden(rows: int, keys: int, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < share


def eager_hidden(lm, ids_BT, hidden_BK, attention_mask_BT=None, maps: bool = False) -> torch.Tensor:
    """Return transformers' eager result under a mask written down query by query: last hidden states, or maps (B, L, H, Q, K)."""
    rows, length = ids_BT.shape
    mask_B1QK = torch.full((rows, 1, length, length), torch.finfo(torch.float32).min)
    for row in range(rows):
        for query in range(length):
            for key in range(length):
                seen = (lm.is_diffusion or key <= query) and (
                    attention_mask_BT is None or attention_mask_BT[row, key] == 1
                )
                if seen and (query == key or not hidden_BK[row, key]):
                    mask_B1QK[row, 0, query, key] = 0
    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        outputs = lm.model.base_model(
            ids_BT, attention_mask=mask_B1QK, use_cache=False, output_attentions=True
        )
    finally:
        lm.model.set_attn_implementation(former)
    return torch.stack(outputs.attentions, dim=1) if maps else outputs.last_hidden_state


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_hiding_is_eager_attention_under_the_mask(make_lm, make_ids, kind, shape):
    lm, ids_BT, hidden_BK = make_lm(kind, shape), make_ids(3, 13), draw_hidden(3, 13)
    with hide(lm.model, hidden_BK):
        found_BTD = lm.hidden(ids_BT)
    torch.testing.assert_close(found_BTD, eager_hidden(lm, ids_BT, hidden_BK), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found_BTD, lm.hidden(ids_BT), atol=1e-2)
    assert not torch.allclose(
        found_BTD, eager_hidden(lm, ids_BT, hidden_BK.roll(1, 0)), atol=1e-2
    )  # rows have their own keys


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_hiding_respects_padding(make_lm, make_ids, kind, side):
    lm, ids_BT, hidden_BK = make_lm(kind), make_ids(2, 10), draw_hidden(2, 10)
    padding = slice(0, 3) if side == "left" else slice(7, 10)
    attention_mask_BT = torch.ones_like(ids_BT)
    attention_mask_BT[0, padding] = 0
    with hide(lm.model, hidden_BK):
        found_BTD = lm.hidden(ids_BT, attention_mask_BT)
    real_BT = attention_mask_BT.bool()
    torch.testing.assert_close(
        found_BTD[real_BT],
        eager_hidden(lm, ids_BT, hidden_BK, attention_mask_BT)[real_BT],
        atol=1e-4,
        rtol=1e-4,
    )


def test_an_additive_mask_is_kept_where_keys_are_hidden(tiny_dlm, make_ids):
    ids_BT, hidden_BK = make_ids(2, 8), draw_hidden(2, 8)
    causal_11QK = torch.full((8, 8), -torch.inf).triu(1)[None, None]
    with hide(tiny_dlm.model, hidden_BK):
        found_BTD = tiny_dlm.model.base_model(
            ids_BT, attention_mask=causal_11QK, use_cache=False
        ).last_hidden_state
    twin = dataclasses.replace(
        tiny_dlm, kind="autoregressive", mask_token_id=None
    )  # only tells the loop below to look back
    torch.testing.assert_close(found_BTD, eager_hidden(twin, ids_BT, hidden_BK), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tracker_measures_what_hiding_leaves(make_lm, make_ids, kind):
    lm, ids_BT, hidden_BK = make_lm(kind), make_ids(2, 11), draw_hidden(2, 11)
    expected_BLHK = eager_hidden(lm, ids_BT, hidden_BK, maps=True).sum(3)
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
    lm, ids_BT = make_lm(kind), make_ids(1, 9)
    other_BT = ids_BT.clone()
    other_BT[0, 2] = 17 + (ids_BT[0, 2] - 16) % 50
    hidden_BK = torch.arange(9)[None] == 2
    rest_T = ~hidden_BK[0]
    with hide(lm.model, hidden_BK):
        assert torch.equal(lm.hidden(ids_BT)[:, rest_T], lm.hidden(other_BT)[:, rest_T])
        assert not torch.allclose(lm.hidden(ids_BT)[:, 2], lm.hidden(other_BT)[:, 2], atol=1e-2)
    assert not torch.allclose(lm.hidden(ids_BT)[:, rest_T], lm.hidden(other_BT)[:, rest_T], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_with_every_key_hidden_each_token_sees_itself_alone(make_lm, make_ids, kind):
    lm, ids_BT = make_lm(kind), make_ids(1, 6)
    with hide(lm.model, torch.ones(1, 6, dtype=torch.bool)), track(lm.model) as tracker:
        lm.hidden(ids_BT)
        mass_BLHSK = tracker.take()
    torch.testing.assert_close(mass_BLHSK, torch.ones_like(mass_BLHSK))


@pytest.mark.parametrize("kind", KINDS)
def test_hiding_nothing_changes_nothing(make_lm, make_ids, kind):
    lm, ids_BT = make_lm(kind), make_ids(2, 12)
    plain_BTD = lm.hidden(ids_BT)
    with hide(lm.model, torch.zeros(1, 12, dtype=torch.bool)):
        torch.testing.assert_close(lm.hidden(ids_BT), plain_BTD, atol=1e-4, rtol=1e-4)
    with hide(lm.model, lambda layer: None):
        assert torch.equal(lm.hidden(ids_BT), plain_BTD)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_can_have_hidden_keys_of_its_own(make_lm, make_ids, kind):
    lm, ids_BT, hidden_BK = make_lm(kind), make_ids(2, 10), draw_hidden(2, 10)
    with hide(lm.model, hidden_BK):
        everywhere_BTD = lm.hidden(ids_BT)
    with hide(lm.model, lambda layer: hidden_BK):
        assert torch.equal(lm.hidden(ids_BT), everywhere_BTD)
    plain_BLHSK = mass_of(lm, ids_BT)
    with hide(lm.model, lambda layer: hidden_BK if layer == 1 else None), track(lm.model) as tracker:
        lm.hidden(ids_BT)
        mass_BLHSK = tracker.take()
    torch.testing.assert_close(mass_BLHSK[:, 0], plain_BLHSK[:, 0])
    one_BKH = mass_BLHSK[:, 1, :, 0].movedim(2, 1)
    assert (one_BKH[hidden_BK] <= 1 + 1e-6).all()
    last_BKH = mass_BLHSK[:, 2, :, 0].movedim(2, 1)
    assert not torch.allclose(
        mass_BLHSK[:, 2], plain_BLHSK[:, 2], atol=1e-2
    )  # the layer after sees other inputs
    assert kind == "autoregressive" or (last_BKH[hidden_BK] > 1).any()  # and all keys


@pytest.mark.parametrize("kind", KINDS)
def test_hiding_does_not_depend_on_the_batch(make_lm, make_ids, kind):
    lm, ids_BT, hidden_BK = make_lm(kind), make_ids(4, 12), draw_hidden(4, 12)
    with hide(lm.model, hidden_BK):
        together_BTD = lm.hidden(ids_BT)
    for row in range(4):
        with hide(lm.model, hidden_BK[row : row + 1]):
            torch.testing.assert_close(
                lm.hidden(ids_BT[row : row + 1]), together_BTD[row : row + 1], atol=1e-5, rtol=1e-5
            )
    with hide(lm.model, hidden_BK[:1]):  # one row of keys serves all
        alike_BTD = lm.hidden(ids_BT)
    with hide(lm.model, hidden_BK[:1].expand(4, -1)):
        assert torch.equal(alike_BTD, lm.hidden(ids_BT))


def test_keys_of_gpt2_hide_too(make_ids):
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = GPT2Model(
        GPT2Config(
            vocab_size=80,
            n_positions=32,
            n_embd=16,
            n_layer=2,
            n_head=2,
            initializer_range=0.5,
            attn_implementation="sdpa",
        )
    ).eval()
    ids_BT = make_ids(1, 8)
    other_BT = ids_BT.clone()
    other_BT[0, 0] = 79
    read = lambda ids: model(ids, use_cache=False).last_hidden_state[:, 1:]
    with torch.no_grad(), hide(model, torch.arange(8)[None] == 0):
        assert torch.equal(read(ids_BT), read(other_BT))
    assert not torch.allclose(read(ids_BT), read(other_BT), atol=1e-2)


@pytest.mark.parametrize("former", ["sdpa", "eager"])
def test_hidden_keys_come_back_after_an_exception(tiny_dlm, make_ids, former):
    ids_BT = make_ids(1, 5)
    tiny_dlm.model.set_attn_implementation(former)
    before_BTD, attributes = (
        tiny_dlm.hidden(ids_BT),
        [module.__dict__.keys() for module in tiny_dlm.model.modules()],
    )
    with (
        pytest.raises(KeyboardInterrupt),
        track(tiny_dlm.model),
        hide(tiny_dlm.model, draw_hidden(1, 5, share=1.0)),
    ):
        tiny_dlm.hidden(ids_BT)
        raise KeyboardInterrupt
    assert tiny_dlm.model.config._attn_implementation == former
    assert [module.__dict__.keys() for module in tiny_dlm.model.modules()] == attributes
    assert torch.equal(tiny_dlm.hidden(ids_BT), before_BTD)


@pytest.mark.parametrize("keys", [torch.zeros(1, 5), torch.zeros(5, dtype=torch.bool), [True] * 5])
def test_keys_that_are_no_bool_rows_are_refused_before_anything_changes(tiny_dlm, keys):
    with (
        pytest.raises(ValueError, match="expected a bool tensor of \\(batch, keys\\)"),
        hide(tiny_dlm.model, keys),
    ):
        pass
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


def test_keys_that_do_not_fit_the_forward_are_refused(tiny_ar, make_ids):
    with (
        pytest.raises(ValueError, match="shape \\(2, 7\\); expected \\(3, 6\\), or \\(1, 6\\)"),
        hide(tiny_ar.model, draw_hidden(2, 7)),
    ):
        tiny_ar.hidden(make_ids(3, 6))
    with (
        pytest.raises(ValueError, match="torch.float32"),
        hide(tiny_ar.model, lambda layer: torch.zeros(1, 6)),
    ):
        tiny_ar.hidden(make_ids(3, 6))
    assert tiny_ar.model.config._attn_implementation == "sdpa"


def test_a_cache_is_refused_because_positions_would_be_a_guess(tiny_ar, make_ids):
    from transformers import DynamicCache

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
            pytest.raises(RuntimeError, match="_hidden_keys is set already"),
            hide(tiny_dlm.model, lambda layer: None),
        ):
            pass
        assert all("_hidden_keys" in block.self_attn.__dict__ for block in tiny_dlm.blocks)
    assert not any("_hidden_keys" in block.self_attn.__dict__ for block in tiny_dlm.blocks)
