"""Every public format gives the numbers that the papers' formulas give, in a native class.

No 7B checkpoint is read here: formats are those of published configurations and modeling files, but small.
"""

from dataclasses import replace

import pytest
import torch
from families import edit, outputs, reference, some_ids
from random_models.cases import CASES
from transformers import AutoModelForCausalLM

from sinkprune.models.loading import load

ROTARY = [name for name, case in CASES.items() if not case.shape.gpt2]


@pytest.mark.parametrize("name", CASES)
def test_a_public_checkpoint_gives_what_the_formulas_give(name, written):
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_BT = load(folder), some_ids(case)
    expected_TV = reference(parts, case.shape, ids_BT[0], causal=case.causal)
    torch.testing.assert_close(outputs(lm, ids_BT, expected_TV.shape[1]), expected_TV, atol=1e-4, rtol=1e-4)

    assert expected_TV.std() > 0.05
    assert type(lm.model).__name__ == case.native
    assert lm.kind == ("autoregressive" if case.causal else "diffusion")
    assert lm.mask_token_id == case.mask
    assert lm.logits_shifted == case.shifted
    assert not lm.model.training and lm.model.dtype == torch.float32


@pytest.mark.parametrize(
    ("mistake", "name"),
    [(mistake, name) for mistake in ("direction", "epsilon") for name in CASES]
    + [(mistake, name) for mistake in ("swapped", "theta") for name in ROTARY],
)
def test_a_mistake_in_the_formulas_would_be_noticed(mistake, name, written):
    """The controls: each of these is one line of a key or configuration map gone wrong."""
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_BT = load(folder), some_ids(case)
    shape = case.shape
    causal = case.causal

    if mistake == "direction":
        causal = not causal
    elif mistake == "theta":
        shape = replace(shape, theta=shape.theta * 3)
    elif mistake == "epsilon":
        shape = replace(shape, epsilon=1e-6 if shape.epsilon == 1e-5 else 1e-5)

    wrong_TV = reference(parts, shape, ids_BT[0], causal, swapped=mistake == "swapped")
    assert not torch.allclose(outputs(lm, ids_BT, wrong_TV.shape[1]), wrong_TV, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llada", "dream", "gpt2"])
def test_parameters_take_the_dtype_and_rotary_frequencies_stay_float32(name, written):
    lm = load(written(name)[0], "bfloat16")
    assert lm.model.config.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in lm.model.buffers()} <= {torch.float32}

    again = load(written(name)[0])
    assert all(
        torch.equal(parameter, again.model.get_parameter(key).to(torch.bfloat16))
        for key, parameter in lm.model.named_parameters()
    )
    assert all(torch.equal(buffer, again.model.get_buffer(key)) for key, buffer in lm.model.named_buffers())


def test_llama_3_s_scaled_rotary_frequencies_are_those_of_transformers(fresh):
    folder = fresh("llama")

    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
        "rope_type": "llama3",
    }

    edit(folder, rope_scaling=scaling)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = load(folder)
    ids_BT = some_ids(CASES["llama"])

    assert lm.model.config.rope_parameters["rope_type"] == "llama3"
    assert torch.equal(lm.model(ids_BT, use_cache=False).logits, stock(ids_BT, use_cache=False).logits)
    assert torch.equal(lm.model.model.rotary_emb.inv_freq, stock.model.rotary_emb.inv_freq)
