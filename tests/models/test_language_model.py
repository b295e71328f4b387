"""Models: direction, the shift of logits, saving, and errors that say what is wrong."""

import copy
import dataclasses
import json

import pytest
import torch
from naive import linears_of, zeros_of
from torch import nn

from sinkprune.models.card import CARD
from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune_core import preset, prune, weights_kept
from sinkprune_core.blocks import Rows, block_inputs, run_block
from sinkprune_core.language_model import KINDS, LanguageModel, set_direction, zero_out
from sinkprune_core.wrapping import wrap


def blockwise(lm, ids_BT) -> torch.Tensor:
    """Return the hidden states, (B, T, D), of blocks called one by one as pruning calls them."""
    states = block_inputs(lm, Rows(ids_BT, None), batch=len(ids_BT))
    for block in lm.blocks:
        states = run_block(block, states)
    return lm.model.base_model.norm(states[0].hidden_BTD)


def bare(lm, ids_BT) -> torch.Tensor:
    """Return the same from blocks that are told nothing but positions, so that their own flags decide."""
    hidden_BTD = lm.model.get_input_embeddings()(ids_BT)
    angles = lm.model.base_model.rotary_emb(hidden_BTD, position_ids=torch.arange(ids_BT.shape[1])[None])
    for block in lm.blocks:
        hidden_BTD = block(hidden_BTD, position_embeddings=angles)
    return lm.model.base_model.norm(hidden_BTD)


def full(lm, ids_BT) -> torch.Tensor:
    return lm.hidden(ids_BT)


def first_sees_last(lm, forward, ids_BT) -> bool:
    """Return whether another last token changes any hidden state at position 0."""
    changed_BT = ids_BT.clone()
    changed_BT[:, -1] = 17 + (changed_BT[:, -1] - 17 + 1) % 40
    before_BTD, after_BTD = forward(lm, ids_BT), forward(lm, changed_BT)
    assert not torch.allclose(before_BTD[:, -1], after_BTD[:, -1], atol=1e-3)
    return not torch.equal(before_BTD[:, 0], after_BTD[:, 0])


@pytest.fixture(params=["gqa", "mha"])
def shape(request) -> str:
    return request.param


@pytest.mark.parametrize("forward", [full, blockwise, bare])
def test_the_first_position_sees_the_last_token_only_in_a_diffusion_model(make_lm, make_ids, shape, forward):
    ids_BT = make_ids(2, 9)
    assert first_sees_last(make_lm("diffusion", shape), forward, ids_BT)
    assert not first_sees_last(make_lm("autoregressive", shape), forward, ids_BT)


def test_a_direction_set_on_the_config_alone_leaves_single_blocks_causal(tiny_dlm, make_ids):
    """The first control: a half-set direction, which a full forward does not show, shows in single blocks."""
    for block in tiny_dlm.blocks:
        block.self_attn.is_causal = True
    ids_BT = make_ids(2, 9)
    assert first_sees_last(tiny_dlm, full, ids_BT)
    assert not first_sees_last(tiny_dlm, bare, ids_BT)
    set_direction(tiny_dlm.model, causal=False)
    assert first_sees_last(tiny_dlm, bare, ids_BT)


@pytest.mark.parametrize("forward", [full, blockwise])
def test_a_model_that_was_turned_round_since_is_refused(tiny_dlm, make_ids, forward):
    """Another model of the same weights was made of it, say: this one would score in the wrong direction."""
    ids_BT = make_ids(2, 9)
    other = wrap(tiny_dlm.model)
    assert not first_sees_last(other, forward, ids_BT)
    with pytest.raises(
        ValueError, match="is diffusion, and its attention was made causal since: wrap a copy"
    ):
        forward(tiny_dlm, ids_BT)

    set_direction(tiny_dlm.model, causal=False)
    assert first_sees_last(tiny_dlm, forward, ids_BT)
    with pytest.raises(ValueError, match="autoregressive, and its attention was made bidirectional since"):
        forward(other, ids_BT)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_one_by_one_equal_the_full_forward(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 8)
    torch.testing.assert_close(blockwise(lm, ids_BT), full(lm, ids_BT), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bare(lm, ids_BT), full(lm, ids_BT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_equals_shifted_logits_of_every_position(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 10)
    where_BT = torch.rand(3, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    where_BT[:, 0] = lm.is_diffusion

    logits_BTV = lm.model(ids_BT, use_cache=False).logits
    naive = [
        logits_BTV[row, max(position - 1, 0)]
        for row in range(3)
        for position in range(10)
        if where_BT[row, position]
    ]

    logits_NV = lm.logits_at(ids_BT, where_BT)
    torch.testing.assert_close(logits_NV, torch.stack(naive))
    assert logits_NV.dtype == torch.float32

    unshifted_NV = dataclasses.replace(lm, logits_shifted=False).logits_at(ids_BT, where_BT)
    torch.testing.assert_close(unshifted_NV, logits_BTV[where_BT])
    assert not torch.allclose(unshifted_NV, logits_NV, atol=0.1)


def test_a_model_gets_another_name_without_a_forward(tiny_dlm):
    forwards = []
    handle = tiny_dlm.model.register_forward_pre_hook(lambda *_: forwards.append("whole"))
    inner = tiny_dlm.model.base_model.register_forward_pre_hook(lambda *_: forwards.append("inner"))
    try:
        renamed = tiny_dlm.named("another")
    finally:
        handle.remove()
        inner.remove()

    assert renamed.name == "another" and tiny_dlm.name != "another"
    assert renamed.model is tiny_dlm.model and renamed.mask_token_id == tiny_dlm.mask_token_id
    assert type(renamed) is type(tiny_dlm) and forwards == []
    with pytest.raises(ValueError, match="name=5"):
        tiny_dlm.named(5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(make_lm, make_ids, tmp_path, kind, shape):
    lm = make_lm(kind, shape)
    again = load(save(lm, tmp_path / "deep" / "model", note="a card may say more"))
    ids_BT = make_ids(2, 7)

    assert torch.equal(again.hidden(ids_BT), lm.hidden(ids_BT))
    assert again.fingerprint() == lm.fingerprint()
    for field in ("name", "kind", "mask_token_id", "logits_shifted"):
        assert getattr(again, field) == getattr(lm, field)

    assert torch.equal(again.encode("the list of word30"), lm.encode("the list of word30"))
    assert json.loads((tmp_path / "deep" / "model" / CARD).read_text())["note"] == "a card may say more"
    assert not any(parameter.requires_grad for parameter in again.model.parameters())


@pytest.mark.parametrize("own", [{"kind": "pilot"}, {"mask_token_id": 20}, {"sha256": {}}], ids=str)
def test_a_card_does_not_change_what_a_model_is_taken_for(tiny_dlm, tmp_path, own):
    with pytest.raises(
        ValueError, match="cannot be put on the card, which says by that name what the model is"
    ):
        save(tiny_dlm, tmp_path / "model", **own)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_nothing(tiny_dlm, tmp_path):
    with pytest.raises(TypeError):
        save(tiny_dlm, tmp_path / "model", note=object())  # not JSON, noticed after the weights are written
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "mask", "said"),
    [
        ("causal", None, "kind='causal'"),
        ("diffusion", None, "mask_token_id=None"),
        ("autoregressive", 4, "mask_token_id=4"),
        ("diffusion", 72, "outside the vocabulary of 72"),
    ],
)
def test_a_kind_and_a_mask_token_that_do_not_fit_are_refused(tiny_dlm, kind, mask, said):
    with pytest.raises(ValueError, match=said):
        LanguageModel(tiny_dlm.model, tiny_dlm.tokenizer, "wrong", kind, mask, logits_shifted=True)


def test_the_fingerprint_follows_every_weight(tiny_dlm, make_lm):
    original = tiny_dlm.fingerprint()
    assert make_lm("diffusion").fingerprint() == original != make_lm("diffusion", seed=1).fingerprint()

    for parameter in (
        tiny_dlm.blocks[2].mlp.gate_proj.weight,
        tiny_dlm.model.base_model.norm.weight,
        tiny_dlm.model.get_input_embeddings().weight,
    ):
        value = parameter.view(-1)[5].clone()
        parameter.view(-1)[5] = torch.nextafter(value, torch.tensor(9.0))
        assert tiny_dlm.fingerprint() != original

        parameter.view(-1)[5] = value
        assert tiny_dlm.fingerprint() == original
    assert dataclasses.replace(tiny_dlm, model=tiny_dlm.model.to(torch.bfloat16)).fingerprint() != original


def test_a_buffer_of_one_number_is_part_of_the_fingerprint(tiny_dlm):
    tiny_dlm.model.model.register_buffer("scale", torch.tensor(2.0))
    of_two = tiny_dlm.fingerprint()
    tiny_dlm.model.model.scale.fill_(3.0)
    assert tiny_dlm.fingerprint() != of_two


def test_kept_weights_are_the_same_parameters_again_whatever_is_done_to_them(make_family):
    lm = make_family("llama-biased")
    before = dict(lm.model.named_parameters())
    numbers = {name: value.detach().clone() for name, value in before.items()}
    first, last = lm.blocks[0], lm.blocks[-1]

    with weights_kept(lm):
        first.mlp.down_proj.bias = torch.nn.Parameter(torch.ones(24))
        first.mlp.up_proj.bias = None
        first.self_attn.q_proj.weight.data = torch.ones(1, 1)
        first.mlp.register_parameter("more", torch.nn.Parameter(torch.ones(1)))
        last.mlp.up_proj.weight.fill_(0)
        last.mlp.gate_proj = torch.nn.Linear(24, 48)

    after = dict(lm.model.named_parameters())
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert value is before[name] and torch.equal(value, numbers[name])


def test_one_parameter_that_cannot_be_put_back_keeps_none_of_the_others(tiny_dlm):
    weight = tiny_dlm.blocks[0].mlp.up_proj.weight
    before = tiny_dlm.blocks[-1].mlp.up_proj.weight.clone()

    def spoilt():
        with weights_kept(tiny_dlm):
            weight.data = weight.data[:1].expand_as(weight)
            tiny_dlm.blocks[-1].mlp.up_proj.weight.fill_(0)

    with pytest.raises(RuntimeError, match="single memory location"):
        spoilt()

    assert torch.equal(tiny_dlm.blocks[-1].mlp.up_proj.weight, before)


def test_zeros_are_written_in_every_dtype_and_layout_whatever_was_there():
    pruned = torch.tensor([[True], [True], [True], [False]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        weight = torch.tensor([[-1, float("nan"), float("-inf"), -2]], dtype=dtype)
        zero_out(weight.T, pruned)
        assert weight.tolist() == [[0, 0, 0, -2]] and not weight[0, :3].signbit().any()


def test_an_architecture_whose_blocks_are_not_known_is_refused(tiny_ar):
    model = copy.deepcopy(tiny_ar.model)
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no list of blocks.*`load` the folder"):
        dataclasses.replace(tiny_ar, model=model)


def test_all_linears_are_those_of_every_block_and_their_zeros_are_counted(tiny_dlm, calibration):
    expected = linears_of(tiny_dlm)
    assert list(tiny_dlm.all_linears().items()) == list(expected.items())
    assert tiny_dlm.prunable_weights == sum(linear.weight.numel() for linear in expected.values())

    with weights_kept(tiny_dlm):
        prune(tiny_dlm, preset("wanda"), calibration, progress=False)
        assert tiny_dlm.count_zeros() == sum(len(zeros) for zeros in zeros_of(tiny_dlm).values()) > 0
