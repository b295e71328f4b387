"""Attention mass of any model of transformers: in one line, padded, with a cache, with learned sinks."""

import re

import pytest
import torch
from conftest import ANY_FAMILY, tiny_llama
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartModel,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    MambaConfig,
    MambaModel,
    MistralConfig,
)

from sinkprune_core import attention_mass, hide, track
from sinkprune_core.sinks.attention import even_share, untracked

SIZES = {**ANY_FAMILY, "pad_token_id": 0, "attn_implementation": "eager"}
MORE = {
    "soft caps": (Gemma2Config, {"attn_logit_softcapping": 2.0, "sliding_window": 4}),
    "windows in some layers": (
        Gemma3TextConfig,
        {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "learned sinks": (GptOssConfig, {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4}),
}


def eager_mass(model, ids_BT, **padding) -> torch.Tensor:
    """Return the same from the maps that eager attention returns, (B, L, K)."""
    maps = model(ids_BT, output_attentions=True, use_cache=False, **padding).attentions
    return torch.stack([map_BHQK[..., : ids_BT.shape[1]].mean(1).sum(1) for map_BHQK in maps], 1)


@pytest.mark.parametrize("name", MORE)
@torch.no_grad()
def test_mass_is_that_of_eager_attention_and_the_output_stays(name, make_ids):
    config, more = MORE[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**{**SIZES, **more})).eval()

    if name == "learned sinks":
        for block in model.model.layers:
            block.self_attn.sinks.normal_()
    ids_BT = make_ids(2, 11)

    mass_BLK = attention_mass(model, ids_BT)
    torch.testing.assert_close(mass_BLK, eager_mass(model, ids_BT), atol=1e-4, rtol=1e-4)

    gives_all = torch.allclose(mass_BLK.sum(-1), torch.tensor(11.0), atol=1e-3)
    assert gives_all == (name != "learned sinks")  # of which a part goes to no key

    before_BTV = model(ids_BT, use_cache=False).logits
    with track(model) as tracker:
        during_BTV = model(ids_BT, use_cache=False).logits
        tracker.take()

    torch.testing.assert_close(during_BTV, before_BTV, atol=1e-4, rtol=1e-4)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", MORE)
@torch.no_grad()
def test_mass_of_padded_rows_is_that_of_eager_attention(name, make_ids):
    """On either side; queries of padding do not count."""
    config, more = MORE[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**{**SIZES, **more})).eval()

    ids_BT = make_ids(3, 9)
    attention_mask = torch.ones_like(ids_BT)
    attention_mask[0, 6:] = 0
    attention_mask[1, :2] = 0

    inputs = {"input_ids": ids_BT, "attention_mask": attention_mask}
    positions = {"position_ids": (attention_mask.cumsum(1) - 1).clamp_min(0)}
    maps = model(**inputs, **positions, output_attentions=True, use_cache=False).attentions
    counted_B1Q1 = attention_mask[:, None, :, None]
    expected = [(map_BHQK[..., :9] * counted_B1Q1).sum(2).mean(1) for map_BHQK in maps]

    mass_BLK = attention_mass(model, inputs)

    torch.testing.assert_close(mass_BLK, torch.stack(expected, 1), atol=1e-4, rtol=1e-4)
    assert not mass_BLK[attention_mask[:, None].expand_as(mass_BLK) == 0].any()

    with track(model, counted_BQ=attention_mask) as tracker:
        model(**inputs, **positions, use_cache=False)
        torch.testing.assert_close(tracker.take().mean(2)[:, :, 0], mass_BLK)


def test_random_dropout_is_refused(make_ids):
    for rate in ("attention_dropout", "layerdrop"):
        model = tiny_llama("gqa", 0)
        setattr(model.config, rate, 0.5)
        with pytest.raises(ValueError, match="LlamaForCausalLM is in training mode, where dropout is random"):
            attention_mass(model.train(), make_ids(1, 8))
        assert attention_mass(model.eval(), make_ids(1, 8)).shape == (1, 3, 8)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_gives_and_receives_nothing(make_lm, make_ids, side, causal):
    model = make_lm("autoregressive" if causal else "diffusion").model
    ids_BT = make_ids(2, 9)

    attention_mask = torch.ones_like(ids_BT)
    padding = slice(0, 3) if side == "left" else slice(6, 9)
    tokens = slice(3, 9) if side == "left" else slice(0, 6)
    attention_mask[0, padding] = 0
    position_ids = (attention_mask.cumsum(1) - 1).clamp_min(0)

    inputs = {"input_ids": ids_BT, "attention_mask": attention_mask, "position_ids": position_ids}
    mass_BLK = attention_mass(model, inputs)
    alone_BLK = attention_mass(model, ids_BT[:1, tokens])

    torch.testing.assert_close(mass_BLK[:1, :, tokens], alone_BLK, atol=1e-5, rtol=1e-5)
    assert not mass_BLK[0, :, padding].any()
    assert mass_BLK[1].sum(-1).tolist() == pytest.approx([9.0] * 3, rel=1e-5)


def test_mass_through_generation_with_a_cache_is_that_of_one_forward(tiny_ar, make_ids):
    ids_BT = make_ids(2, 6)
    mass_BLK = attention_mass(tiny_ar.model, ids_BT, new_tokens=5)
    written_BT = tiny_ar.model.generate(ids_BT, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    whole_BLK = attention_mass(tiny_ar.model, written_BT[:, :-1])  # the last token has had no query
    assert mass_BLK.shape == (2, 3, 10)
    torch.testing.assert_close(mass_BLK, whole_BLK, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["soft caps", "learned sinks"])
def test_attention_that_is_computed_from_the_whole_map_writes_with_a_cache_as_eager_does(name, make_ids):
    """One query after the other then meets many keys."""
    config, more = MORE[name]
    torch.manual_seed(0)
    wide = {"sliding_window": 64}  # so that no key is forgotten
    model = AutoModelForCausalLM.from_config(config(**{**SIZES, **more, **wide})).eval()
    if name == "learned sinks":
        for block in model.model.layers:
            torch.nn.init.normal_(block.self_attn.sinks)

    ids_BT = make_ids(2, 6)
    greedy = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    given = {"return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(ids_BT, **greedy, **given)
    with track(model, several=True) as tracker:
        found = model.generate(ids_BT, **greedy, **given)
        mass_BLK = tracker.take().mean(2)[:, :, 0]

    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4)
    whole_BLK = attention_mass(model, expected.sequences[:, :-1])
    torch.testing.assert_close(mass_BLK, whole_BLK, atol=1e-4, rtol=1e-4)


def test_a_cache_that_forgets_is_refused(make_ids):
    torch.manual_seed(0)
    config = MistralConfig(**{**SIZES, "sliding_window": 8})
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match="a cache that forgets tokens"):
        attention_mass(model, make_ids(1, 8), new_tokens=3)


def test_a_text_may_take_all_positions_and_no_more(tiny_ar, make_ids):
    most = tiny_ar.model.config.max_position_embeddings
    assert attention_mass(tiny_ar.model, make_ids(1, most - 1), new_tokens=1).shape[-1] == most - 1
    with pytest.raises(ValueError, match=f"exceed the {most} positions"):
        attention_mass(tiny_ar.model, make_ids(1, most), new_tokens=1)


def test_a_padded_prompt_goes_on_as_if_it_were_alone(tiny_ar, make_ids):
    ids_BT = make_ids(2, 6)
    attention_mask = torch.ones_like(ids_BT)
    attention_mask[0, :2] = 0
    mass_BLK = attention_mass(tiny_ar.model, {"input_ids": ids_BT, "attention_mask": attention_mask}, 4)
    for row, first in enumerate((2, 0)):
        alone_BLK = attention_mass(tiny_ar.model, ids_BT[row : row + 1, first:], 4)
        torch.testing.assert_close(mass_BLK[row : row + 1, :, first:], alone_BLK, atol=1e-5, rtol=1e-4)
        assert not mass_BLK[row, :, :first].any()


def test_blocks_may_stand_in_one_another(tiny_dlm, make_ids):
    ids_BT = make_ids(1, 8)

    with track(tiny_dlm.model) as outer, track(tiny_dlm.model, [(0, 4), (4, 8)]) as inner:
        tiny_dlm.hidden(ids_BT)
        both_BLHSK, parts_BLHSK = outer.take(), inner.take()

        with untracked(tiny_dlm.model):
            tiny_dlm.hidden(ids_BT)
        with pytest.raises(RuntimeError, match="no forward ran"):
            outer.take()

    torch.testing.assert_close(parts_BLHSK.sum(3, keepdim=True), both_BLHSK)
    assert not any("_sink_trackers" in module.__dict__ for module in tiny_dlm.model.modules())


def test_no_window_at_all_is_refused_before_a_forward(tiny_dlm):
    with pytest.raises(ValueError, match=r"windows .*empty.* None for"), track(tiny_dlm.model, windows=[]):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("windows", [[(0, 9)], [(-1, 3)], [(5, 4)]])
def test_windows_outside_the_forward_are_refused(tiny_dlm, make_ids, windows):
    with pytest.raises(ValueError, match="do not fit a forward of 8 queries"), track(tiny_dlm.model, windows):
        tiny_dlm.hidden(make_ids(1, 8))


def test_what_cannot_be_followed_is_refused_in_a_sentence(make_ids):
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1}
    bart = BartModel(BartConfig(**heads, decoder_layers=1, d_model=16, vocab_size=30))

    refused = {
        "BartModel is an encoder with a decoder": (bart, ValueError),
        "MambaModel has no attention that transformers": (MambaModel(MambaConfig(**sizes)), ValueError),
        "must be a model of transformers": (nn.Linear(2, 2), TypeError),
    }

    for said, (model, error) in refused.items():
        for use in (lambda model: track(model), lambda model: hide(model, torch.zeros(1, 4).bool())):
            with pytest.raises(error, match=said), use(model):
                pass

    counted = torch.ones(1, 5)
    model = tiny_llama("gqa", 0)
    with pytest.raises(ValueError, match=r"counted has shape \(1, 5\)"), track(model, counted_BQ=counted):
        model(make_ids(1, 8))


def test_where_a_model_of_transformers_lies_in_another_object_the_error_says_where(tiny_ar, make_ids):
    adapted = get_peft_model(tiny_llama("gqa", 0), LoraConfig(target_modules=["q_proj"])).eval()
    for given, way in ((adapted, "model.get_base_model()"), (tiny_ar, "model.model")):
        with pytest.raises(TypeError, match=f"give {re.escape(way)}$"):
            attention_mass(given, make_ids(1, 8))

    mass_BLK = attention_mass(adapted.get_base_model(), make_ids(1, 8))
    assert mass_BLK.shape == (1, 3, 8)


def test_an_attention_mask_of_another_shape_is_refused_by_its_name(make_ids):
    inputs = {"input_ids": make_ids(2, 8), "attention_mask": torch.ones(2, 7)}
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 7\).*\(2, 8\)"):
        attention_mass(tiny_llama("gqa", 0), inputs)


def test_even_shares_of_a_long_text_need_no_map_of_it():
    share_SK = even_share(200_000, [(0, 200_000), (150_000, 200_000)], causal=True)
    assert share_SK.shape == (2, 200_000)
    assert share_SK[1, :150_001].unique().numel() == 1 and share_SK[0, -1] == pytest.approx(1 / 200_000)
    assert share_SK.double().sum(1).tolist() == pytest.approx([200_000, 50_000], rel=1e-5)


def test_an_input_that_is_none_counts_as_left_out(make_ids):
    model = tiny_llama("gqa-24", seed=0)
    ids_BT = make_ids(2, 8)
    given = {"input_ids": ids_BT, "attention_mask": None}
    assert torch.equal(attention_mass(model, given), attention_mass(model, ids_BT))
