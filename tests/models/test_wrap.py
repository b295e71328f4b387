"""A model of one's own: what `wrap` makes of it, and what it refuses in a sentence."""

import pytest
import torch
from conftest import ANY_FAMILY, random_model, tiny_llama, word_tokenizer
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    SmolLM3Config,
)

from sinkprune import load, nelbo, nll, save, shrink
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core import Calibration, Sampler, generate, preset, weights_kept, wrap
from sinkprune_core import prune as prune_model
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.language_model import LanguageModel, set_direction
from sinkprune_core.wrapping import check_computation

SAMPLER = Sampler(length=8, steps=4, block=4)


def of_config(config, seed: int = 0, **more):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config(**{**ANY_FAMILY, **more})).eval()


SHRINKABLE = {
    "mistral": (MistralConfig, {"sliding_window": None}),
    "gemma": (GemmaConfig, {}),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0]}),
    "granite": (GraniteConfig, {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
}


def test_a_diffusion_model_of_one_s_own_goes_the_whole_way_without_a_tokenizer(make_ids):
    model = tiny_llama("gqa", 0).train()
    lm = wrap(model, mask_token_id=MASK_TOKEN_ID, logits_shifted=False)
    assert (lm.kind, lm.name, lm.model.training) == ("diffusion", "LlamaForCausalLM", False)

    ids_NT = make_ids(4, 16)
    prune_model(lm, preset("unstable", noise_levels=3), Calibration(ids_NT), progress=False)
    assert nelbo(lm, ids_NT, draws=1).value.notna().all()
    assert generate(lm, ids_NT[:1, :4], SAMPLER).shape == (1, 12)

    with pytest.raises(ValueError, match="has no tokenizer, which turns text into ids: give"):
        lm.encode("the list")


@pytest.mark.parametrize("name", SHRINKABLE)
def test_whole_units_leave_as_in_a_stock_model(name, make_ids, tmp_path):
    config, more = SHRINKABLE[name]
    lm = wrap(of_config(config, **more), word_tokenizer(), mask_token_id=MASK_TOKEN_ID, logits_shifted=True)

    ids_NT = make_ids(4, 16)
    report = prune_model(lm, preset("structured"), Calibration(ids_NT), progress=False)

    masked_BTV = lm.model(ids_NT, use_cache=False).logits
    smaller = shrink(lm, report.kept_units)
    assert (smaller.model.config.num_key_value_heads, smaller.model.config.intermediate_size) == (1, 24)
    torch.testing.assert_close(
        smaller.model(ids_NT, use_cache=False).logits, masked_BTV, atol=1e-4, rtol=1e-4
    )

    stock = AutoModelForCausalLM.from_pretrained(save(smaller, tmp_path / "smaller"))
    assert torch.equal(stock(ids_NT, use_cache=False).logits, smaller.model(ids_NT, use_cache=False).logits)


def test_a_loaded_model_takes_gradients_where_that_is_asked(tiny_ar, tmp_path):
    save(tiny_ar, tmp_path / "model")
    for trainable in (False, True):
        model = load(tmp_path / "model", trainable=trainable).model
        assert {parameter.requires_grad for parameter in model.parameters()} == {trainable}


# direction


def test_a_causal_model_is_no_diffusion_model(tiny_dlm):
    model = set_direction(tiny_llama("gqa", 0), causal=True)
    with pytest.raises(ValueError, match="is a diffusion model, and its outputs do not depend on"):
        check_computation(LanguageModel(model, None, "x", "diffusion", MASK_TOKEN_ID, True))

    as_causal = LanguageModel(tiny_dlm.model, None, "x", "autoregressive", None, True)
    with pytest.raises(ValueError, match="is autoregressive, and its outputs depend on"):
        check_computation(as_causal)


def test_weights_that_are_zero_are_not_called_a_direction(tiny_dlm):
    for parameter in tiny_dlm.model.parameters():
        parameter.data.zero_()
    with pytest.raises(ValueError, match="zero"):
        check_computation(tiny_dlm)


def test_wrap_sets_the_direction_both_ways(make_ids):
    model = tiny_llama("gqa", 0)
    ids_BT = make_ids(1, 9)
    causal_BTD = wrap(model).hidden(ids_BT)
    both_BTD = wrap(model, mask_token_id=MASK_TOKEN_ID, logits_shifted=True).hidden(ids_BT)
    assert not torch.allclose(causal_BTD[:, 0], both_BTD[:, 0], atol=1e-3)
    assert torch.equal(wrap(model).hidden(ids_BT), causal_BTD)


def direction_and_modes(model) -> list:
    parts = list(model.modules())
    return [vars(model.config).get("is_causal", "none")] + [
        (vars(part).get("is_causal", "none"), part.training) for part in parts
    ]


def test_a_model_that_is_refused_stays_as_it_was(make_ids):
    model = tiny_llama("gqa", 0).train()
    model.model.layers[1].eval()
    is_mixed = direction_and_modes(model)
    with pytest.raises(ValueError, match="mask_token_id=900 is outside the vocabulary of 72"):
        wrap(model, mask_token_id=900, logits_shifted=True)
    assert direction_and_modes(model) == is_mixed

    lm = wrap(model)
    wrapped = direction_and_modes(model)
    before_BTD = lm.hidden(make_ids(1, 9))
    with pytest.raises(ValueError, match="mask_token_id=900 is outside the vocabulary of 72"):
        wrap(model, mask_token_id=900, logits_shifted=True)
    assert direction_and_modes(model) == wrapped
    assert torch.equal(lm.hidden(make_ids(1, 9)), before_BTD)


def test_memory_that_does_not_suffice_is_not_taken_for_a_model_that_is_not_covered():
    model = tiny_llama("gqa", 0)
    calls = []

    def run_out(module, args):
        calls.append(module)
        if len(calls) == 3:  # after two texts through the whole model the blocks run one by one
            raise torch.OutOfMemoryError("out of memory")

    model.model.layers[0].register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        wrap(model)


def test_what_must_be_said_is_asked_for():
    with pytest.raises(ValueError, match="logits_shifted must be said of a diffusion model"):
        wrap(tiny_llama("gqa", 0), mask_token_id=MASK_TOKEN_ID)
    with pytest.raises(ValueError, match="logits_shifted=False does not fit an autoregressive model"):
        wrap(tiny_llama("gqa", 0), logits_shifted=False)
    with pytest.raises(ValueError, match="mask_token_id=900 is outside the vocabulary of 72"):
        wrap(tiny_llama("gqa", 0), mask_token_id=900, logits_shifted=True)


# what is refused


def linear_of(model) -> nn.Linear:
    return model.model.layers[1].mlp.up_proj


def parametrised(model):
    parametrize.register_parametrization(linear_of(model), "weight", nn.Identity())
    return model


def weight_normed(model):
    parametrised_by_norm = torch.nn.utils.parametrizations.weight_norm
    parametrised_by_norm(linear_of(model))
    return model


def masked(model):
    torch_prune.random_unstructured(linear_of(model), "weight", 0.5)
    return model


def injected(model):
    return inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], r=2), model)


def whole_numbers(model):
    linear = linear_of(model)
    linear.weight = nn.Parameter(torch.zeros(linear.weight.shape, dtype=torch.int8), requires_grad=False)
    return model


def without_blocks(model):
    model.model.layers = nn.ModuleList()
    return model


def identity(model):
    model.model.layers[0] = nn.Identity()
    return model


def sparse(model):
    linear = linear_of(model)
    linear.weight = nn.Parameter(linear.weight.detach().to_sparse(), requires_grad=False)
    return model


def tied(model):
    linear_of(model).weight = model.model.layers[0].mlp.up_proj.weight
    return model


def in_one_memory(model):
    shared_OI = model.model.layers[0].mlp.up_proj.weight.detach()
    linear_of(model).weight = nn.Parameter(shared_OI, requires_grad=False)
    return model


def compiled_inside(model):
    model.model.layers[1] = torch.compile(model.model.layers[1])
    return model


def fewer_layers(model):
    model.config.num_hidden_layers = 2
    return model


def looped(model):
    """Let the stack run twice in a forward."""
    base = model.model
    once = base.forward

    def twice(input_ids=None, **arguments):
        first_BTD = once(input_ids, **arguments).last_hidden_state
        return once(inputs_embeds=first_BTD, **arguments)

    base.forward = twice
    return model


def blind(model):
    """Let a linear see only the first token, as one of an expert sees those that are sent to it."""
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda x_BTD: mlp.down_proj(mlp.gate_proj(x_BTD)) + mlp.up_proj(x_BTD[:, :1]).mean()
    return model


CHANGED = {
    parametrised: "the weight of mlp.up_proj of block 1 is computed from other parameters",
    weight_normed: "the weight of mlp.up_proj of block 1 is computed from other parameters",
    masked: "the weight of mlp.up_proj of block 1 is computed from other parameters",
    injected: "q_proj.base_layer of block 0 .*: only torch's own linears .*; merge adapters",
    whole_numbers: r"up_proj of block 1 .* with a Tensor of torch.int8 .*: only torch's own linears",
    without_blocks: "has no block: there is nothing to prune",
    identity: "block 0, a Identity, has no linear to prune",
    sparse: r"up_proj of block 1 .*\(torch.sparse_coo\): only torch's own linears with dense weights",
    tied: "mlp.up_proj of block 1 has the weight of mlp.up_proj of block 0: what is pruned for one would",
    compiled_inside: "the whole of block 1 is compiled, and what its linears receive cannot be seen",
    fewer_layers: r"runs its 3 blocks in the order \[0, 1\]: only models that run every block once",
    looped: r"runs its 3 blocks in the order \[0, 1, 2, 0, 1, 2\]: only models that run every block once",
    blind: "up_proj of block 1 of LlamaForCausalLM receives 2 of 10 tokens: .* not covered",
}


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change.__name__)
def test_a_model_that_pruning_would_not_reach_is_refused(change):
    with pytest.raises(ValueError, match=CHANGED[change]) as caught:
        wrap(change(tiny_llama("gqa", 0)))
    assert "\n" not in str(caught.value)


def test_blocks_of_several_widths_are_looked_at_one_by_one(make_ids):
    model = tiny_llama("gqa-24", 0)
    mlp = model.model.layers[1].mlp
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = nn.Linear(24, 42), nn.Linear(24, 42), nn.Linear(42, 24)
    lm = wrap(model)
    text = Calibration(make_ids(2, 8))

    with pytest.raises(ValueError, match=r"groups of 4; mlp\.down_proj of block 1 has 42: use another M"):
        prune_model(lm, preset("wanda", pattern="2:4"), text, progress=False)
    with pytest.raises(ValueError, match="blocks of LlamaForCausalLM differ"):
        prune_model(lm, preset("structured"), text, progress=False)

    report = prune_model(lm, preset("wanda", pattern="2:4", ignore="1.*"), text, progress=False)
    assert report.sparsity == 0.5


SINCE = {
    parametrised: "the weight of mlp.up_proj of block 1 is computed from other parameters",
    masked: "the weight of mlp.up_proj of block 1 is computed from other parameters",
    tied: "mlp.up_proj of block 1 has the weight of mlp.up_proj of block 0",
    in_one_memory: "mlp.up_proj of block 1 has the weight of mlp.up_proj of block 0",
    compiled_inside: "the whole of block 1 is compiled",
}


@pytest.mark.parametrize("change", SINCE, ids=lambda change: change.__name__)
def test_a_model_that_was_changed_since_it_was_wrapped_is_looked_at_again(change, make_ids, tmp_path):
    lm = wrap(tiny_llama("gqa", 0))
    change(lm.model)

    for use in (
        lambda: prune_model(lm, preset("wanda"), Calibration(make_ids(2, 8)), progress=False),
        lambda: weights_kept(lm).__enter__(),
        lambda: save(lm, tmp_path / "saved"),
    ):
        with pytest.raises(ValueError, match=SINCE[change]):
            use()

    assert not (tmp_path / "saved").exists()


def test_a_part_that_has_no_numbers_since_is_never_computed_with(make_ids):
    """Such a part reads what happens to lie in memory: another text each time."""
    lm = wrap(tiny_llama("gqa", 0))
    linear_of(lm.model).to("meta")
    said = r"layers.1.mlp.up_proj.weight of LlamaForCausalLM has no numbers, only a shape: load the model"

    for use in (
        lambda: nll(lm, make_ids(2, 8)),
        lambda: decode(lm, make_ids(2, 8), 4),
        lambda: weights_kept(lm).__enter__(),
        lambda: lm.fingerprint(),
    ):
        with pytest.raises(ValueError, match=said):
            use()


def test_a_model_that_has_no_numbers_at_all_since_is_refused(make_ids):
    lm = wrap(tiny_llama("gqa", 0))
    lm.model.to("meta")
    calibration = Calibration(make_ids(2, 8))

    for use in (
        lambda: nll(lm, make_ids(2, 8)),
        lambda: prune_model(lm, preset("wanda"), calibration, progress=False),
        lambda: prune_model(lm, preset("magnitude"), progress=False),
    ):
        with pytest.raises(ValueError, match="LlamaForCausalLM has no numbers, only a shape: load the model"):
            use()


def test_what_is_no_decoder_of_transformers_is_refused():
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "vocab_size": 30}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}

    with pytest.raises(ValueError, match=r"BartForConditionalGeneration has 2 lists of blocks.*give a class"):
        wrap(BartForConditionalGeneration(BartConfig(**sizes, **heads)))

    with pytest.raises(ValueError, match="LlamaModel has no output head"):
        wrap(random_model(LlamaModel, LlamaConfig(**ANY_FAMILY), 0))

    with pytest.raises(TypeError, match=r"model=Linear\(.*\) must be a model of transformers"):
        wrap(nn.Linear(2, 2))

    with pytest.raises(TypeError, match="model='smol-dlm' must be a model of transformers"):
        wrap("smol-dlm")

    with pytest.raises(TypeError, match="model is a PeftModel, a base with an adapter: merge it first"):
        wrap(get_peft_model(tiny_llama("gqa", 0), LoraConfig(target_modules=["q_proj"])))

    with (
        torch.device("meta"),
        pytest.raises(ValueError, match="has no weights, only a shape: load them first"),
    ):
        wrap(of_config(MistralConfig))


def test_of_a_compiled_model_the_original_is_taken():
    model = tiny_llama("gqa", 0)
    assert wrap(torch.compile(model)).model is model
    with pytest.raises(TypeError, match=r"a compiled model: give what was compiled, model\._orig_mod"):
        LanguageModel(torch.compile(model), None, "x", "autoregressive", None, True)


def test_a_model_that_stores_weights_transposed_is_refused_with_the_way_in(make_ids, tmp_path):
    """GPT-2's linears are plain ones once it is read from its files, and compute the same."""
    model = of_config(GPT2Config, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=64)
    with pytest.raises(ValueError, match=r"c_attn.weight of block 0 .*`sinkprune\.load\(folder\)` reads"):
        wrap(model)

    model.save_pretrained(tmp_path / "gpt2")
    word_tokenizer().save_pretrained(tmp_path / "gpt2")
    lm = load(tmp_path / "gpt2")
    ids_BT = make_ids(2, 9)
    torch.testing.assert_close(lm.model(ids_BT).logits, model(ids_BT).logits)
    assert {type(linear) for linear in lm.linears(lm.blocks[0]).values()} == {nn.Linear}
    assert tuple(lm.blocks[0].mlp.c_fc.weight.shape) == (48, 32)

    again = AutoModelForCausalLM.from_pretrained(save(lm, tmp_path / "saved")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_a_model_whose_dropout_is_on_scores_nothing(make_family, make_ids):
    lm = make_family("gpt2", "autoregressive")
    lm.model.train()
    with pytest.raises(ValueError, match=r"training mode, where dropout is random: call model.eval\(\)"):
        nll(lm, make_ids(1, 8))
    with pytest.raises(ValueError, match=r"training mode, where dropout is random: call model.eval\(\)"):
        LanguageModel(lm.model, None, "x", "autoregressive", None, True)

    lm.model.eval()
    lm.blocks[1].train()  # a part alone, as who freezes the others does
    with pytest.raises(ValueError, match=r"training mode, where dropout is random: call model.eval\(\)"):
        nll(lm, make_ids(1, 8))


def test_sinks_are_left_out_whatever_attention_a_model_was_loaded_with(make_ids):
    """Masks are made for the attention in use, and sinks are tracked by another one."""
    recipe = preset("wanda", exclude="all", noise_levels=2, sink_std=0.5)
    text = Calibration(make_ids(2, 8))
    left_out = {}
    for attention in ("sdpa", "flex_attention", "eager"):
        model = tiny_llama("gqa", 0)
        lm = wrap(model, mask_token_id=MASK_TOKEN_ID, logits_shifted=True)
        model.set_attn_implementation(attention)
        with torch.compiler.set_stance("force_eager"):  # flex_attention would be compiled, which takes long
            left_out[attention] = prune_model(lm, recipe, text, progress=False).left_out_share
    assert len(set(left_out.values())) == 1 and left_out["sdpa"] > 0
