"""Decoding left to right, and what it shares with denoising: padding, names of rows, early ends, refusals."""

import pytest
import torch

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.seeds import generator


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_decoding_equals_decoding_without_a_cache(tiny_ar, make_ids, temperature):
    prompt_BT = make_ids(3, 5)
    ids_BT = prompt_BT
    rngs = [generator(2, "decode", row) for row in range(3)]

    for _ in range(7):
        logits_BV = tiny_ar.model(ids_BT, use_cache=False).logits[:, -1].double()

        if temperature > 0:
            uniform_BV = torch.stack(
                [torch.rand(logits_BV.shape[1], generator=rng, dtype=torch.float64) for rng in rngs]
            )
            logits_BV = logits_BV / temperature - (-uniform_BV.log()).log()

        ids_BT = torch.cat([ids_BT, logits_BV.argmax(-1, keepdim=True)], 1)

    decoded_BT = decode(tiny_ar, prompt_BT, 7, temperature, seed=2)
    assert torch.equal(decoded_BT, ids_BT)

    alone = [decode(tiny_ar, prompt_BT[row : row + 1], 7, temperature, seed=2, first=row) for row in range(3)]
    assert torch.equal(torch.cat(alone), decoded_BT)


def test_each_kind_has_its_own_generator(tiny_ar, tiny_dlm, make_ids):
    with pytest.raises(ValueError, match="tiny-autoregressive is autoregressive: use `decode`"):
        generate(tiny_ar, make_ids(1, 3))
    with pytest.raises(ValueError, match="tiny-diffusion is diffusion: use `generate`"):
        decode(tiny_dlm, make_ids(1, 3), 2)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_rows_of_unequal_length_are_padded_without_a_trace(make_family, make_ids, positions):
    family = "gpt2" if positions == "learned" else "llama-gqa"  # learned ones show where positions begin
    tiny_dlm, tiny_ar = (make_family(family, kind) for kind in ("diffusion", "autoregressive"))
    prompts = [make_ids(1, length, seed=length)[0] for length in (7, 2, 5)]

    padded_BT, mask_BT = torch.full((3, 7), MASK_TOKEN_ID), torch.zeros(3, 7, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padded_BT[row, 7 - len(prompt) :], mask_BT[row, 7 - len(prompt) :] = prompt, 1

    options = {"seed": 5, "attention_mask_BT": mask_BT}

    for sampler in (
        Sampler(12, 6, 4, temperature=0.8),
        Sampler(12, 6, None, "random", "time", 1.0, "filtered", top_p=0.9),
        Sampler(12, 6, 4, guidance=1.0),
    ):
        together_BT = generate(tiny_dlm, padded_BT, sampler, **options)

        for row, prompt in enumerate(prompts):
            alone_BT = generate(tiny_dlm, prompt[None], sampler, seed=5, first=row)
            assert torch.equal(together_BT[row, 7 - len(prompt) :], alone_BT[0])

    for temperature in (0.0, 0.9):
        together_BT = decode(tiny_ar, padded_BT, 9, temperature, **options)

        for row, prompt in enumerate(prompts):
            alone_BT = decode(tiny_ar, prompt[None], 9, temperature, seed=5, first=row)
            assert torch.equal(together_BT[row, 7 - len(prompt) :], alone_BT[0])

    assert not torch.equal(
        generate(tiny_dlm, padded_BT, Sampler(12, 6, 4))[:, 7:],
        generate(tiny_dlm, padded_BT, Sampler(12, 6, 4), attention_mask_BT=mask_BT)[:, 7:],
    )


def test_generation_ends_early_without_changing_what_was_written(tiny_dlm, tiny_ar, make_ids):
    prompt_BT, sampler = make_ids(2, 4), Sampler(12, 9, 4)
    asked = []

    def enough(ids_BT):
        asked.append(int((ids_BT == MASK_TOKEN_ID).sum()))
        return len(asked) == 2

    ids_BT = generate(tiny_dlm, prompt_BT, sampler, until=enough)
    assert asked == [16, 8] and (ids_BT[:, 12:] == MASK_TOKEN_ID).all()
    assert torch.equal(ids_BT[:, :12], generate(tiny_dlm, prompt_BT, sampler)[:, :12])
    assert torch.equal(
        decode(tiny_ar, prompt_BT, 9, until=lambda ids_BT: ids_BT.shape[1] == 7),
        decode(tiny_ar, prompt_BT, 3),
    )


def test_prompts_of_a_wrong_shape_are_refused(tiny_dlm, make_ids):
    for prompt in (make_ids(1, 3)[0], make_ids(2, 3)[:, :0], make_ids(2, 3)[:0]):
        with pytest.raises(ValueError, match="prompts have shape"):
            generate(tiny_dlm, prompt)
    with pytest.raises(ValueError, match="must name each of 2 prompts"):
        generate(tiny_dlm, make_ids(2, 3), Sampler(8, 4, None), names=["one"])


def test_a_prompt_of_one_token_is_enough(tiny_dlm, make_ids):
    assert generate(tiny_dlm, make_ids(1, 1), Sampler(4, 2, None)).shape == (1, 5)


def test_padding_anywhere_but_on_the_left_is_refused(tiny_dlm, make_ids):
    for mask in ([1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1]):
        with pytest.raises(ValueError, match="zeros stand for padding on the left"):
            generate(tiny_dlm, make_ids(1, 3), Sampler(8, 4, None), attention_mask_BT=torch.tensor([mask]))
