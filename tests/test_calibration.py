"""Calibration: nested noise, sinks as a naive calculation finds them, and a weight per token for every control of the method."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_core.calibration import INPUTS, TOKENS, Calibration, left_out, noise_counts, noised_trajectory, rows_for, sink_masks
from sinkprune_core.embedded import MASK_TOKEN_ID, START_TOKEN_ID

KINDS = ("autoregressive", "diffusion")
LEVELS = 3


def naive_sinks(lm, calibration, levels) -> torch.Tensor:
    """Return the sinks of every sequence and step, bool (N, S, T), from transformers' own attention maps, with loops."""
    length = calibration.ids_NT.shape[1]
    lm.model.set_attn_implementation("eager")
    found = []
    for sequence, ids_T in enumerate(calibration.ids_NT):
        states = noised_trajectory(lm, calibration, levels)[sequence] if lm.is_diffusion else [ids_T] * levels
        for step, state_T in enumerate(states):
            maps = lm.model.base_model(state_T[None], use_cache=False, output_attentions=True).attentions
            map_QK = torch.stack(maps)[:, 0].double().mean((0, 1))
            first, last = 0, length
            if not lm.is_diffusion:
                start = length // (levels + 1)
                width = (length - start) // levels
                first, last = start + step * width, length if step == levels - 1 else start + (step + 1) * width
            profile = []
            for key in range(length):
                queries = range(first, last) if lm.is_diffusion or key <= first else range(0)  # a key that some query cannot see is left out
                even = sum(1 / length if lm.is_diffusion else 1 / (query + 1) for query in queries)
                profile.append(sum(float(map_QK[query, key]) for query in queries) / even if len(queries) else None)
            seen = [mass for mass in profile if mass is not None]
            border = statistics.fmean(seen) + 2 * statistics.pstdev(seen)
            found.append([mass is not None and mass > border for mass in profile])
    lm.model.set_attn_implementation("sdpa")
    return torch.tensor(found).view(-1, levels, length)


@pytest.fixture
def calibration(make_ids) -> Calibration:
    return Calibration(make_ids(5, 24), seed=3, batch=4)


@pytest.fixture
def masks(tiny_dlm, calibration) -> torch.Tensor:
    """The sinks of the calibration text along its noise levels, bool (N, S, T); some of them move."""
    masks_NST, _ = sink_masks(tiny_dlm, calibration, LEVELS, 2.0, progress=False)
    assert 0 < masks_NST.any(1).sum() and not torch.equal(masks_NST.any(1), masks_NST.all(1))
    return masks_NST


def rows_of(lm, calibration, inputs, tokens, deviations=2.0, stable_from=0.8):
    return rows_for(lm, calibration, inputs, tokens, LEVELS, deviations, stable_from, progress=False)


# noise


def test_noise_counts_are_the_midpoints_of_even_strata():
    assert noise_counts(4, 16) == [14, 10, 6, 2]
    assert noise_counts(1, 9) == [round(4.5)]
    assert noise_counts(8, 2)[-1] == 1  # a step without a mask would be clean text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(levels=st.integers(1, 20), maskable=st.integers(1, 200))
def test_noise_counts_fall_and_stay_between_one_mask_and_all(levels, maskable):
    counts = noise_counts(levels, maskable)
    assert len(counts) == levels and counts == sorted(counts, reverse=True)
    assert min(counts) >= 1 and max(counts) <= maskable
    if levels < maskable / 2:
        assert len(set(counts)) == levels


def test_masks_of_a_trajectory_are_nested(tiny_dlm, calibration):
    trajectory_NST = noised_trajectory(tiny_dlm, calibration, 6)
    masked_NST = trajectory_NST == MASK_TOKEN_ID
    assert trajectory_NST.shape == (5, 6, 24)
    assert masked_NST.sum(-1).tolist() == [noise_counts(6, 23)] * 5
    assert not (masked_NST[:, 1:] & ~masked_NST[:, :-1]).any()
    assert not masked_NST[:, :, 0].any()
    assert torch.equal(trajectory_NST[~masked_NST], calibration.ids_NT[:, None].expand_as(trajectory_NST)[~masked_NST])


def test_the_noise_of_a_sequence_depends_on_seed_and_number_alone(tiny_dlm, calibration, make_ids):
    trajectory_NST = noised_trajectory(tiny_dlm, calibration, 4)
    fewer = Calibration(calibration.ids_NT[:2], seed=3, batch=1)
    assert torch.equal(noised_trajectory(tiny_dlm, fewer, 4), trajectory_NST[:2])
    where_NST = trajectory_NST == MASK_TOKEN_ID
    assert torch.equal(noised_trajectory(tiny_dlm, Calibration(make_ids(5, 24, seed=8), seed=3), 4) == MASK_TOKEN_ID, where_NST)
    assert not torch.equal(where_NST[0], where_NST[1])
    assert not torch.equal(noised_trajectory(tiny_dlm, Calibration(calibration.ids_NT, seed=4), 4) == MASK_TOKEN_ID, where_NST)


# sinks


@pytest.mark.parametrize("shape", ["gqa", "mha"])
@pytest.mark.parametrize("kind", KINDS)
def test_sinks_are_those_of_eager_attention(make_lm, calibration, kind, shape):
    lm = make_lm(kind, shape)
    masks_NST, visible_ST = sink_masks(lm, calibration, LEVELS, 2.0, progress=False)
    assert torch.equal(masks_NST, naive_sinks(lm, calibration, LEVELS))
    assert masks_NST.any()
    last = [6, 12, 18] if kind == "autoregressive" else [23] * LEVELS
    assert visible_ST.tolist() == [[key <= border for key in range(24)] for border in last]


@pytest.mark.parametrize("kind", KINDS)
def test_sinks_do_not_depend_on_the_batch(make_lm, make_ids, kind):
    lm, found = make_lm(kind), []
    for batch in (1, 4, 50):
        found.append(sink_masks(lm, Calibration(make_ids(5, 24), batch=batch), LEVELS, 2.0, progress=False)[0])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_an_anchored_model_has_one_sink_that_never_moves(make_anchored_lm, make_ids, kind):
    ids_NT = make_ids(4, 24)
    ids_NT[:, 0] = START_TOKEN_ID
    masks_NST, visible_ST = sink_masks(make_anchored_lm(kind), Calibration(ids_NT), LEVELS, 2.0, progress=False)
    assert torch.equal(masks_NST, (torch.arange(24) == 0).expand_as(masks_NST))
    assert not left_out(masks_NST, visible_ST, "unstable", 0.8, seed=0).any()


def test_a_causal_model_refuses_more_levels_than_queries(tiny_ar, tiny_dlm, make_ids):
    calibration = Calibration(make_ids(2, 6))
    with pytest.raises(ValueError, match="levels=7 exceed the 6 tokens"):
        sink_masks(tiny_ar, calibration, 7, 2.0, progress=False)
    assert sink_masks(tiny_ar, calibration, 6, 2.0, progress=False)[0].shape == (2, 6, 6)
    assert sink_masks(tiny_dlm, calibration, 7, 2.0, progress=False)[0].shape == (2, 7, 6)


# weights


def test_none_leaves_nothing_out(masks):
    assert not left_out(masks, torch.ones_like(masks[0]), "none", 0.8, seed=0).any()


def test_only_and_all_are_complements(masks):
    visible_ST = torch.ones_like(masks[0])
    assert torch.equal(left_out(masks, visible_ST, "all", 0.8, seed=0), masks)
    assert torch.equal(left_out(masks, visible_ST, "only", 0.8, seed=0), ~masks)


@pytest.mark.parametrize("stable_from", [0.0, 0.5, 0.8, 1.0])
def test_stable_and_unstable_add_up_to_all(masks, stable_from):
    visible_ST = torch.ones_like(masks[0])
    stable_NST, unstable_NST = (left_out(masks, visible_ST, tokens, stable_from, seed=0) for tokens in ("stable", "unstable"))
    assert torch.equal(stable_NST ^ unstable_NST, masks)
    for sequence in range(len(masks)):
        for key in range(24):
            share = sum(masks[sequence, :, key].tolist()) / LEVELS
            assert bool(stable_NST[sequence, :, key].any()) == (share > 0 and share >= stable_from)


@pytest.mark.parametrize("kind", KINDS)
def test_random_leaves_out_as_many_visible_tokens_per_step_as_all(make_lm, calibration, kind):
    masks_NST, visible_ST = sink_masks(make_lm(kind), calibration, LEVELS, 1.0, progress=False)
    drawn_NST = left_out(masks_NST, visible_ST, "random", 0.8, seed=3)
    assert torch.equal(drawn_NST.sum(-1), masks_NST.sum(-1))
    assert not (drawn_NST & ~visible_ST).any()
    assert not torch.equal(drawn_NST, masks_NST)
    assert torch.equal(left_out(masks_NST, visible_ST, "random", 0.8, seed=3), drawn_NST)
    assert torch.equal(left_out(masks_NST[:2], visible_ST, "random", 0.8, seed=3), drawn_NST[:2])
    assert not torch.equal(left_out(masks_NST, visible_ST, "random", 0.8, seed=4), drawn_NST)


@pytest.mark.parametrize("tokens", ["all", "unstable", "stable", "random", "only"])
def test_noised_rows_leave_a_token_out_exactly_where_it_is_a_sink(tiny_dlm, calibration, masks, tokens):
    rows = rows_of(tiny_dlm, calibration, "noised", tokens)
    out_NST = left_out(masks, torch.ones_like(masks[0]), tokens, 0.8, calibration.seed)
    assert torch.equal(rows.ids_RT.view(5, LEVELS, 24), noised_trajectory(tiny_dlm, calibration, LEVELS))
    assert torch.equal(rows.weight_RT.view(5, LEVELS, 24), (~out_NST).float())
    assert rows.tokens == 5 * LEVELS * 24


@pytest.mark.parametrize("tokens", ["all", "unstable", "only"])
@pytest.mark.parametrize("kind", KINDS)
def test_clean_rows_weigh_a_token_by_the_steps_in_which_it_counts(make_lm, calibration, kind, tokens):
    lm = make_lm(kind)
    rows = rows_of(lm, calibration, "clean", tokens)
    out_NST = left_out(*sink_masks(lm, calibration, LEVELS, 2.0, progress=False), tokens, 0.8, calibration.seed)
    assert torch.equal(rows.ids_RT, calibration.ids_NT)
    for sequence in range(5):
        for key in range(24):
            assert rows.weight_RT[sequence, key].item() == pytest.approx(1 - sum(out_NST[sequence, :, key].tolist()) / LEVELS)


@pytest.mark.parametrize("inputs", INPUTS)
def test_without_a_choice_of_tokens_there_are_no_weights(tiny_dlm, calibration, inputs):
    rows = rows_of(tiny_dlm, calibration, inputs, "none")
    assert rows.weight_RT is None
    assert rows.tokens == 5 * 24 * (LEVELS if inputs == "noised" else 1)


@pytest.mark.parametrize("tokens", TOKENS)
def test_rows_do_not_depend_on_the_batch(tiny_dlm, calibration, tokens):
    one, many = (rows_of(tiny_dlm, Calibration(calibration.ids_NT, 3, batch), "noised", tokens) for batch in (1, 64))
    assert torch.equal(one.ids_RT, many.ids_RT)
    assert one.weight_RT is many.weight_RT is None or torch.equal(one.weight_RT, many.weight_RT)


@pytest.mark.parametrize("inputs", INPUTS)
def test_weights_that_are_zero_everywhere_are_an_error(tiny_dlm, calibration, inputs):
    with pytest.raises(ValueError, match="tokens='only' leaves no calibration token with a weight above 0"):
        rows_of(tiny_dlm, calibration, inputs, "only", deviations=1000.0)
    assert rows_of(tiny_dlm, calibration, inputs, "all", deviations=1000.0).weight_RT.all()


# the text


@pytest.mark.parametrize(
    "ids_NT, batch, said",
    [
        (torch.zeros(0, 5, dtype=torch.long), 1, r"shape \(0, 5\).*give calibration text"),
        (torch.zeros(5, dtype=torch.long), 1, r"shape \(5,\); expected \(sequences, tokens\)"),
        (torch.zeros(3, 1, dtype=torch.long), 1, "at least 2 tokens"),
        (torch.zeros(3, 4, dtype=torch.long), 0, "batch=0 must be at least 1"),
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
    others = [Calibration(changed_NT, 1), Calibration(ids_NT, 2), Calibration(ids_NT.view(6, 4), 1), Calibration(ids_NT.flip(0), 1)]
    assert original not in {other.fingerprint for other in others}
