"""Noising and sampling: exact counts, committed tokens that stay, rows that do not know of each other, and a naive sampler to agree with."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from sinkprune_core.diffusion.sampling import (
    DREAM,
    LLADA,
    ORDERS,
    SAMPLERS,
    SCHEDULES,
    Sampler,
    corrupt,
    decode,
    even_split,
    generate,
    random_mask,
    stratified_counts,
)
from sinkprune_core.models.embedded import MASK_TOKEN_ID
from sinkprune_core.models.language_model import LanguageModel, set_direction
from sinkprune_core.seeds import generator


def naive_reveals(sampler) -> list[int]:
    """Return the tokens per step, by hand: an even share with the rest going first, or the share 1 - s/t of what is left."""
    blocks = 1 if sampler.block is None else sampler.length // sampler.block
    steps, counts = sampler.steps // blocks, []
    for _ in range(blocks):
        left = sampler.length // blocks
        for step in range(steps):
            if sampler.schedule == "even":
                count = math.ceil(left / (steps - step))
            elif step == steps - 1:
                count = left
            else:
                t, s = (1 - 0.999 * index / steps for index in (step, step + 1))
                count = math.floor(left * (1 - s / t) + 1e-9)
            counts.append(count)
            left -= count
    return counts


def naive_gumbel(u: float) -> float:
    return -math.log(-math.log(u))


def naive_filter(logits: list[float], sampler) -> list[float]:
    """Return the probabilities that temperature, top-p and top-k leave, by sorting and summing."""
    logits = [logit / (sampler.temperature or 1) for logit in logits]
    kept = sorted(range(len(logits)), key=lambda token: -logits[token])
    if sampler.top_p is not None:
        top, whole, above, chosen = (
            max(logits),
            sum(math.exp(logit - max(logits)) for logit in logits),
            0.0,
            [],
        )
        for token in kept:
            if not chosen or above <= sampler.top_p:
                chosen.append(token)
            above += math.exp(logits[token] - top) / whole
        kept = chosen
    if sampler.top_k is not None:
        kept = kept[: sampler.top_k]
    weights = [math.exp(logit - max(logits)) if token in kept else 0.0 for token, logit in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


def naive_generate(lm, prompt: list[int], sampler, seed: int, row: int) -> list[int]:
    """Denoise one prompt with whole-sequence logits, lists and loops."""
    rng, ids = generator(seed, "generate", row), prompt + [MASK_TOKEN_ID] * sampler.length
    blocks = 1 if sampler.block is None else sampler.length // sampler.block
    width, per_block = sampler.length // blocks, sampler.steps // blocks
    origin = sampler.order == "origin"
    for step, count in enumerate([None] * sampler.steps if origin else naive_reveals(sampler)):
        logits_TV = lm.model(torch.tensor([ids]), use_cache=False).logits[0].double()
        if sampler.guidance:
            blind = [MASK_TOKEN_ID] * len(prompt) + ids[len(prompt) :]
            blind_TV = lm.model(torch.tensor([blind]), use_cache=False).logits[0].double()
            logits_TV = blind_TV + (sampler.guidance + 1) * (logits_TV - blind_TV)
        masked = [position for position in range(len(prompt), len(ids)) if ids[position] == MASK_TOKEN_ID]
        uniform = None
        if sampler.temperature > 0:
            uniform = torch.rand(
                len(masked),
                1 if sampler.proposal == "filtered" else logits_TV.shape[1],
                generator=rng,
                dtype=torch.float64,
            )
        proposals = []
        for place, position in enumerate(masked):
            logits = logits_TV[position - lm.logits_shifted].tolist()
            logits[MASK_TOKEN_ID] = -math.inf
            if sampler.logits_eos_inf:
                logits[lm.tokenizer.eos_token_id] = -math.inf
            if sampler.proposal == "filtered":
                p = naive_filter(logits, sampler)
                token, above = p.index(max(p)), 0.0
                if uniform is not None:
                    for token in range(len(p)):
                        above += p[token]
                        if above > float(uniform[place]):
                            break
            else:
                total = math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits)
                noisy = (
                    logits
                    if uniform is None
                    else [
                        logit + sampler.temperature * naive_gumbel(u)
                        for logit, u in zip(logits, uniform[place].tolist(), strict=True)
                    ]
                )
                token = noisy.index(max(noisy))
                p = [math.exp(logit - total) for logit in logits]
            ends = (
                [0, 2] if sampler.confidence_eos_eot_inf else []
            )  # <|endoftext|> and <|im_end|> of the word tokenizer
            if ends:
                p = [0.0 if word in ends else q for word, q in enumerate(p)]
                p = [q / sum(p) for q in p]
            best, second = sorted(p, reverse=True)[:2]
            sure = {"entropy": sum(q * math.log(q) for q in p if q > 0), "topk_margin": best - second}.get(
                sampler.order, p[token]
            )
            proposals.append((position, token, sure))
        if sampler.order == "random":
            chance = torch.rand(len(masked), generator=rng, dtype=torch.float64).tolist()
            proposals = [
                (position, token, c) for (position, token, _), c in zip(proposals, chance, strict=True)
            ]
        if sampler.order_temperature:
            noise = torch.rand(len(masked), generator=rng, dtype=torch.float64).tolist()
            proposals = [
                (position, token, sure / sampler.order_temperature + naive_gumbel(u))
                for (position, token, sure), u in zip(proposals, noise, strict=True)
            ]
        proposals = (
            [(position, token, -math.inf if token in ends else sure) for position, token, sure in proposals]
            if masked
            else []
        )
        end = len(prompt) + width * (step // per_block + 1)
        if origin:
            t, s = (1 - 0.999 * index / per_block for index in (step % per_block, step % per_block + 1))
            share = 1.0 if (step + 1) % per_block == 0 else 1 - s / t
            chance = torch.rand(len(masked), generator=rng, dtype=torch.float64).tolist()
            inside = [
                proposal
                for proposal, u in zip(proposals, chance, strict=True)
                if proposal[0] < end and u < share
            ]
        else:
            inside = sorted(
                (proposal for proposal in proposals if proposal[0] < end), key=lambda proposal: -proposal[2]
            )[:count]
        for position, token, _ in inside:
            ids[position] = token
    return ids


def states_of(lm, prompt_BT, sampler, **options) -> list[torch.Tensor]:
    """Return the state before every step and the final one."""
    states = []
    final_BT = generate(
        lm, prompt_BT, sampler, watch=lambda step, ids_BT: states.append(ids_BT.clone()), **options
    )
    return [*states, final_BT]


COUNTED = [
    order for order in ORDERS if order != "origin"
]  # these commit a number of tokens that is known beforehand
SAMPLED = [
    Sampler(12, steps, block, order, schedule, temperature)
    for order in COUNTED
    for schedule in SCHEDULES
    for steps, block, temperature in ((6, 4, 0.0), (5, None, 0.8))
]
SAMPLED += [Sampler(12, 5, None, order, "time", 0.8, "filtered", top_p=0.7) for order in COUNTED]
SAMPLED += [
    Sampler(12, 4, None, "entropy", "time", 0.0, "filtered", top_p=0.6, top_k=9),
    Sampler(12, 4, None, "topk_margin", "time", 1.5, "filtered", top_k=3),
    Sampler(12, 4, None, "maskgit_plus", "time", 0.7, "filtered", top_k=8, order_temperature=0.3),
    Sampler(12, 4, None, "entropy", "time", 0.0, "filtered", order_temperature=2.0),
    Sampler(12, 6, 4, guidance=0.7),
    Sampler(12, 6, None, "entropy", "time", 1.2, "filtered", top_p=0.9, guidance=1.5),
    Sampler(12, 6, 4, logits_eos_inf=True),
    Sampler(12, 6, 4, temperature=3.0, confidence_eos_eot_inf=True),
    Sampler(12, 6, None, "entropy", confidence_eos_eot_inf=True),
]
CHANCE = [
    Sampler(12, 5, None, "origin", "time", 0.8),
    Sampler(12, 6, 4, "origin", "time", 0.2, "filtered", top_p=0.95),
]


def name_of(sampler) -> str:
    """Return what differs from the defaults."""
    return "-".join(
        f"{value}"
        for value in (
            sampler.order,
            sampler.schedule,
            sampler.proposal,
            sampler.block,
            sampler.temperature,
            sampler.guidance,
            sampler.top_p,
            sampler.top_k,
        )
    )


every_sampler = pytest.mark.parametrize("sampler", SAMPLED + CHANCE, ids=name_of)
every_counted_sampler = pytest.mark.parametrize("sampler", SAMPLED, ids=name_of)


@every_sampler
def test_a_naive_sampler_writes_the_same_text(tiny_dlm, make_ids, sampler):
    prompt_BT = make_ids(2, 4)
    expected = [
        naive_generate(tiny_dlm, prompt_BT[row].tolist(), sampler, seed=3, row=row) for row in range(2)
    ]
    assert generate(tiny_dlm, prompt_BT, sampler, seed=3).tolist() == expected


@pytest.mark.parametrize("sampler", [SAMPLED[0], SAMPLED[-4], CHANCE[0]], ids=name_of)
def test_unshifted_logits_are_read_in_place(tiny_dlm, make_ids, sampler):
    lm, prompt_BT = replace(tiny_dlm, logits_shifted=False), make_ids(2, 4)
    expected = [naive_generate(lm, prompt_BT[row].tolist(), sampler, seed=3, row=row) for row in range(2)]
    assert generate(lm, prompt_BT, sampler, seed=3).tolist() == expected


@every_counted_sampler
def test_committed_tokens_stay_and_every_step_commits_its_count(tiny_dlm, make_ids, sampler):
    prompt_BT = make_ids(3, 4)
    states = states_of(tiny_dlm, prompt_BT, sampler)
    assert len(states) == sampler.steps + 1
    assert (states[0][:, 4:] == MASK_TOKEN_ID).all()
    assert not (states[-1] == MASK_TOKEN_ID).any()
    for step, (before_BT, after_BT) in enumerate(zip(states[:-1], states[1:], strict=True)):
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


def test_seeds_and_rows_have_their_own_random_numbers(tiny_dlm, make_ids):
    sampler, prompt_BT = Sampler(12, 6, None, temperature=1.0), make_ids(1, 5).expand(3, -1)
    ids_BT = generate(tiny_dlm, prompt_BT, sampler, seed=0)
    assert len(set(map(tuple, ids_BT.tolist()))) == 3
    assert torch.equal(generate(tiny_dlm, prompt_BT, sampler, seed=0), ids_BT)
    assert not torch.equal(generate(tiny_dlm, prompt_BT, sampler, seed=1), ids_BT)


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


def test_a_mask_token_in_the_prompt_is_left_alone(tiny_dlm, make_ids):
    prompt_BT = make_ids(2, 5)
    prompt_BT[0, 3] = MASK_TOKEN_ID
    for state_BT in states_of(tiny_dlm, prompt_BT, Sampler(8, 4, 4)):
        assert torch.equal(state_BT[:, :5], prompt_BT)


def test_the_watcher_sees_the_input_of_the_forward_before_it(tiny_dlm, make_ids):
    seen, fed = [], []
    handle = tiny_dlm.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: fed.append(args[0].clone())
    )
    generate(
        tiny_dlm,
        make_ids(2, 3),
        Sampler(6, 3, None),
        watch=lambda step, ids_BT: seen.append((step, len(fed), ids_BT.clone())),
    )
    handle.remove()
    assert [step for step, _, _ in seen] == [0, 1, 2] and [forwards for _, forwards, _ in seen] == [1, 2, 3]
    for (_, _, ids_BT), fed_BT in zip(seen, fed, strict=True):
        assert torch.equal(ids_BT, fed_BT)


def test_a_random_order_is_random_and_confidence_is_not(tiny_dlm, make_ids):
    def order(sampler, seed):
        return [
            tuple((state_BT[0, 5:] != MASK_TOKEN_ID).tolist())
            for state_BT in states_of(tiny_dlm, make_ids(1, 5), sampler, seed=seed)
        ]

    assert order(Sampler(12, 12, None, "random"), 0) != order(Sampler(12, 12, None, "random"), 1)
    for name in ("low_confidence", "entropy"):
        assert order(Sampler(12, 12, None, name), 0) == order(Sampler(12, 12, None, name), 1)


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


def tiny_gpt2(like) -> LanguageModel:
    """Return a tiny model with a learned vector per position, of the kind of `like`: it shows where a position is counted from."""
    torch.manual_seed(0)
    model = (
        GPT2LMHeadModel(
            GPT2Config(vocab_size=72, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.4)
        )
        .eval()
        .requires_grad_(False)
    )
    return replace(like, model=set_direction(model, causal=not like.is_diffusion))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_rows_of_unequal_length_are_padded_without_a_trace(tiny_dlm, tiny_ar, make_ids, positions):
    if positions == "learned":
        tiny_dlm, tiny_ar = tiny_gpt2(tiny_dlm), tiny_gpt2(tiny_ar)
    prompts = [make_ids(1, length, seed=length)[0] for length in (7, 2, 5)]
    padded_BT, mask_BT = torch.full((3, 7), MASK_TOKEN_ID), torch.zeros(3, 7, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padded_BT[row, 7 - len(prompt) :], mask_BT[row, 7 - len(prompt) :] = prompt, 1
    options = {"seed": 5, "attention_mask_BT": mask_BT}
    for sampler in (
        Sampler(12, 6, 4, temperature=0.8),
        Sampler(12, 6, None, "origin", "time", 1.0, "filtered", top_p=0.9),
        Sampler(12, 6, 4, guidance=1.0),
    ):
        together_BT = generate(tiny_dlm, padded_BT, sampler, **options)
        for row, prompt in enumerate(prompts):
            assert torch.equal(
                together_BT[row, 7 - len(prompt) :],
                generate(tiny_dlm, prompt[None], sampler, seed=5, first=row)[0],
            )
    for temperature in (0.0, 0.9):
        together_BT = decode(tiny_ar, padded_BT, 9, temperature, **options)
        for row, prompt in enumerate(prompts):
            assert torch.equal(
                together_BT[row, 7 - len(prompt) :],
                decode(tiny_ar, prompt[None], 9, temperature, seed=5, first=row)[0],
            )
    assert not torch.equal(
        generate(tiny_dlm, padded_BT, Sampler(12, 6, 4))[:, 7:],
        generate(tiny_dlm, padded_BT, Sampler(12, 6, 4), attention_mask_BT=mask_BT)[:, 7:],
    )


def test_names_carry_the_random_numbers_of_a_row(tiny_dlm, tiny_ar, make_ids):
    prompt_BT, sampler = make_ids(1, 4).expand(3, -1), Sampler(8, 4, None, temperature=1.0)
    ids_BT = generate(tiny_dlm, prompt_BT, sampler, names=["a", "b", "a"])
    assert torch.equal(ids_BT[0], ids_BT[2]) and not torch.equal(ids_BT[0], ids_BT[1])
    assert torch.equal(generate(tiny_dlm, prompt_BT[:1], sampler, names=["b"])[0], ids_BT[1])
    decoded_BT = decode(tiny_ar, prompt_BT, 8, 1.0, names=["a", "b", "a"])
    assert torch.equal(decoded_BT[0], decoded_BT[2]) and not torch.equal(decoded_BT[0], decoded_BT[1])


def test_generation_ends_early_without_changing_what_was_written(tiny_dlm, tiny_ar, make_ids):
    prompt_BT, sampler = make_ids(2, 4), Sampler(12, 6, 4)
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


@pytest.mark.parametrize("sampler", CHANCE, ids=name_of)
def test_an_origin_step_commits_a_binomial_number(tiny_dlm, make_ids, sampler):
    states = states_of(tiny_dlm, make_ids(1, 4).expand(600, -1), sampler)
    per_block = sampler.steps // sampler.blocks
    t, s = 1, 1 - 0.999 / per_block
    first_B = (states[0] != states[1]).sum(1).double()
    expected, variance = sampler.block_length * (1 - s / t), sampler.block_length * (1 - s / t) * s / t
    assert (
        abs(first_B.mean() - expected) < 4.5 * math.sqrt(variance / 600)
        and abs(first_B.var() - variance) < 0.25 * variance
    )
    for step, (before_BT, after_BT) in enumerate(zip(states[:-1], states[1:], strict=True)):
        changed_BT = before_BT != after_BT
        assert (before_BT[changed_BT] == MASK_TOKEN_ID).all()
        end = 4 + (step // per_block + 1) * sampler.block_length
        assert not changed_BT[:, end:].any()
        if (step + 1) % per_block == 0:
            assert not (after_BT[:, :end] == MASK_TOKEN_ID).any()
    with pytest.raises(ValueError, match="order='origin' reveals a random number of tokens per step"):
        sampler.reveals()


def test_an_order_temperature_draws_positions_from_the_softmax_of_confidence(tiny_dlm, make_ids):
    prompt_BT, temperature = make_ids(1, 5), 0.4
    sampler = Sampler(6, 5, None, "maskgit_plus", "time", 0.0, "filtered", order_temperature=temperature)
    assert sampler.reveals()[0] == 1
    states = states_of(tiny_dlm, prompt_BT.expand(2000, -1), sampler)
    share_L = (states[0] != states[1])[:, 5:].double().mean(0)
    logits_LV = tiny_dlm.logits_at(states[0][:1], states[0][:1] == MASK_TOKEN_ID)
    logits_LV[:, MASK_TOKEN_ID] = -torch.inf
    p_L = (logits_LV.softmax(-1).max(-1).values.double() / temperature).softmax(-1)
    assert ((share_L - p_L).abs() / (p_L * (1 - p_L) / 2000).sqrt()).max() < 4.5
    assert (share_L - 1 / 6).abs().max() > 0.05


def test_guidance_changes_the_text_and_none_costs_no_forward(tiny_dlm, make_ids):
    fed = []
    handle = tiny_dlm.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: fed.append(args[0].clone())
    )
    prompt_BT = make_ids(2, 6)
    plain_BT, forwards = generate(tiny_dlm, prompt_BT, Sampler(8, 4, None)), len(fed)
    guided_BT = generate(tiny_dlm, prompt_BT, Sampler(8, 4, None, guidance=3.0))
    handle.remove()
    assert forwards == 4 and len(fed) == 4 + 8 and not torch.equal(plain_BT, guided_BT)
    assert all((fed_BT[:, :6] == MASK_TOKEN_ID).all() for fed_BT in fed[5::2])


def test_ends_of_text_can_be_forbidden_or_put_last(tiny_dlm, make_ids):
    eos = tiny_dlm.tokenizer.eos_token_id
    tiny_dlm.model.get_output_embeddings().weight[eos] *= 3
    prompt_BT = make_ids(6, 5)
    assert (generate(tiny_dlm, prompt_BT, Sampler(12, 6, 6)) == eos).any()
    assert not (generate(tiny_dlm, prompt_BT, Sampler(12, 6, 6, logits_eos_inf=True)) == eos).any()

    def mean_step(sampler) -> float:
        states = states_of(tiny_dlm, prompt_BT, sampler)
        steps = [
            step
            for step in range(12)
            for _ in range(int(((states[step] != states[step + 1]) & (states[step + 1] == eos)).sum()))
        ]
        return sum(steps) / len(steps)

    assert (
        mean_step(Sampler(12, 12, None, confidence_eos_eot_inf=True)) > mean_step(Sampler(12, 12, None)) + 1
    )


def test_end_options_need_an_end_of_text(tiny_dlm, make_ids):
    tiny_dlm.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="need a tokenizer with an end-of-text token"):
        generate(tiny_dlm, make_ids(1, 3), Sampler(8, 4, None, logits_eos_inf=True))


def test_more_tokens_than_positions_are_refused_before_any_work(tiny_dlm, tiny_ar, make_ids):
    with pytest.raises(
        ValueError, match="a sequence of 65 tokens exceeds the 64 positions of tiny-diffusion"
    ):
        generate(tiny_dlm, make_ids(1, 53), Sampler(12, 6, 4))
    with pytest.raises(
        ValueError, match="a sequence of 65 tokens exceeds the 64 positions of tiny-autoregressive"
    ):
        decode(tiny_ar, make_ids(1, 53), 12)


def test_padding_anywhere_but_on_the_left_is_refused(tiny_dlm, make_ids):
    for mask in ([1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1]):
        with pytest.raises(ValueError, match="zeros stand for padding on the left"):
            generate(tiny_dlm, make_ids(1, 3), Sampler(8, 4, None), attention_mask_BT=torch.tensor([mask]))


def test_prompts_of_a_wrong_shape_are_refused(tiny_dlm, make_ids):
    for prompt in (make_ids(1, 3)[0], make_ids(2, 3)[:, :0]):
        with pytest.raises(ValueError, match="prompts have shape"):
            generate(tiny_dlm, prompt)


# samplers


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    blocks=st.integers(1, 5),
    width=st.integers(1, 12),
    per_block=st.integers(1, 20),
    schedule=st.sampled_from(SCHEDULES),
)
def test_reveals_agree_with_a_naive_count_and_sum_to_the_length(blocks, width, per_block, schedule):
    if schedule == "even" and per_block > width:
        per_block = width
    sampler = Sampler(blocks * width, blocks * per_block, width, schedule=schedule)
    counts = sampler.reveals()
    assert counts == naive_reveals(sampler)
    assert len(counts) == sampler.steps and min(counts) >= 0
    assert [sum(counts[block * per_block : (block + 1) * per_block]) for block in range(blocks)] == [
        width
    ] * blocks


def test_the_published_samplers():
    assert SAMPLERS["llada"].reveals() == [1] * 128
    assert sum(SAMPLERS["dream"].reveals()) == 512 and (SAMPLERS["dream"].order, SAMPLERS["dream"].top_p) == (
        "entropy",
        0.95,
    )


def test_the_published_schedules():
    assert LLADA.reveals() == [2] * 48
    assert DREAM.blocks == 1 and sum(DREAM.reveals()) == 96
    assert Sampler(5, 3, None).reveals() == [2, 2, 1]
    assert Sampler(8, 4, None, schedule="time").reveals() == [
        1,
        2,
        2,
        3,
    ]  # 8 (1/4), 7 (1/3), 5 (1/2), what is left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"length": 0}, "length=0"),
        ({"steps": 0}, "steps=0"),
        ({"order": "left"}, "order='left' is unknown; choose one of low_confidence, entropy, random"),
        ({"schedule": "cosine"}, "schedule='cosine' is unknown; choose one of even, time"),
        ({"temperature": -0.1}, "temperature=-0.1 must not be negative"),
        ({"length": 96, "block": 36}, "length=96 is not a multiple of block=36"),
        (
            {"length": 96, "block": 32, "steps": 50},
            "steps=50 cannot be shared by 3 blocks: use a multiple of 3",
        ),
        ({"length": 8, "block": None, "steps": 9}, "steps=9 exceed the 8 tokens"),
        ({"proposal": "beam"}, "proposal='beam' is unknown; choose one of gumbel, filtered"),
        ({"guidance": -1.0}, "guidance=-1.0 must not be negative"),
        ({"order_temperature": -1.0}, "order_temperature=-1.0 must not be negative"),
        ({"proposal": "filtered", "top_p": 0.0}, "top_p=0.0 must lie above 0 and not above 1"),
        ({"proposal": "filtered", "top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_p": 0.9}, "top_p=0.9 and top_k=None need proposal='filtered'"),
        ({"order": "origin"}, "order='origin' needs schedule='time'"),
        ({"order": "random", "order_temperature": 0.5}, "order='random' knows no confidence"),
        (
            {"order": "origin", "schedule": "time", "confidence_eos_eot_inf": True},
            "order='origin' knows no confidence",
        ),
    ],
)
def test_a_sampler_that_cannot_work_is_refused_with_its_value(arguments, said):
    with pytest.raises(ValueError, match=said):
        Sampler(**arguments)


# noise


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    maskable=st.lists(st.booleans(), min_size=1, max_size=30), share=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_a_random_mask_has_exactly_the_count_and_stays_inside(maskable, share, seed):
    maskable_T = torch.tensor(maskable)
    count = round(share * sum(maskable))
    where_T = random_mask(maskable_T, count, generator(seed))
    assert int(where_T.sum()) == count
    assert not (where_T & ~maskable_T).any()
    assert torch.equal(random_mask(maskable_T, count, generator(seed)), where_T)


def test_random_masks_hit_every_place_equally_often():
    maskable_T, rng = torch.tensor([False, True, True, True, False, True]), generator("places")
    hits_T = sum(random_mask(maskable_T, 2, rng).float() for _ in range(2000)) / 2000
    assert hits_T[~maskable_T].tolist() == [0, 0]
    assert (hits_T[maskable_T] - 0.5).abs().max() < 4.5 * math.sqrt(0.25 / 2000)


@pytest.mark.parametrize("count", [-1, 4])
def test_a_count_that_does_not_fit_is_refused(count):
    with pytest.raises(ValueError, match=f"count={count} masks do not fit 3 maskable positions"):
        random_mask(torch.tensor([True, True, False, True]), count, generator(0))


def test_corruption_touches_the_chosen_positions_only():
    ids_BT, where_BT = (
        torch.arange(20, 28).view(2, 4),
        torch.tensor([[True, False, False, True], [False, True, False, False]]),
    )
    assert corrupt(ids_BT, where_BT, 4).tolist() == [[4, 21, 22, 4], [24, 4, 26, 27]]
    assert ids_BT.tolist() == [[20, 21, 22, 23], [24, 25, 26, 27]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(draws=st.integers(1, 40), maskable=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_stratified_counts_cover_all_levels(draws, maskable, seed):
    counts = stratified_counts(draws, maskable, generator(seed)).tolist()
    assert len(counts) == draws and min(counts) >= 1 and max(counts) <= maskable
    often = [counts.count(level) for level in range(1, maskable + 1)]
    assert max(often) - min(often) <= (
        1 if draws % maskable else 0
    )  # an even grid: no level is far ahead of another
    if draws == maskable:
        assert sorted(counts) == list(range(1, maskable + 1))


def test_one_stratified_count_is_uniform():
    often = (
        torch.stack([stratified_counts(1, 5, generator("uniform", index)) for index in range(4000)])
        .flatten()
        .bincount(minlength=6)[1:]
    )
    assert (often / 4000 - 0.2).abs().max() < 4.5 * math.sqrt(0.16 / 4000)


@given(items=st.integers(0, 50), parts=st.integers(1, 20))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_an_even_split_is_even_and_complete(items, parts):
    shares = even_split(items, parts)
    assert sum(shares) == items and len(shares) == parts
    assert max(shares) - min(shares) <= 1 and shares == sorted(shares, reverse=True)
