"""Likelihood of sequences: estimates agree with the enumeration of all masks, and depend on no batch."""

from itertools import combinations

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from sinkprune.evaluation import likelihood
from sinkprune.evaluation.likelihood import nelbo, nll, score
from sinkprune.models.embedded import MASK_TOKEN_ID

LENGTH = 6  # 5 maskable tokens: 31 masks


def costs_by_masks(lm, ids_T) -> dict[int, list[float]]:
    """Return the mean cross entropy at the masks, in nats, of every possible mask, by its number of masks."""
    costs = {}

    for masks in range(1, LENGTH):
        for chosen in combinations(range(1, LENGTH), masks):
            input_T = ids_T.clone()
            input_T[list(chosen)] = MASK_TOKEN_ID
            logits_TV = lm.model(input_T[None], use_cache=False).logits[0]
            losses = [float(cross_entropy(logits_TV[place - 1], ids_T[place])) for place in chosen]
            costs.setdefault(masks, []).append(sum(losses) / masks)

    return costs


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


@pytest.fixture
def costs(tiny_dlm, make_ids):
    return costs_by_masks(tiny_dlm, make_ids(1, LENGTH)[0])


def assert_unbiased(frame: pd.DataFrame, exact: float, biased: float) -> None:
    """The mean is within four standard errors of the exact value, and they tell it from a biased one."""
    error = frame.value.std() / len(frame) ** 0.5
    assert abs(frame.value.mean() - exact) < 4 * error
    assert abs(biased - exact) > 8 * error


def test_nelbo_is_unbiased(tiny_dlm, make_ids, costs):
    exact = mean(mean(costs[masks]) for masks in costs)
    every_mask_alike = mean(cost for masks in costs for cost in costs[masks])
    assert_unbiased(nelbo(tiny_dlm, make_ids(1, LENGTH), draws=6000, batch=500), exact, every_mask_alike)


def test_single_draws_are_unbiased_too(tiny_dlm, make_ids, costs):
    exact = mean(mean(costs[masks]) for masks in costs)
    frame = nelbo(tiny_dlm, make_ids(1, LENGTH).expand(6000, -1), draws=1, batch=500)
    assert_unbiased(frame, exact, mean(costs[LENGTH - 1]))


def test_nelbo_in_few_steps_is_unbiased(tiny_dlm, make_ids, costs):
    # five tokens in two steps: three from five masks, then two from two
    exact = (3 * mean(costs[5]) + 2 * mean(costs[2])) / 5
    frame = nelbo(tiny_dlm, make_ids(1, LENGTH), draws=6000, batch=500, steps=2)
    assert set((frame.noise * 5).round().astype(int)) == {5, 2}
    assert_unbiased(frame, exact, mean([mean(costs[5]), mean(costs[2])]))


def test_as_many_steps_as_tokens_change_nothing(tiny_dlm, make_ids):
    ids_NT = make_ids(2, LENGTH)
    pd.testing.assert_frame_equal(
        nelbo(tiny_dlm, ids_NT, draws=9, steps=LENGTH - 1), nelbo(tiny_dlm, ids_NT, draws=9)
    )


@pytest.mark.parametrize("steps", [0, LENGTH])
def test_steps_that_do_not_fit_are_refused(tiny_dlm, make_ids, steps):
    with pytest.raises(ValueError, match=f"steps={steps} must "):
        nelbo(tiny_dlm, make_ids(1, LENGTH), steps=steps)


def test_every_value_is_the_cost_of_a_mask_of_its_noise(tiny_dlm, make_ids, costs):
    frame = nelbo(tiny_dlm, make_ids(1, LENGTH), draws=40)
    assert frame.draw.tolist() == list(range(40))
    for noise, value in zip(frame.noise, frame.value, strict=True):
        assert min(abs(value - cost) for cost in costs[round(noise * 5)]) < 1e-5


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_nelbo_does_not_depend_on_the_batch(tiny_dlm, make_ids, batch):
    ids_NT = make_ids(4, 11)
    whole = nelbo(tiny_dlm, ids_NT, draws=6, seed=2)
    batched = nelbo(tiny_dlm, ids_NT, draws=6, seed=2, batch=batch)
    pd.testing.assert_frame_equal(batched, whole, rtol=1e-5)
    part = nelbo(tiny_dlm, ids_NT[:2], draws=6, seed=2, batch=batch)
    pd.testing.assert_frame_equal(part, whole[whole.sequence < 2], rtol=1e-5)
    assert not nelbo(tiny_dlm, ids_NT, draws=6, seed=3).noise.equals(whole.noise)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_nll_is_the_cross_entropy_of_every_next_token(tiny_ar, make_ids, batch):
    ids_NT = make_ids(5, 10)
    logits_NTV = tiny_ar.model(ids_NT, use_cache=False).logits
    expected_NT = cross_entropy(logits_NTV[:, :-1].transpose(1, 2), ids_NT[:, 1:], reduction="none")
    frame = nll(tiny_ar, ids_NT, batch)

    assert frame.sequence.tolist() == list(range(5))
    assert frame.value.tolist() == pytest.approx(expected_NT.mean(1).tolist(), rel=1e-5)

    for first in (2, 7):
        found = nll(tiny_ar, ids_NT, batch, first_scored=first).value.tolist()
        assert found == pytest.approx(expected_NT[:, first - 1 :].mean(1).tolist(), rel=1e-5)

    unshifted_NT = cross_entropy(logits_NTV.transpose(1, 2), ids_NT, reduction="none")
    assert frame.value.tolist() != pytest.approx(unshifted_NT.mean(1).tolist(), rel=1e-2)


def test_score_picks_the_estimator_of_the_kind(tiny_ar, tiny_dlm, make_ids):
    ids_NT = make_ids(3, 8)
    pd.testing.assert_frame_equal(score(tiny_ar, ids_NT), nll(tiny_ar, ids_NT))
    frame = nelbo(tiny_dlm, ids_NT, draws=4, seed=7)
    averaged = score(tiny_dlm, ids_NT, draws=4, seed=7)
    assert averaged.columns.tolist() == ["sequence", "value"]
    means = [mean(frame.value[frame.sequence == sequence]) for sequence in range(3)]
    assert averaged.value.tolist() == pytest.approx(means)


def test_the_estimator_of_the_other_kind_is_refused(tiny_ar, tiny_dlm, make_ids):
    with pytest.raises(
        ValueError, match="tiny-autoregressive is autoregressive: its likelihood is exact, use `nll`"
    ):
        nelbo(tiny_ar, make_ids(1, 5))
    with pytest.raises(
        ValueError, match="tiny-diffusion is diffusion: its likelihood is bounded, use `nelbo`"
    ):
        nll(tiny_dlm, make_ids(1, 5))


def test_the_shortest_text_is_one_sequence_of_two_tokens(tiny_ar, tiny_dlm, make_ids):
    for call, lm in ((nelbo, tiny_dlm), (nll, tiny_ar)):
        assert len(call(lm, make_ids(1, 2))) >= 1
        for ids_NT in (make_ids(1, 1), make_ids(2, 2)[:0]):
            with pytest.raises(ValueError, match="expected at least one sequence of at least 2 tokens"):
                call(lm, ids_NT)


# one more first token


def test_behind_one_more_first_token_the_same_tokens_are_masked_and_counted(tiny_dlm, make_ids, monkeypatch):
    """The masks move by one position and are otherwise the same, sequence by sequence and draw by draw."""
    ids_NT = make_ids(4, 9)
    seen = []
    original = likelihood.corrupt

    def noted(ids_BT, where_BT, mask_token_id):
        seen.append(where_BT.clone())
        return original(ids_BT, where_BT, mask_token_id)

    monkeypatch.setattr(likelihood, "corrupt", noted)
    without = nelbo(tiny_dlm, ids_NT, draws=3)
    behind = nelbo(tiny_dlm, torch.nn.functional.pad(ids_NT, (1, 0), value=0), draws=3, first_scored=2)
    of_without, of_behind = seen
    assert torch.equal(of_behind[:, 1:], of_without)
    assert not of_behind[:, :2].any()
    assert behind.noise.tolist() == without.noise.tolist()
    assert (behind.value - without.value).abs().max() > 1e-3, "the first token changes what is predicted"


@pytest.mark.parametrize("first", [0, 6])
def test_a_first_position_outside_the_sequence_is_refused(tiny_dlm, tiny_ar, make_ids, first):
    for call, lm in ((nelbo, tiny_dlm), (nll, tiny_ar)):
        with pytest.raises(ValueError, match=f"first_scored={first} must "):
            call(lm, make_ids(2, LENGTH), first_scored=first)
