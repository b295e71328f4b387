"""Calibration: the states of a trajectory, random tokens, and what a text is known by."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core import Calibration, Recipe
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import NOISE, noise_counts, trajectory
from sinkprune_core.calibration.token_weights import SinkContext, heads_of, token_weights
from sinkprune_core.seeds import seed_of
from sinkprune_core.sinks.detection import sink_sets

KINDS = ("autoregressive", "diffusion")
LEVELS = 3


def random_tokens(lm, profile_NST, visible_ST, seed: int, first: int = 0) -> torch.Tensor:
    """Return what the choice of random tokens leaves out, bool (N, S, T)."""
    recipe = Recipe(inputs="noised", exclude="random", noise_levels=LEVELS, sink_std=1.0)
    context = SinkContext(profile_NST, visible_ST, recipe.statistics_key, heads_of(lm), seed, first)
    return token_weights(context).view_as(profile_NST) == 0


# states


def test_noise_counts_are_the_midpoints_of_even_strata():
    assert noise_counts(4, 16) == [14, 10, 6, 2]
    assert noise_counts(1, 9) == [round(4.5)]
    assert noise_counts(8, 2)[-1] == 1  # a step without a mask would be clean text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(noise_levels=st.integers(1, 20), maskable=st.integers(1, 200))
def test_noise_counts_fall_and_stay_between_one_mask_and_all(noise_levels, maskable):
    counts = noise_counts(noise_levels, maskable)
    assert len(counts) == noise_levels and counts == sorted(counts, reverse=True)
    assert min(counts) >= 1 and max(counts) <= maskable
    if noise_levels < maskable / 2:
        assert len(set(counts)) == noise_levels


@pytest.mark.parametrize("noise", NOISE)
def test_a_state_is_the_text_with_masks_in_it(tiny_dlm, calibration, noise):
    states_NST = trajectory(tiny_dlm, calibration, 6, noise)
    masked_NST = states_NST == MASK_TOKEN_ID

    assert states_NST.shape == (5, 6, 24) and states_NST.dtype == torch.long
    clean_NST = calibration.ids_NT[:, None].expand_as(states_NST)

    assert torch.equal(states_NST[~masked_NST], clean_NST[~masked_NST])

    never = {"official": [], "official-below-1": [], "dream": [0, 23]}
    assert not masked_NST[:, :, never.get(noise, [0])].any()
    assert masked_NST.any()


@pytest.mark.parametrize("noise", ["grid", "stratified"])
def test_masks_of_a_trajectory_are_nested(tiny_dlm, calibration, noise):
    masked_NST = trajectory(tiny_dlm, calibration, 6, noise) == MASK_TOKEN_ID
    assert not (masked_NST[:, 1:] & ~masked_NST[:, :-1]).any()
    if noise == "grid":
        assert masked_NST.sum(-1).tolist() == [noise_counts(6, 23)] * 5


def test_stratified_levels_hold_one_number_of_masks_per_stratum_and_differ_by_sequence(tiny_dlm, make_ids):
    counts_NS = (trajectory(tiny_dlm, Calibration(make_ids(40, 25)), 4, "stratified") == MASK_TOKEN_ID).sum(
        -1
    )

    assert all(
        6 * (3 - level) < count <= 6 * (4 - level)
        for row in counts_NS.tolist()
        for level, count in enumerate(row)
    )
    assert len({tuple(row) for row in counts_NS.tolist()}) > 4


def test_official_noise_rises_to_a_state_of_masks_only(tiny_dlm, make_ids):
    """p = (1 - 1e-3) t + 1e-3 at t = 0.1 … 1, every position on its own."""
    masked_NST = trajectory(tiny_dlm, Calibration(make_ids(150, 60)), 10, "official") == MASK_TOKEN_ID
    assert masked_NST[:, -1].all()
    for level, share in enumerate(masked_NST.double().mean((0, 2)).tolist()):
        rate = 0.999 * (level + 1) / 10 + 0.001
        assert abs(share - rate) < 5 * (rate * (1 - rate) / 9000) ** 0.5 + 1e-9
    assert 0 < masked_NST[:, 0, 0].sum() < 150  # position 0 like any other
    assert masked_NST[:, 4].sum(-1).unique().numel() > 5  # counts vary: no fixed number per level


def test_official_noise_below_1_is_official_noise_without_its_last_state(tiny_dlm, calibration):
    whole_NST = trajectory(tiny_dlm, calibration, 10, "official")
    assert torch.equal(trajectory(tiny_dlm, calibration, 9, "official-below-1"), whole_NST[:, :-1])
    assert not (whole_NST[:, :-1] == MASK_TOKEN_ID).all(-1).any()


@pytest.mark.parametrize(("noise_levels", "clean"), [(1, 0), (2, 1), (5, 2)])
def test_half_clean_states_are_stratified_ones_and_then_the_text_itself(
    tiny_dlm, calibration, noise_levels, clean
):
    states_NST = trajectory(tiny_dlm, calibration, noise_levels, "half-clean")
    noised = noise_levels - clean
    assert torch.equal(states_NST[:, :noised], trajectory(tiny_dlm, calibration, noised, "stratified"))
    assert torch.equal(states_NST[:, noised:], calibration.ids_NT[:, None].expand(-1, clean, -1))


def test_high_and_low_states_are_the_two_halves_of_stratified_ones(tiny_dlm, calibration):
    parts = [trajectory(tiny_dlm, calibration, 3, f"half-clean-{half}")[:, :2] for half in ("high", "low")]
    assert torch.equal(torch.cat(parts, 1), trajectory(tiny_dlm, calibration, 4, "stratified"))


def test_dreams_noise_draws_a_rate_anew_for_every_state(tiny_dlm, make_ids):
    states_NST = trajectory(tiny_dlm, Calibration(make_ids(150, 62)), 10, "dream")
    share_NS = (states_NST == MASK_TOKEN_ID)[..., 1:-1].double().mean(-1)
    assert (share_NS.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 150) ** 0.5  # every step alike
    assert share_NS.std() == pytest.approx((1 / 12) ** 0.5, rel=0.1)
    assert (share_NS[:, 1:] > share_NS[:, :-1]).any() and (share_NS[:, 1:] < share_NS[:, :-1]).any()


@pytest.mark.parametrize("noise", NOISE)
def test_the_noise_of_a_sequence_depends_on_seed_and_number_alone(tiny_dlm, calibration, make_ids, noise):
    states_NST = trajectory(tiny_dlm, calibration, 4, noise)

    fewer = Calibration(calibration.ids_NT[:2], seed=3, batch=1)
    assert torch.equal(trajectory(tiny_dlm, fewer, 4, noise), states_NST[:2])

    where_NST = states_NST == MASK_TOKEN_ID
    assert torch.equal(
        trajectory(tiny_dlm, Calibration(make_ids(5, 24, seed=8), seed=3), 4, noise) == MASK_TOKEN_ID,
        where_NST,
    )

    assert not torch.equal(where_NST[0], where_NST[1])
    assert not torch.equal(
        trajectory(tiny_dlm, Calibration(calibration.ids_NT, seed=4), 4, noise) == MASK_TOKEN_ID, where_NST
    )


# weights


@pytest.mark.parametrize("kind", KINDS)
def test_random_leaves_out_as_many_visible_tokens_per_step_as_all(make_lm, calibration, kind):
    lm = make_lm(kind)
    profile_NST, visible_ST = sink_profiles(lm, calibration, LEVELS, progress=False)
    masks_NST = sink_sets(profile_NST, visible_ST, 1.0)

    def draw(profile=profile_NST, **options):
        return random_tokens(lm, profile, visible_ST, **options)

    drawn_NST = draw(seed=3)
    assert torch.equal(drawn_NST.sum(-1), masks_NST.sum(-1))
    assert not (drawn_NST & ~visible_ST).any()
    assert not torch.equal(drawn_NST, masks_NST)
    assert torch.equal(draw(seed=3), drawn_NST)
    assert torch.equal(draw(profile_NST[:2], seed=3), drawn_NST[:2])
    assert torch.equal(draw(profile_NST[2:], seed=3, first=2), drawn_NST[2:])
    assert not torch.equal(draw(seed=4), drawn_NST)


# the text


def test_a_text_does_not_change_with_the_tensor_that_it_was_made_of(make_ids):
    ids_NT = make_ids(2, 8)
    text = Calibration(ids_NT)
    before = text.fingerprint
    ids_NT[0, 0] += 1
    assert text.fingerprint == before


@pytest.mark.parametrize("noise", NOISE)
def test_noise_does_not_follow_the_default_dtype(tiny_dlm, calibration, noise):
    states_NST = trajectory(tiny_dlm, calibration, 4, noise)
    torch.set_default_dtype(torch.float64)
    try:
        again_NST = trajectory(tiny_dlm, calibration, 4, noise)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again_NST, states_NST)


def test_a_seed_of_numpy_is_that_of_python():
    assert seed_of(np.int64(3), "noise", np.float64(0.5)) == seed_of(3, "noise", 0.5)
    assert seed_of(3, "noise", 0.5) != seed_of(4, "noise", 0.5)


def test_the_fingerprint_follows_text_and_seed_and_nothing_else(make_ids):
    assert Calibration(make_ids(1, 2)).fingerprint, "one sequence of two tokens is enough"
    ids_NT = make_ids(4, 6)

    original = Calibration(ids_NT, seed=1).fingerprint
    assert Calibration(ids_NT.clone(), seed=1, batch=3).fingerprint == original
    assert Calibration(ids_NT.T.contiguous().T, seed=1).fingerprint == original  # another layout in memory

    changed_NT = ids_NT.clone()
    changed_NT[3, 5] += 1
    others = [
        Calibration(changed_NT, 1),
        Calibration(ids_NT, 2),
        Calibration(ids_NT.view(6, 4), 1),
        Calibration(ids_NT.flip(0), 1),
    ]

    assert original not in {other.fingerprint for other in others}
