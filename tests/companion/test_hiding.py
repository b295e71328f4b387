"""A model without its sinks: which keys are hidden, what that does, and what it leaves alone."""

import pandas as pd
import pytest
import torch
from naive_attention import eager

from sinkprune import score
from sinkprune_companion.hiding import Hiding, MeasuredAttention, hiding_model
from sinkprune_core import Recipe, Sampler, generate, prune, trace, weights_kept
from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.seeds import generator
from sinkprune_core.sinks.detection import sink_sets

KINDS = ("autoregressive", "diffusion")
SAMPLER = Sampler(length=8, steps=4, block=None, temperature=1.0)


def strongest(lm, ids_BT, count: int, first: bool = True) -> list[list[int]]:
    """Return the keys of most attention in every row by loops; the later half of causal queries decides."""
    _, maps_BLHQK = eager(lm, ids_BT)
    length = ids_BT.shape[1]
    start, last = (0, length - 1) if lm.is_diffusion else (length // 2, length // 2)
    rows = []
    for maps_LHQK in maps_BLHQK:
        mass = {key: float(maps_LHQK[:, :, start:, key].sum()) for key in range(0 if first else 1, last + 1)}
        rows.append(sorted(sorted(mass, key=mass.get, reverse=True)[:count]))
    return rows


def naive(lm, ids_BT, keys: list[list[int]]) -> torch.Tensor:
    """Return eager last hidden states where no query but a hidden key's own sees it."""
    hidden_BK = torch.zeros(ids_BT.shape, dtype=torch.bool)
    for row, hidden in enumerate(keys):
        hidden_BK[row, hidden] = True
    return eager(lm, ids_BT, hidden_BK=hidden_BK)[0]


def noised(lm, ids_BT) -> torch.Tensor:
    where_BT = torch.rand(ids_BT.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    return corrupt(ids_BT, where_BT, lm.mask_token_id) if lm.is_diffusion else ids_BT


def places(hidden_BK) -> list[list[int]]:
    return [row.nonzero().squeeze(-1).tolist() for row in hidden_BK]


# what is hidden


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_strongest_keys_are_those_of_eager_attention_and_no_other_query_sees_them(
    make_lm, make_ids, kind, count, first
):
    lm = make_lm(kind)
    ids_BT = noised(lm, make_ids(3, 18))
    hiding_lm = hiding_model(lm, Hiding("top", count, first))
    keys = strongest(lm, ids_BT, count, first)
    assert places(hiding_lm.keys_to_hide(ids_BT)) == keys
    assert places(hiding_model(lm, Hiding("first", 1)).keys_to_hide(ids_BT)) == [[0]] * 3
    torch.testing.assert_close(hiding_lm.hidden(ids_BT), naive(lm, ids_BT, keys), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(hiding_lm.hidden(ids_BT), lm.hidden(ids_BT), atol=1e-2)


def block_outputs(lm, ids_BT) -> list[torch.Tensor]:
    """Return what every block gives in one forward, (B, T, D) each."""
    found = []
    handles = [block.register_forward_hook(lambda *args: found.append(args[2])) for block in lm.blocks]
    try:
        lm.hidden(ids_BT)
    finally:
        for handle in handles:
            handle.remove()
    return [each if torch.is_tensor(each) else each[0] for each in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_third_of_the_layers_hides_the_same_keys_and_no_other_layer_does(make_lm, make_ids, kind):
    lm = make_lm(kind, layers=6)
    ids_BT = noised(lm, make_ids(2, 14))

    keys_BK = hiding_model(lm, Hiding("top", 3)).keys_to_hide(ids_BT)
    dense = block_outputs(lm, ids_BT)
    everywhere = None

    for third, (start, end) in {"all": (0, 6), "early": (0, 2), "middle": (2, 4), "late": (4, 6)}.items():
        hiding_lm = hiding_model(lm, Hiding("top", 3, layers=third))
        assert torch.equal(hiding_lm.keys_to_hide(ids_BT), keys_BK)
        assert [layer for layer in range(6) if hiding_lm.hiding.hides_in(layer, 6)] == list(range(start, end))

        found = block_outputs(hiding_lm, ids_BT)[-6:]  # the dense forward that chooses comes first
        everywhere = found if everywhere is None else everywhere

        for layer in range(start):
            torch.testing.assert_close(found[layer], dense[layer], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[start], dense[start], atol=1e-3)

        if start == 0:
            for layer in range(end):
                assert torch.equal(found[layer], everywhere[layer])
            if end < 6:
                assert not torch.allclose(found[end], everywhere[end], atol=1e-3)

    with pytest.raises(ValueError, match="layers='upper' must be 'all'"):
        Hiding("top", 3, layers="upper")

    with pytest.raises(ValueError, match="layers='late' has none of the 2 layers"):
        hiding_model(make_lm("diffusion", layers=2), Hiding("top", 3, layers="late"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_hides_as_many_keys_that_are_neither_strongest_nor_sinks(make_lm, make_ids, kind):
    lm = make_lm(kind)
    ids_BT = noised(lm, make_ids(6, 30))

    for first in (True, False):
        top_BK = hiding_model(lm, Hiding("top", 3, first)).keys_to_hide(ids_BT)
        random_BK = hiding_model(lm, Hiding("random", 3, first)).keys_to_hide(ids_BT)
        other_BK = hiding_model(lm, Hiding("random", 3, first), seed=1).keys_to_hide(ids_BT)

        assert random_BK.sum(1).tolist() == top_BK.sum(1).tolist() == [3] * 6
        assert not (random_BK & top_BK).any()
        assert first or not random_BK[:, 0].any()
        assert lm.is_diffusion or not random_BK[:, 16:].any()  # keys that all asked queries see
        assert not torch.equal(random_BK, other_BK)

        if lm.is_diffusion:
            masked_BK = ids_BT == lm.mask_token_id
            assert (random_BK & masked_BK).sum(1).tolist() == (top_BK & masked_BK).sum(1).tolist()


def test_the_control_leaves_sinks_alone_and_draws_evenly():
    mass_1K = torch.tensor([[9.0, 1, 1, 8.5, 1, 1, 1, 1, 1, 1, 1, 1]])
    visible_1K, masked_1K = torch.ones(1, 12, dtype=torch.bool), torch.arange(12)[None] >= 8
    assert places(sink_sets(mass_1K, visible_1K)) == [[0, 3]]

    draws = torch.cat(
        [Hiding("random", 1).choose(mass_1K, visible_1K, masked_1K, [generator(seed)]) for seed in range(600)]
    )

    assert not draws[:, [0, 3]].any()  # a sink is none of the others, also when it is not the strongest
    assert not draws[:, 8:].any()  # the strongest is no mask, so no mask is drawn
    assert draws[:, [1, 2, 4, 5, 6, 7]].double().mean(0).tolist() == pytest.approx([1 / 6] * 6, abs=0.06)


def test_where_one_kind_of_key_runs_out_the_other_fills_up():
    mass_1K = torch.tensor([[9.0, 8, 7, 1, 1, 1, 1, 1]])
    masked_1K = torch.arange(8)[None] >= 4  # the three strongest are revealed, and only key 3 beside them
    drawn_1K = Hiding("random", 3).choose(mass_1K, torch.ones(1, 8) > 0, masked_1K, [generator(0)])
    assert drawn_1K[0, 3] and int(drawn_1K[0, 4:].sum()) == 2 and int(drawn_1K.sum()) == 3


@pytest.mark.parametrize("keys", ["top", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_depend_on_the_row_alone(make_lm, make_ids, kind, keys):
    lm, ids_BT = make_lm(kind), make_ids(4, 20)
    hiding_lm = hiding_model(lm, Hiding(keys, 3))
    one_by_one = torch.cat([hiding_lm.keys_to_hide(row_BT) for row_BT in ids_BT.split(1)])
    assert torch.equal(hiding_lm.keys_to_hide(ids_BT), one_by_one)
    assert torch.equal(hiding_lm.keys_to_hide(ids_BT.flip(0)), one_by_one.flip(0))


def test_variants_that_share_attention_measure_once_and_hide_the_same(make_lm, make_ids, monkeypatch):
    lm = make_lm("diffusion")
    ids_BT, measured = noised(lm, make_ids(3, 16)), MeasuredAttention()
    hiding_model(lm, Hiding(count=0), measured=measured).hidden(ids_BT)
    alone_BTD = hiding_model(lm, Hiding("top", 3)).hidden(ids_BT)
    shared = hiding_model(lm, Hiding("top", 3), measured=measured)
    monkeypatch.setattr(type(shared), "_hidden_dense", None)
    torch.testing.assert_close(shared.hidden(ids_BT.flip(0)).flip(0), alone_BTD, atol=1e-5, rtol=1e-5)


def write(weight: torch.Tensor) -> None:
    weight.mul_(-3)


def write_through_data(weight: torch.Tensor) -> None:
    weight.data.mul_(-3)  # which torch does not count as a write


@pytest.mark.parametrize("change", [write, write_through_data])
def test_shared_attention_is_forgotten_by_a_new_variant_when_weights_changed(make_lm, make_ids, change):
    lm = make_lm("diffusion")
    ids_BT, measured = noised(lm, make_ids(3, 16)), MeasuredAttention()
    hiding_model(lm, Hiding(count=0), measured=measured).hidden(ids_BT)

    with torch.no_grad():
        for block in lm.blocks:
            change(block.self_attn.q_proj.weight)

    shared = hiding_model(lm, Hiding("top", 3), measured=measured)
    alone = hiding_model(lm, Hiding("top", 3))
    assert torch.equal(shared.keys_to_hide(ids_BT), alone.keys_to_hide(ids_BT))


@pytest.mark.parametrize("layers", ["all", "early"])
def test_the_log_says_what_was_hidden_and_what_is_left_in_the_layers_that_hide(make_lm, make_ids, layers):
    lm = make_lm("diffusion", layers=6)
    ids_BT = noised(lm, make_ids(3, 16))
    hiding_lm = hiding_model(lm, Hiding("top", 4, layers=layers))
    end = 6 if layers == "all" else 2  # what is hidden later changes nothing before

    hidden_BK = hiding_lm.keys_to_hide(ids_BT)
    assert hiding_lm.log == []

    hiding_lm.hidden(ids_BT)
    _, maps_BLHQK = eager(lm, ids_BT)
    _, left_BLHQK = eager(lm, ids_BT, hidden_BK=hidden_BK)

    for row, logged in enumerate(hiding_lm.log):
        left_K = left_BLHQK[row][:end].mean((0, 1, 2))
        attention = float(maps_BLHQK[row][:end][..., hidden_BK[row]].sum(-1).mean())

        assert logged["attention"] == pytest.approx(attention, abs=1e-5)
        assert logged["first"] == float(hidden_BK[row, 0])
        assert logged["masks"] == int((hidden_BK[row] & (ids_BT[row] == lm.mask_token_id)).sum())
        assert logged["left"] == pytest.approx(float(left_K.max()), abs=1e-5)
        assert logged["second"] == float(left_K.argmax() == 1)

    assert len(hiding_lm.log) == 3


# what it does to scores and texts


@pytest.mark.parametrize("kind", KINDS)
def test_hiding_no_key_changes_no_bit(make_lm, make_ids, kind):
    lm, ids_NT = make_lm(kind), make_ids(3, 14)
    hiding_lm = hiding_model(lm, Hiding(count=0))

    scores = [score(model, ids_NT, 3) for model in (hiding_lm, lm)]
    pd.testing.assert_frame_equal(*scores, check_exact=True)

    if lm.is_diffusion:
        texts = [generate(model, ids_NT, SAMPLER, 3) for model in (hiding_lm, lm)]
    else:
        texts = [decode(model, ids_NT, 8, 1.0, 3) for model in (hiding_lm, lm)]
    assert torch.equal(*texts)
    assert hiding_lm.log == []


def test_a_causal_model_writes_without_its_sinks_token_by_token(make_lm, make_ids):
    lm, prompt_BT = make_lm("autoregressive"), make_ids(2, 8)
    ids_BT = prompt_BT
    for _ in range(5):
        hidden_BTD = naive(lm, ids_BT, strongest(lm, ids_BT, 2))
        ids_BT = torch.cat([ids_BT, lm.head(hidden_BTD[:, -1]).argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(decode(hiding_model(lm, Hiding("top", 2)), prompt_BT, 5), ids_BT)
    assert not torch.equal(decode(lm, prompt_BT, 5), ids_BT)


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "sinks"}, "keys='sinks' must be 'top'"),
        ({"keys": "first", "count": 2}, "position 0 alone: count=2 must be 1"),
        ({"keys": "first", "count": 1, "first": False}, "first=False must be True"),
    ],
)
def test_a_hiding_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Hiding(**options)


def test_more_keys_than_there_are_and_padding_are_refused(make_lm, make_ids):
    lm = make_lm("autoregressive")

    with pytest.raises(ValueError, match="count=7 must lie in 0 … 6"):
        hiding_model(lm, Hiding("top", 7)).hidden(make_ids(1, 10))

    with pytest.raises(ValueError, match="count=5 random keys beside as many sinks do not fit"):
        hiding_model(lm, Hiding("random", 5)).hidden(make_ids(1, 10))

    with pytest.raises(ValueError, match="rows without padding only"):
        hiding_model(lm, Hiding("top", 1)).hidden(make_ids(1, 10), torch.ones(1, 10))

    padding = torch.tensor([[0] + [1] * 9, [1] * 10])
    with pytest.raises(ValueError, match="rows without padding only"):
        decode(hiding_model(lm, Hiding("top", 1)), make_ids(2, 10), 2, attention_mask_BT=padding)

    assert lm.model.config._attn_implementation == "sdpa"


# what changes under it


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_pruning_a_model_changes_the_keys_that_are_hidden_in_it(make_lm, make_ids, kind):
    """One made before `prune` hides what one made after it does, and again what it did, once all is back."""
    lm, ids_BT = make_lm(kind), make_ids(4, 16)
    before = hiding_model(lm, Hiding("top", 2))
    dense_BK = before.keys_to_hide(ids_BT)

    with weights_kept(lm):
        prune(lm, Recipe("magnitude", sparsity=0.9), progress=False)
        pruned_BK = hiding_model(lm, Hiding("top", 2)).keys_to_hide(ids_BT)
        assert not torch.equal(pruned_BK, dense_BK)
        assert torch.equal(before.keys_to_hide(ids_BT), pruned_BK)

    assert torch.equal(before.keys_to_hide(ids_BT), dense_BK)


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_a_trace_of_a_hiding_model_shows_what_is_left(make_lm, make_ids, kind):
    lm, prompt_BT = make_lm(kind), make_ids(2, 6)
    sampler = Sampler(8, 4, None)

    plain = trace(lm, prompt_BT, sampler, progress=False)
    none = trace(hiding_model(lm, Hiding("top", 0)), prompt_BT, sampler, progress=False)
    assert torch.equal(none.layers_BSLK, plain.layers_BSLK)

    first = trace(hiding_model(lm, Hiding("first", 1)), prompt_BT, sampler, progress=False)
    queries_S = (first.windows_S2[:, 1] - first.windows_S2[:, 0]).float()
    torch.testing.assert_close(first.layers_BSLK.sum(-1)[0, :, 0], queries_S, rtol=1e-4, atol=1e-4)

    assert (first.mass_BSLK[..., 0] <= 1 + 1e-5).all()  # a hidden key keeps its own query alone
    assert (plain.mass_BSLK[..., 0] > 1 + 1e-3).any()
