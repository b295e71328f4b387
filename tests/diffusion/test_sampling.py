"""Denoising: a naive sampler to agree with, revealed tokens that stay, rows that do not depend on others."""

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
import torch
from naive_sampler import naive_generate

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core.diffusion.samplers import Order, Sampler, Schedule
from sinkprune_core.diffusion.sampling import decode, generate

pytestmark = pytest.mark.slow


def states_of(lm, prompt_BT, sampler, **options) -> list[torch.Tensor]:
    """Return the state before every step and the final one."""
    states = []
    final_BT = generate(
        lm, prompt_BT, sampler, watch=lambda step, ids_BT: states.append(ids_BT.clone()), **options
    )
    return [*states, final_BT]


SAMPLED = [
    Sampler(12, steps, block, order, schedule, temperature)
    for order in get_args(Order)
    for schedule in get_args(Schedule)
    for steps, block, temperature in ((6, 4, 0.0), (5, None, 0.8))
]
SAMPLED += [Sampler(12, 5, None, order, "time", 0.8, "filtered", top_p=0.7) for order in get_args(Order)]
SAMPLED += [
    Sampler(12, 4, None, "entropy", "time", 0.0, "filtered", top_p=0.6, top_k=9),
    Sampler(12, 4, None, "entropy", "time", 1.5, "filtered", top_k=3),
    Sampler(12, 4, None, "low_confidence", "time", 0.7, "filtered", top_k=8),
    Sampler(12, 6, 4, guidance=0.7),
    Sampler(12, 6, None, "entropy", "time", 1.2, "filtered", top_p=0.9, guidance=1.5),
]


def name_of(sampler) -> str:
    """Return what differs from the defaults."""
    names = ("order", "schedule", "proposal", "block", "temperature", "guidance", "top_p", "top_k")
    return "-".join(str(getattr(sampler, name)) for name in names)


every_sampler = pytest.mark.parametrize("sampler", SAMPLED, ids=name_of)


@every_sampler
def test_a_naive_sampler_writes_the_same_text(tiny_dlm, make_ids, sampler):
    prompt_BT = make_ids(2, 4)
    expected = [
        naive_generate(tiny_dlm, prompt_BT[row].tolist(), sampler, seed=3, row=row) for row in range(2)
    ]
    assert generate(tiny_dlm, prompt_BT, sampler, seed=3).tolist() == expected


@pytest.mark.parametrize("sampler", [SAMPLED[0], SAMPLED[-4]], ids=name_of)
def test_unshifted_logits_are_read_in_place(tiny_dlm, make_ids, sampler):
    lm, prompt_BT = replace(tiny_dlm, logits_shifted=False), make_ids(2, 4)
    expected = [naive_generate(lm, prompt_BT[row].tolist(), sampler, seed=3, row=row) for row in range(2)]
    assert generate(lm, prompt_BT, sampler, seed=3).tolist() == expected


@every_sampler
def test_committed_tokens_stay_and_every_step_commits_its_count(tiny_dlm, make_ids, sampler):
    prompt_BT = make_ids(3, 4)
    states = states_of(tiny_dlm, prompt_BT, sampler)

    assert len(states) == sampler.steps + 1
    assert (states[0][:, 4:] == MASK_TOKEN_ID).all()
    assert not (states[-1] == MASK_TOKEN_ID).any()

    for step, (before_BT, after_BT) in enumerate(pairwise(states)):
        changed_BT = before_BT != after_BT
        assert (before_BT[changed_BT] == MASK_TOKEN_ID).all()
        assert changed_BT.sum(1).tolist() == [sampler.reveals()[step]] * 3

        end = 4 + (step // (sampler.steps // sampler.blocks) + 1) * sampler.block_length
        assert not changed_BT[:, end:].any()

    for state_BT in states:
        assert torch.equal(state_BT[:, :4], prompt_BT)


@every_sampler
def test_a_row_is_the_same_alone_and_in_a_batch(tiny_dlm, make_ids, sampler):
    prompt_BT = make_ids(4, 5)
    together_BT = generate(tiny_dlm, prompt_BT, sampler, seed=1)
    alone = [generate(tiny_dlm, prompt_BT[row : row + 1], sampler, seed=1, first=row) for row in range(4)]
    assert torch.equal(torch.cat(alone), together_BT)
    others_BT = torch.cat([make_ids(2, 5, seed=9), prompt_BT[2:3], make_ids(1, 5, seed=8)])
    assert torch.equal(generate(tiny_dlm, others_BT, sampler, seed=1)[2], together_BT[2])


def test_temperature_draws_from_the_softened_softmax(tiny_dlm, make_ids):
    prompt_BT, draws = make_ids(1, 6).expand(3000, -1), 3000
    token_B = generate(tiny_dlm, prompt_BT, Sampler(1, 1, None, temperature=1.5), seed=0)[:, -1]
    where_BT = torch.arange(7)[None] == 6
    logits_V = tiny_dlm.logits_at(torch.cat([prompt_BT[:1], torch.full((1, 1), MASK_TOKEN_ID)], 1), where_BT)[
        0
    ]
    logits_V[MASK_TOKEN_ID] = -torch.inf
    share_V = token_B.bincount(minlength=len(logits_V)) / draws

    def deviation(temperature: float) -> float:
        p_V = (logits_V / temperature).softmax(-1)
        return float(((share_V - p_V).abs() / (p_V * (1 - p_V) / draws).sqrt().clamp_min(1 / draws)).max())

    assert deviation(1.5) < 4.5 < min(deviation(1.0), deviation(2.2))


def test_the_mask_is_never_a_prediction(tiny_dlm, make_ids):
    tiny_dlm.model.get_output_embeddings().weight[MASK_TOKEN_ID] *= 20
    prompt_BT, sampler = make_ids(8, 5), Sampler(8, 4, None)
    start_BT = torch.cat([prompt_BT, torch.full((8, 8), MASK_TOKEN_ID)], 1)
    assert (
        tiny_dlm.model(start_BT, use_cache=False).logits.argmax(-1)[:, 4:-1] == MASK_TOKEN_ID
    ).any()  # it would be
    assert not (generate(tiny_dlm, prompt_BT, sampler) == MASK_TOKEN_ID).any()


def test_padding_of_every_row_takes_no_position_and_changes_nothing(make_family, make_ids):
    lm = make_family("gpt2")
    prompt_BT = make_ids(2, 7)
    length = lm.model.config.n_positions - 7
    sampler = Sampler(length=length, steps=2, block=None)
    padded_BT = torch.cat([make_ids(2, 5, seed=1), prompt_BT], dim=1)
    mask_BT = torch.cat([torch.zeros(2, 5), torch.ones(2, 7)], dim=1).long()
    padded_BT = generate(lm, padded_BT, sampler, attention_mask_BT=mask_BT)
    assert torch.equal(padded_BT[:, 5:], generate(lm, prompt_BT, sampler))


def test_what_was_written_can_be_changed(tiny_dlm, tiny_ar, make_ids):
    prompt_BT, sampler = make_ids(1, 4), Sampler(2, 1, block=None)
    for written_BT in (generate(tiny_dlm, prompt_BT, sampler), decode(tiny_ar, prompt_BT, 2)):
        written_BT[0, 0] = 1
        assert not written_BT.is_inference()


# what comes from outside


def test_a_watcher_that_writes_into_its_state_changes_nothing(tiny_dlm, make_ids):
    prompt_BT, sampler = make_ids(2, 4), Sampler(8, 4, 4)
    plain_BT = generate(tiny_dlm, prompt_BT, sampler)
    watched_BT = generate(tiny_dlm, prompt_BT, sampler, watch=lambda step, ids_BT: ids_BT.fill_(20))
    assert torch.equal(watched_BT, plain_BT)
    asked_BT = generate(tiny_dlm, prompt_BT, sampler, until=lambda ids_BT: bool(ids_BT.fill_(20).sum() < 0))
    assert torch.equal(asked_BT, plain_BT)


def test_guidance_beyond_the_numbers_of_the_dtype_is_an_error(tiny_dlm, make_ids):
    with pytest.raises(ValueError, match=r"guidance=1e\+38 takes the logits of tiny-diffusion beyond"):
        generate(tiny_dlm, make_ids(1, 4), Sampler(8, 4, 4, guidance=1e38))


@pytest.mark.parametrize("temperature", [1e308, 1e-308, 1.1e6])
def test_a_temperature_that_float64_cannot_hold_is_refused(tiny_ar, make_ids, temperature):
    with pytest.raises(ValueError, match=r"^temperature="):
        Sampler(temperature=temperature)
    with pytest.raises(ValueError, match=r"^temperature="):
        decode(tiny_ar, make_ids(1, 4), 2, temperature=temperature)


@pytest.mark.parametrize("write", [generate, decode])
def test_what_is_no_language_model_is_a_type_error(tiny_dlm, make_ids, write):
    more = Sampler(8, 4, 4) if write is generate else 8
    with pytest.raises(TypeError, match=r"^lm=.*LanguageModel"):
        write(tiny_dlm.model, make_ids(1, 4), more)
    with pytest.raises(TypeError, match=r"^prompt_BT="):
        write(tiny_dlm, [[17, 18]], more)
