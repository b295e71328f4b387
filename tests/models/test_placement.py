"""A model spread over devices gives the same numbers as another, and a bad map is told early.

There is one device here: parts get accelerate's hooks as on several, what may lie where is read off the map.
"""

import pytest
import torch
from random_models.cases import CASES
from transformers import AutoModelForCausalLM

from sinkprune import load, prune, score
from sinkprune.models.gpt2 import all_turned
from sinkprune.models.loading import language_model, open_checkpoint
from sinkprune.models.placement import place
from sinkprune.models.reader import Checkpoint
from sinkprune.models.saving import save
from sinkprune.models.streaming import stream
from sinkprune_core import Calibration, Recipe, Sampler, generate, preset, trace, weights_kept
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.pruning.recipe import compared_preset

pytestmark = pytest.mark.slow

SAMPLER = Sampler(length=8, steps=4, block=4)
NAMES = ("llada", "dream", "a2d qwen3", "diffugpt", "llama", "gpt2")


def parts(name: str) -> dict[str, str]:
    """Return a map with an entry for every part of a model of three blocks."""
    if CASES[name].shape.gpt2:
        ends = ["transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"]
        blocks = [f"transformer.h.{layer}" for layer in range(3)]
    else:
        ends = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
        blocks = [f"model.layers.{layer}" for layer in range(3)]
    return dict.fromkeys(ends + blocks, "cpu")


def hooked(lm) -> int:
    return sum(hasattr(module, "_hf_hook") for module in lm.blocks)


@pytest.mark.parametrize("name", NAMES)
def test_a_spread_model_does_all_that_another_does(name, folder, tmp_path):
    lm, spread = load(folder(name)), load(folder(name), device_map=parts(name))
    assert hooked(spread) == 3 and hooked(lm) == 0
    text_NT = torch.randint(21, 66, (6, 16), generator=torch.Generator().manual_seed(1))
    prompts_BT = text_NT[:2, :4]
    one, other = (trace(model, prompts_BT, SAMPLER, progress=False) for model in (lm, spread))
    assert torch.equal(one.layers_BSLK, other.layers_BSLK) and torch.equal(one.final_BK, other.final_BK)
    sink_aware = compared_preset("unstable" if lm.is_diffusion else "wanda", sink_std=1.0)
    for recipe in (preset("sparsegpt", block_size=16), sink_aware):
        with weights_kept(lm), weights_kept(spread):
            calibration = Calibration(text_NT, batch=3)
            report, other = (prune(model, recipe, calibration, progress=False) for model in (lm, spread))
            assert report.linears.equals(other.linears)
            pruned = spread.model.state_dict()
            assert all(torch.equal(value, pruned[key]) for key, value in lm.model.state_dict().items())
            assert score(spread, text_NT, draws=2).value.equals(score(lm, text_NT, draws=2).value)

    def write_on(model):
        if model.is_diffusion:
            return generate(model, prompts_BT, SAMPLER)
        return decode(model, prompts_BT, 8)

    assert torch.equal(write_on(lm), write_on(spread)) and spread.fingerprint() == lm.fingerprint()
    stock = AutoModelForCausalLM.from_pretrained(save(spread, tmp_path / "saved"))
    assert torch.equal(stock(text_NT, use_cache=False).logits, lm.model(text_NT, use_cache=False).logits)


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({}, "device_map={} must be 'auto', a device such as 'cuda:1', or a mapping"),
        ("balanced", "device_map={'': 'balanced'}"),
        (
            {"model.layer.0": "cpu", "": "cpu"},
            "names 'model.layer.0': a part of LlamaForCausalLM is a module outside the blocks,",
        ),
        ({"model.layers.0.mlp": "cpu", "": "cpu"}, "a whole block, e.g. model.layers.0"),
    ],
)
def test_a_bad_map_is_one_error_before_any_weight_is_read(device_map, said, folder, monkeypatch):
    monkeypatch.setattr(Checkpoint, "tensor", lambda *args: pytest.fail("read a weight"))
    checkpoint = Checkpoint(folder("llada"))
    lm = language_model(checkpoint, checkpoint.skeleton())
    with pytest.raises(ValueError, match=said) as caught:
        place(lm.model, lm.blocks_name, device_map, torch.float32)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="device='mps' does not go with device_map"):
        load(folder("llada"), device="mps", device_map=device_map)


# streamed: that any recipe prunes such a model alike is a property in pruning/test_valid_recipes


@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_model_saves_what_stock_transformers_reads(name, folder, tmp_path):
    lm, streamed = load(folder(name)), stream(open_checkpoint(folder(name)), "streamed", torch.float32)

    for model, work in ((lm, None), (streamed, tmp_path / "work")):
        prune(model, Recipe("magnitude"), progress=False, work=work)

    out = save(streamed, tmp_path / "out", note="kept")
    again = load(out)

    ids_BT = torch.randint(21, 66, (4, 20), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        again.model(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits
    )

    stock = AutoModelForCausalLM.from_pretrained(out)
    expected = all_turned(again.model.config, again.model.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in stock.state_dict().items())

    assert again.kind == lm.kind
    assert again.mask_token_id == lm.mask_token_id
    assert again.logits_shifted == lm.logits_shifted

    with pytest.raises(FileExistsError, match="exists: choose another name"):
        save(streamed, out)
