"""Targets after prompts: estimates agree with all masks and all orders, errors with repetitions."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from sinkprune.evaluation.conditional_likelihood import (
    estimate,
    exact_log_likelihood,
    log_likelihood,
    perplexity,
)
from sinkprune.evaluation.protocols import PROTOCOLS, Protocol, protocol
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core.seeds import generator

pytestmark = pytest.mark.slow


def whole_logits(lm, ids: list[int]) -> torch.Tensor:
    return lm.model(torch.tensor([ids]), use_cache=False).logits[0].double()


def naive_costs(
    lm, prompt: list[int], target: list[int], masked: tuple[int, ...], how: Protocol
) -> list[float]:
    """Return the cross entropy at each masked place of the target, in nats, from whole logits in float64."""
    shown = [MASK_TOKEN_ID if place in masked else token for place, token in enumerate(target)]
    if how.visible_end:
        shown.append(0)

    logits_TV = whole_logits(lm, prompt + shown)
    if how.guidance:
        unconditional_TV = whole_logits(lm, [MASK_TOKEN_ID] * len(prompt) + shown)
        logits_TV = unconditional_TV + (how.guidance + 1) * (logits_TV - unconditional_TV)

    log_p_TV = logits_TV.log_softmax(-1)
    return [-float(log_p_TV[len(prompt) + place - lm.logits_shifted, target[place]]) for place in masked]


def enumerated(lm, prompt: list[int], target: list[int], how: Protocol) -> float:
    """Return what the estimator of a protocol is on average: over every mask, by probability and weight."""
    length = len(target)
    total = 0.0

    nodes, weights = np.polynomial.legendre.leggauss(length)  # exact for the polynomials below
    p = 0.001 + 0.999 * (nodes + 1) / 2

    for count in range(1, length + 1):
        if how.masking == "count":
            factor = 1 / length / math.comb(length, count) * length / count
        else:
            factor = float((weights / 2 * p**count * (1 - p) ** (length - count) / p).sum())

        for masked in combinations(range(length), count):
            total += factor * sum(naive_costs(lm, prompt, target, masked, how))

    return -total


LENGTHS = ((3, 4), (5, 1), (1, 7), (4, 2))  # tokens of prompt and target


def pairs_of(make_ids) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (make_ids(1, prompt, seed=prompt)[0], make_ids(1, target, seed=target + 50)[0])
        for prompt, target in LENGTHS
    ]


@pytest.mark.parametrize(
    "how",
    [Protocol("count", 3200, 8), Protocol("bernoulli", 4800, 32, visible_end=True)],
    ids=["count", "bernoulli"],
)
def test_the_estimate_is_unbiased(tiny_dlm, make_ids, how):
    lm = tiny_dlm
    prompt, target = make_ids(1, 3)[0], make_ids(1, 4, seed=1)[0]
    exact = enumerated(lm, prompt.tolist(), target.tolist(), how)
    found = estimate(log_likelihood(lm, [(prompt, target)], how, batch=500))
    assert abs(-found.nats * 4 - exact) < 4 * found.error_draws * 4
    assert found.error_draws < 0.05 * found.nats
    without = enumerated(lm, prompt.tolist(), target.tolist(), replace(how, guidance=how.guidance + 1))
    assert abs(without - exact) > 8 * found.error_draws * 4


@pytest.mark.parametrize(
    "how",
    [Protocol("count", 8, 8, guidance=0.4), Protocol("bernoulli", 8, 4, visible_end=True)],
    ids=["count", "bernoulli"],
)
def test_every_draw_is_the_published_formula_at_its_mask(tiny_dlm, make_ids, how):
    pairs = pairs_of(make_ids)
    frame = log_likelihood(tiny_dlm, pairs, how, seed=3)

    for sequence, (prompt, target) in enumerate(pairs):
        rows = frame[frame.sequence == sequence]
        noise = how.noise(len(target), generator(3, "likelihood", prompt.tolist(), target.tolist()))

        assert rows.draw.tolist() == list(range(len(noise)))
        assert rows.grid.tolist() == [draw // how.grid for draw in rows.draw]
        for (where_L, weight), masks, tokens, value in zip(
            noise, rows.masks, rows.tokens, rows.value, strict=True
        ):
            masked = tuple(where_L.nonzero().flatten().tolist())
            assert (masks, tokens) == (len(masked), len(target))
            if how.masking == "count":
                assert weight == len(target) / masks

            cost = sum(naive_costs(tiny_dlm, prompt.tolist(), target.tolist(), masked, how))
            assert value == pytest.approx(-weight * cost, rel=1e-4, abs=1e-9)


def test_noise_covers_its_levels_evenly():
    noise = Protocol("count", 24, 8).noise(8, generator("noise"))
    for grid in range(3):
        counts = [int(where_L.sum()) for where_L, _ in noise[8 * grid : 8 * grid + 8]]
        assert sorted(counts) == list(range(1, 9))

    levels = [1 / weight for _, weight in Protocol("bernoulli", 64, 32).noise(5, generator("levels"))]
    for grid in range(2):
        gaps = np.diff(sorted(levels[32 * grid : 32 * grid + 32]))
        assert gaps == pytest.approx(0.999 / 32) and min(levels) >= 0.001 and max(levels) <= 1

    rates = [
        (1 / weight, where_L.double().mean())
        for where_L, weight in Protocol("bernoulli", 64, 32).noise(4000, generator("rates"))
    ]

    assert all(abs(rate - p) < 5 * math.sqrt(p * (1 - p) / 4000) for p, rate in rates)


@pytest.mark.parametrize(
    "how", ["llada", "dream", replace(PROTOCOLS["dream"], guidance=0.5)], ids=["llada", "dream", "guided"]
)
def test_a_target_of_one_token_is_exact_in_one_draw(tiny_dlm, make_ids, how):
    prompt, target = make_ids(1, 5)[0], make_ids(1, 1, seed=4)[0]
    frame = log_likelihood(tiny_dlm, [(prompt, target)], how)
    assert len(frame) == 1 and frame.masks.item() == 1
    assert -frame.value.item() == pytest.approx(
        naive_costs(tiny_dlm, prompt.tolist(), target.tolist(), (0,), protocol(how))[0], rel=1e-5
    )
    assert estimate(frame).error_draws == 0


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize(
    "how",
    [Protocol("count", 16, 8, guidance=0.5), Protocol("bernoulli", 12, 4, visible_end=True)],
    ids=["count", "bernoulli"],
)
def test_an_estimate_depends_on_neither_batch_nor_neighbours_nor_model(
    tiny_dlm, make_lm, make_ids, how, batch
):
    pairs = pairs_of(make_ids)
    whole = log_likelihood(tiny_dlm, pairs, how, seed=1)
    pd.testing.assert_frame_equal(log_likelihood(tiny_dlm, pairs, how, seed=1, batch=batch), whole, rtol=1e-4)

    alone = log_likelihood(tiny_dlm, pairs[2:3], how, seed=1, batch=batch)
    pd.testing.assert_frame_equal(
        alone, whole[whole.sequence == 2].assign(sequence=0).reset_index(drop=True), rtol=1e-4
    )

    other = log_likelihood(make_lm("diffusion", seed=5), pairs, how, seed=1)
    assert other.masks.equals(whole.masks) and not other.value.equals(whole.value)
    assert not log_likelihood(tiny_dlm, pairs, how, seed=2).masks.equals(whole.masks)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_the_exact_likelihood_is_the_chain_rule(tiny_ar, make_ids, batch):
    pairs = pairs_of(make_ids)
    frame = exact_log_likelihood(tiny_ar, pairs, batch)

    for (prompt, target), row in zip(pairs, frame.itertuples(), strict=True):
        log_p_TV = whole_logits(tiny_ar, torch.cat([prompt, target]).tolist()).log_softmax(-1)
        log_p_LV = log_p_TV[len(prompt) - 1 : -1]

        assert row.tokens == len(target)
        assert row.value == pytest.approx(float(log_p_LV.gather(1, target[:, None]).sum()), rel=1e-5)
        assert row.greedy == bool((log_p_LV.argmax(-1) == target).all())

    prompt = make_ids(1, 4)[0]
    best = tiny_ar.model(prompt[None], use_cache=False).logits[0, -1].argmax()[None]
    assert exact_log_likelihood(tiny_ar, [(prompt, best)]).greedy.tolist() == [True]

    assert not frame.greedy.all()


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_one_token_targets_of_a_prompt_share_a_forward(make_lm, make_ids, kind):
    lm, rows = make_lm(kind), []
    lm.model.get_input_embeddings().register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))

    def score_pairs(pairs) -> pd.DataFrame:
        if kind == "autoregressive":
            return exact_log_likelihood(lm, pairs)
        return log_likelihood(lm, pairs, Protocol("count", 8, 8, guidance=0.5))

    first, second = make_ids(2, 6)
    choices = [token[None] for token in make_ids(1, 4, seed=3)[0]]
    pairs = [
        (first, choices[0]),
        (second, choices[1]),
        (first, choices[2]),
        (second, make_ids(1, 2)[0]),
        (first, choices[3]),
    ]
    together = score_pairs(pairs)
    assert sum(rows) == {"autoregressive": 3, "diffusion": 2 * (2 + 8)}[kind]
    alone = [score_pairs([pair]).value.mean() for pair in pairs]
    assert together.groupby("sequence").value.mean().tolist() == pytest.approx(alone, rel=1e-5)


# standard errors


@pytest.mark.parametrize("grid", [1, 4])
def test_the_error_over_draws_is_the_scatter_of_repetitions(tiny_dlm, make_ids, grid):
    pairs = pairs_of(make_ids)
    found = [
        estimate(log_likelihood(tiny_dlm, pairs, Protocol("count", 16, grid), seed=seed, batch=64))
        for seed in range(60)
    ]
    scatter = np.std([one.nats for one in found], ddof=1)
    told = np.sqrt(np.mean([one.error_draws**2 for one in found]))
    assert 0.7 < told / scatter < 1.4


def test_the_error_over_sequences_is_the_scatter_of_samples():
    rng = np.random.default_rng(0)
    length = rng.integers(1, 30, 20000)
    value = -length * rng.gamma(4.0, 1.0, 20000)

    found = [
        estimate(pd.DataFrame({"sequence": range(40), "tokens": length[part], "value": value[part]}))
        for part in np.arange(20000).reshape(500, 40)
    ]

    scatter = np.std([one.nats for one in found], ddof=1)
    told = np.mean([one.error_sequences for one in found])

    assert 0.9 < told / scatter < 1.1
    assert found[0].error_draws == 0 and found[0].sequences == 40 and found[0].tokens == length[:40].sum()


# running text


def test_perplexity_is_that_of_the_published_loop(tiny_dlm, make_ids):
    how, ids_T = replace(PROTOCOLS["ppl_llada"], draws=6, chunk=5, context=12), make_ids(1, 41)[0]
    logs = []

    for i in range(5, 41 - 5, 5):
        prompt, answer = ids_T[max(0, i - 12) : i].tolist(), ids_T[i : i + 5].tolist()

        losses = []
        for where_L, _ in how.noise(5, generator(0, "likelihood", prompt, answer)):
            costs = naive_costs(tiny_dlm, prompt, answer, tuple(where_L.nonzero().flatten().tolist()), how)
            losses.append(sum(costs) / len(costs))
        logs.append(math.log(math.exp(sum(losses) / len(losses))))

    found = perplexity(tiny_dlm, ids_T, how)
    assert (found.sequences, found.tokens) == (7, 35)
    assert found.perplexity == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)


def test_the_published_windows():
    pairs = PROTOCOLS["ppl_llada"].windows(torch.arange(1300))
    assert [len(prompt) for prompt, _ in pairs] == [min(960, 64 * index) for index in range(1, 20)]
    assert all(torch.equal(target, torch.arange(prompt[-1] + 1, prompt[-1] + 65)) for prompt, target in pairs)
    # the published range ends before the last whole chunk
    assert len(PROTOCOLS["ppl_llada"].windows(torch.arange(192))) == 1


# refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"masking": "gauss"}, "masking='gauss' is unknown; choose one of count, bernoulli"),
        ({"draws": 12, "grid": 8}, "draws=12 is not a multiple of grid=8"),
        ({"chunk": 64}, "chunk=64 and context=None must both be numbers"),
    ],
)
def test_a_protocol_that_cannot_work_is_refused_with_its_value(arguments, said):
    with pytest.raises(ValueError, match=said):
        Protocol(**arguments)


def test_what_cannot_be_scored_is_refused_before_any_work(tiny_ar, tiny_dlm, make_ids):
    prompt, target, none = make_ids(1, 60)[0], make_ids(1, 5)[0], make_ids(1, 1)[0][:0]
    short = Protocol(guidance=0.5, chunk=9, context=9)

    for work, said in (
        (lambda: log_likelihood(tiny_dlm, [(prompt, target)], "llama"), "protocol='llama' is unknown"),
        (lambda: log_likelihood(tiny_ar, [(prompt, target)]), "use `exact_log_likelihood`"),
        (lambda: exact_log_likelihood(tiny_dlm, [(prompt, target)]), "use `log_likelihood`"),
        (lambda: log_likelihood(tiny_dlm, [(prompt[1:], target)], "dream"), "65 tokens exceeds the 64"),
        (lambda: log_likelihood(tiny_dlm, [(target, none)]), "the target of pair 0 is empty"),
        (lambda: exact_log_likelihood(tiny_ar, [(none, target)]), "the prompt of pair 0 is empty"),
        (lambda: perplexity(tiny_ar, prompt, short), "guidance=0.5 cannot be used"),
        (lambda: perplexity(tiny_dlm, prompt, "llada"), "take one with chunk and context"),
        (lambda: perplexity(tiny_dlm, prompt, "ppl_llada"), "a text of 60 tokens is too short"),
    ):
        with pytest.raises(ValueError, match=said):
            work()

    # 65 tokens, of which the last is never fed
    assert len(exact_log_likelihood(tiny_ar, [(prompt, target)])) == 1

    tiny_dlm.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="visible_end=True needs an end-of-text token"):
        log_likelihood(tiny_dlm, [(target, target)], "dream")
