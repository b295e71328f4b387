"""Losses agree with loops; position 0 is masked like any other and never predicted."""

import pytest
import torch

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune.recovery.objectives import exercise, loss_of
from sinkprune_core.diffusion.noise import random_mask, stratified_counts
from sinkprune_core.seeds import generator


def masked_cross_entropy(lm, ids_BT: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return loss_of(lm, exercise(lm, ids_BT, rng))


def naive_loss(lm, ids_BT: torch.Tensor, rng: torch.Generator) -> float:
    """The loss as loops over sequences and places, from the same random numbers."""
    rows, length = ids_BT.shape

    counts = stratified_counts(rows, length - 1, rng).tolist()
    predicted_T = torch.arange(length) > 0
    masks = [random_mask(predicted_T, count, rng) for count in counts]
    first_masked = torch.rand(rows, generator=rng).tolist()

    total = 0.0
    for ids_T, count, where_T, draw in zip(ids_BT, counts, masks, first_masked, strict=True):
        input_T = torch.where(where_T, MASK_TOKEN_ID, ids_T)
        if draw < count / (length - 1):
            input_T[0] = MASK_TOKEN_ID

        log_p_TV = lm.model(input_T[None], use_cache=False).logits[0].log_softmax(-1)
        for place in range(1, length):
            if where_T[place]:
                total -= float(log_p_TV[place - 1, ids_T[place]]) / count

    return total / rows


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_equals_a_naive_computation(tiny_dlm, make_ids, seed):
    ids_BT = make_ids(4, 9)
    expected = naive_loss(tiny_dlm, ids_BT, generator(seed))
    assert masked_cross_entropy(tiny_dlm, ids_BT, generator(seed)).item() == pytest.approx(expected, rel=1e-5)
    other = masked_cross_entropy(tiny_dlm, ids_BT, generator(seed + 10)).item()
    assert other != pytest.approx(expected, rel=1e-3)


def test_the_first_token_is_masked_at_the_noise_level_and_never_predicted(tiny_dlm, make_ids):
    ids_BT = make_ids(8, 9)
    levels, is_masked = [], []

    for seed in range(100):
        input_BT, where_BT, *_ = exercise(tiny_dlm, ids_BT, generator(seed))
        assert not where_BT[:, 0].any()
        assert torch.equal(input_BT[:, 1:] == MASK_TOKEN_ID, where_BT[:, 1:])
        assert torch.equal(input_BT[:, 1:][~where_BT[:, 1:]], ids_BT[:, 1:][~where_BT[:, 1:]])

        levels.append(where_BT.sum(1) / 8)
        is_masked.append(input_BT[:, 0] == MASK_TOKEN_ID)
        assert (is_masked[-1] | (input_BT[:, 0] == ids_BT[:, 0])).all()

    levels, is_masked = torch.cat(levels), torch.cat(is_masked)

    # each level has 100 draws in expectation, standard deviation of a share at most 0.05
    for level in levels.unique():
        found = is_masked[levels == level].double().mean()
        assert found == pytest.approx(float(level), abs=0.2)

    assert is_masked.double().mean() == pytest.approx(float(levels.mean()), abs=0.05)
    assert is_masked[levels == 1].all()  # where everything is masked, it is
