"""Calibration: states of a trajectory, sinks as a naive calculation finds them, and the weights of tokens."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import NOISE, Calibration, noise_counts, trajectory
from sinkprune_core.calibration.token_weights import (
    EXCLUDE,
    SinkContext,
    StatisticsKey,
    heads_of,
    rows_for,
    token_weights,
)
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.models.embedded import MASK_TOKEN_ID
from sinkprune_core.sinks.detection import sink_sets

KINDS = ("autoregressive", "diffusion")
LEVELS = 3


def key_of(
    exclude="none",
    inputs="noised",
    noise="grid",
    sink_std=2.0,
    stability_threshold=0.8,
    alpha=None,
    noise_levels=LEVELS,
) -> StatisticsKey:
    return StatisticsKey(inputs, noise, noise_levels, exclude, sink_std, alpha, stability_threshold)


def sink_masks(lm, calibration, noise_levels=LEVELS, sink_std=2.0):
    profile_NST, visible_ST = sink_profiles(lm, calibration, noise_levels, progress=False)
    return sink_sets(profile_NST, visible_ST, sink_std), visible_ST


def left_out(lm, profiles, tokens, sink_std=2.0, stability_threshold=0.8, seed=0, first=0):
    """Return what a choice of tokens leaves out, (N, S, T)."""
    key = key_of(tokens, sink_std=sink_std, stability_threshold=stability_threshold)
    context = SinkContext(*profiles, key, heads_of(lm), seed, first)
    return 1 - token_weights(context).view_as(context.profile_NST)


def naive_sinks(lm, calibration, noise_levels) -> torch.Tensor:
    """Return the sinks of every sequence and step, bool (N, S, T), from transformers' own attention maps."""
    lm.model.set_attn_implementation("eager")
    found = []
    for sequence, ids_T in enumerate(calibration.ids_NT):
        states = [ids_T] * noise_levels
        if lm.is_diffusion:
            states = trajectory(lm, calibration, noise_levels)[sequence]
        for step, state_T in enumerate(states):
            maps = lm.model.base_model(state_T[None], use_cache=False, output_attentions=True).attentions
            map_QK = torch.stack(maps)[:, 0].double().mean((0, 1))
            if lm.is_diffusion:
                profile = [float(map_QK[:, key].sum()) for key in range(len(ids_T))]
            else:
                profile = naive_causal_profile(map_QK, step, noise_levels)
            visible = [mass for mass in profile if mass is not None]
            threshold = statistics.fmean(visible) + 2 * statistics.pstdev(visible)
            found.append([mass is not None and mass > threshold for mass in profile])
    lm.model.set_attn_implementation("sdpa")
    return torch.tensor(found).view(-1, noise_levels, calibration.ids_NT.shape[1])


def naive_causal_profile(map_QK: torch.Tensor, step: int, noise_levels: int) -> list[float | None]:
    """Return the mass of every key in a window of queries, None for a key that some of them cannot see."""
    length = len(map_QK)
    start = length // (noise_levels + 1)
    width = (length - start) // noise_levels
    first = start + step * width
    last = length if step == noise_levels - 1 else first + width
    even = sum(1 / (query + 1) for query in range(first, last))
    profile = []
    for key in range(length):
        mass = sum(float(map_QK[query, key]) for query in range(first, last)) / even
        profile.append(mass if key <= first else None)
    return profile


@pytest.fixture
def calibration(make_ids) -> Calibration:
    return Calibration(make_ids(5, 24), seed=3, batch=4)


@pytest.fixture
def profiles(tiny_dlm, calibration) -> tuple[torch.Tensor, torch.Tensor]:
    """The sink profiles of the calibration text, (N, S, T) and (S, T); some sinks move."""
    found = sink_profiles(tiny_dlm, calibration, LEVELS, progress=False)
    masks_NST = sink_sets(*found, 2.0)
    assert masks_NST.any(1).sum() > 0 and not torch.equal(masks_NST.any(1), masks_NST.all(1))
    return found


@pytest.fixture
def masks(profiles) -> torch.Tensor:
    return sink_sets(*profiles, 2.0)


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
    prompt = 6 if noise == "rollout" else 24  # what a rollout writes is the model's own
    assert torch.equal(
        states_NST[..., :prompt][~masked_NST[..., :prompt]],
        clean_NST[..., :prompt][~masked_NST[..., :prompt]],
    )
    never = {"official": [], "official-below-1": [], "dream": [0, 23], "rollout": list(range(6))}
    assert not masked_NST[:, :, never.get(noise, [0])].any()
    assert masked_NST.any()


@pytest.mark.parametrize("noise", ["grid", "stratified", "rollout"])
def test_masks_of_a_trajectory_are_nested(tiny_dlm, calibration, noise):
    masked_NST = trajectory(tiny_dlm, calibration, 6, noise) == MASK_TOKEN_ID
    assert not (masked_NST[:, 1:] & ~masked_NST[:, :-1]).any()
    if noise == "grid":
        assert masked_NST.sum(-1).tolist() == [noise_counts(6, 23)] * 5
    if noise == "rollout":
        assert masked_NST.sum(-1).tolist() == [[18, 15, 12, 9, 6, 3]] * 5


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


def test_dreams_noise_draws_a_rate_anew_for_every_state(tiny_dlm, make_ids):
    masked_NST = (trajectory(tiny_dlm, Calibration(make_ids(150, 62)), 10, "dream") == MASK_TOKEN_ID)[
        ..., 1:-1
    ]
    share_NS = masked_NST.double().mean(-1)
    assert (share_NS.mean(0) - 0.5).abs().max() < 5 * (
        1 / 12 / 150
    ) ** 0.5  # every step alike, whatever its number
    assert share_NS.std() == pytest.approx((1 / 12) ** 0.5, rel=0.1)
    assert (share_NS[:, 1:] > share_NS[:, :-1]).any() and (share_NS[:, 1:] < share_NS[:, :-1]).any()


@pytest.mark.parametrize("noise", [name for name, rule in NOISE.items() if rule is not None])
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


@pytest.mark.parametrize(("length", "noise_levels"), [(24, 6), (24, 18), (25, 7), (9, 3)])
def test_a_rollout_is_what_generate_visits(tiny_dlm, make_ids, length, noise_levels):
    calibration = Calibration(make_ids(5, length), seed=3, batch=2)
    prompt, visited = length // 4, []
    sampler = Sampler(
        length=length - prompt, steps=noise_levels, block=None, order="low_confidence", schedule="even"
    )
    text_NT = generate(
        tiny_dlm,
        calibration.ids_NT[:, :prompt],
        sampler,
        3,
        lambda step, ids_BT: visited.append(ids_BT.clone()),
    )
    states_NST = trajectory(tiny_dlm, calibration, noise_levels, "rollout")
    assert torch.equal(states_NST, torch.stack(visited, 1))
    assert (states_NST[:, 0, prompt:] == MASK_TOKEN_ID).all()
    written_NST = states_NST != MASK_TOKEN_ID
    assert torch.equal(states_NST[written_NST], text_NT[:, None].expand_as(states_NST)[written_NST])


# sinks


@pytest.mark.parametrize("shape", ["gqa", "mha"])
@pytest.mark.parametrize("kind", KINDS)
def test_sinks_are_those_of_eager_attention(make_lm, calibration, kind, shape):
    lm = make_lm(kind, shape)
    masks_NST, visible_ST = sink_masks(lm, calibration)
    assert torch.equal(masks_NST, naive_sinks(lm, calibration, LEVELS))
    assert masks_NST.any()
    last = [6, 12, 18] if kind == "autoregressive" else [23] * LEVELS
    assert visible_ST.tolist() == [[key <= last_key for key in range(24)] for last_key in last]


# weights


def test_only_and_all_are_complements(tiny_dlm, profiles, masks):
    assert torch.equal(left_out(tiny_dlm, profiles, "all"), masks.float())
    assert torch.equal(left_out(tiny_dlm, profiles, "only"), (~masks).float())


@pytest.mark.parametrize("stability_threshold", [0.0, 0.5, 0.8, 1.0])
def test_stable_and_unstable_add_up_to_all(tiny_dlm, profiles, masks, stability_threshold):
    stable_NST, unstable_NST = (
        left_out(tiny_dlm, profiles, tokens, stability_threshold=stability_threshold).bool()
        for tokens in ("stable", "unstable")
    )
    assert torch.equal(stable_NST ^ unstable_NST, masks)
    for sequence in range(len(masks)):
        for key in range(24):
            share = sum(masks[sequence, :, key].tolist()) / LEVELS
            assert bool(stable_NST[sequence, :, key].any()) == (share > 0 and share >= stability_threshold)


@pytest.mark.parametrize("kind", KINDS)
def test_random_leaves_out_as_many_visible_tokens_per_step_as_all(make_lm, calibration, kind):
    lm = make_lm(kind)
    profile_NST, visible_ST = sink_profiles(lm, calibration, LEVELS, progress=False)
    masks_NST = sink_sets(profile_NST, visible_ST, 1.0)

    def draw(profile=profile_NST, **options):
        return left_out(lm, (profile, visible_ST), "random", sink_std=1.0, **options).bool()

    drawn_NST = draw(seed=3)
    assert torch.equal(drawn_NST.sum(-1), masks_NST.sum(-1))
    assert not (drawn_NST & ~visible_ST).any()
    assert not torch.equal(drawn_NST, masks_NST)
    assert torch.equal(draw(seed=3), drawn_NST)
    assert torch.equal(draw(profile_NST[:2], seed=3), drawn_NST[:2])
    assert torch.equal(draw(profile_NST[2:], seed=3, first=2), drawn_NST[2:])
    assert not torch.equal(draw(seed=4), drawn_NST)


@pytest.mark.parametrize("tokens", ["all", "unstable", "stable", "random", "only"])
def test_noised_rows_leave_a_token_out_exactly_where_it_is_a_sink(tiny_dlm, calibration, profiles, tokens):
    rows = rows_for(tiny_dlm, calibration, key_of(tokens), progress=False)
    out_NST = left_out(tiny_dlm, profiles, tokens, seed=calibration.seed)
    assert torch.equal(rows.ids_RT.view(5, LEVELS, 24), trajectory(tiny_dlm, calibration, LEVELS))
    assert torch.equal(rows.weight_RT.view(5, LEVELS, 24), 1 - out_NST)
    assert rows.tokens == 5 * LEVELS * 24
    assert rows.left_out_share == pytest.approx(out_NST.mean().item())
    known = rows_for(tiny_dlm, calibration, key_of(tokens), progress=False, profiles=profiles)
    assert torch.equal(known.weight_RT, rows.weight_RT)


@pytest.mark.parametrize("tokens", ["all", "unstable", "only"])
@pytest.mark.parametrize("kind", KINDS)
def test_clean_rows_weigh_a_token_by_the_steps_in_which_it_counts(make_lm, calibration, kind, tokens):
    lm = make_lm(kind)
    rows = rows_for(lm, calibration, key_of(tokens, "clean"), progress=False)
    out_NST = left_out(
        lm, sink_profiles(lm, calibration, LEVELS, progress=False), tokens, seed=calibration.seed
    )
    assert torch.equal(rows.ids_RT, calibration.ids_NT)
    for sequence in range(5):
        for key in range(24):
            assert rows.weight_RT[sequence, key].item() == pytest.approx(
                1 - sum(out_NST[sequence, :, key].tolist()) / LEVELS
            )


@pytest.mark.parametrize("tokens", EXCLUDE)
@pytest.mark.parametrize("noise", ["grid", "rollout"])
def test_rows_do_not_depend_on_the_batch(tiny_dlm, calibration, tokens, noise):
    one, many = (
        rows_for(
            tiny_dlm, Calibration(calibration.ids_NT, 3, batch), key_of(tokens, noise=noise), progress=False
        )
        for batch in (1, 64)
    )
    assert torch.equal(one.ids_RT, many.ids_RT)
    assert one.weight_RT is many.weight_RT is None or torch.allclose(
        one.weight_RT, many.weight_RT, rtol=0, atol=0 if tokens != "official" else 1e-3
    )


# the text


@pytest.mark.parametrize(
    ("ids_NT", "batch", "said"),
    [
        (torch.zeros(0, 5, dtype=torch.long), 1, r"shape \(0, 5\): give at least one sequence"),
        (
            torch.zeros(5, dtype=torch.long),
            1,
            r"shape \(5,\) must be token ids: int64 of \(sequences, tokens\)",
        ),
        (torch.zeros(3, 1, dtype=torch.long), 1, "at least 2 tokens"),
        (torch.zeros(3, 4, dtype=torch.long), 0, "batch=0 must be a whole number of at least 1"),
    ],
)
def test_text_that_cannot_calibrate_is_refused(ids_NT, batch, said):
    with pytest.raises(ValueError, match=said):
        Calibration(ids_NT, batch=batch)


def test_the_fingerprint_follows_text_and_seed_and_nothing_else(make_ids):
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
