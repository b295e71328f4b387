"""Sinks: examples worked out by hand, and what must hold for any attention."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_companion.experiments.sink_measures import token_table
from sinkprune_core.sinks.detection import (
    centroid,
    overlap,
    persistence,
    sink_sets,
    sinks_above_others,
    split_by_persistence,
    top_keys,
    variability,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def bools(draw, steps=(1, 8), keys=(1, 10)) -> torch.Tensor:
    """Some bool (S, K), with the sizes in these ranges."""
    rows, columns = draw(st.integers(*steps)), draw(st.integers(*keys))
    return torch.tensor(draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))).view(
        rows, columns
    )


@st.composite
def profiles(draw) -> tuple[torch.Tensor, torch.Tensor]:
    """A profile with some outliers, float32 (S, K), and which keys are visible, at least one per step."""
    visible_SK = draw(bools(keys=(6, 16)))
    visible_SK[:, 0] = True
    rng = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    return torch.rand(visible_SK.shape, generator=rng) + 9 * (
        torch.rand(visible_SK.shape, generator=rng) < 0.1
    ), visible_SK


# which tokens


@quick
@given(case=profiles(), sink_std=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
def test_sinks_are_what_a_loop_finds(case, sink_std):
    profile_SK, visible_SK = case
    sinks_SK = sink_sets(profile_SK, visible_SK, sink_std)
    for row, visible, sinks in zip(profile_SK.tolist(), visible_SK.tolist(), sinks_SK.tolist(), strict=True):
        seen = [mass for mass, is_seen in zip(row, visible, strict=True) if is_seen]
        border = statistics.fmean(seen) + sink_std * statistics.pstdev(seen)
        for mass, is_seen, is_sink in zip(row, visible, sinks, strict=True):
            if abs(mass - border) > 1e-4:
                assert is_sink == (is_seen and mass > border)


@quick
@given(case=profiles(), scale=st.integers(-6, 6), seed=st.integers(0, 99))
def test_sinks_follow_a_permutation_and_ignore_scale(case, scale, seed):
    profile_SK, visible_SK = case
    sinks_SK = sink_sets(profile_SK, visible_SK)
    order_K = torch.randperm(profile_SK.shape[1], generator=torch.Generator().manual_seed(seed))
    assert torch.equal(sink_sets(profile_SK[:, order_K], visible_SK[:, order_K]), sinks_SK[:, order_K])
    assert torch.equal(sink_sets(profile_SK * 2.0**scale, visible_SK), sinks_SK)


@quick
@given(keys=st.integers(1, 40), steps=st.integers(1, 4), mass=st.floats(0.01, 100), sink_std=st.floats(0, 3))
def test_even_attention_has_no_sink(keys, steps, mass, sink_std):
    assert not sink_sets(torch.full((steps, keys), mass), sink_std=sink_std).any()


@quick
@given(case=profiles(), shares=st.sampled_from([0.5, 1.0, 3.0]))
def test_sinks_above_the_others_are_what_a_loop_finds(case, shares):
    mass_SK, visible_SK = case
    sinks_SK = sinks_above_others(mass_SK, visible_SK, shares)

    for row, visible, sinks in zip(mass_SK.tolist(), visible_SK.tolist(), sinks_SK.tolist(), strict=True):
        seen = [mass for mass, is_seen in zip(row, visible, strict=True) if is_seen]
        for mass, is_seen, is_sink in zip(row, visible, sinks, strict=True):
            if not is_seen or len(seen) == 1:
                assert not is_sink
                continue
            border = (sum(seen) - mass) / (len(seen) - 1) + shares * statistics.fmean(seen)
            if abs(mass - border) > 1e-4:
                assert is_sink == (mass > border)


# how long


def test_persistence_by_hand():
    sinks_SK = torch.tensor(
        [[True, False, True], [True, True, False], [True, False, False], [True, False, False]]
    )
    visible_SK = torch.tensor(
        [[True, False, True], [True, True, True], [True, True, False], [True, True, False]]
    )
    assert persistence(sinks_SK).tolist() == [1, 0.25, 0.25]
    assert persistence(sinks_SK, visible_SK).tolist() == pytest.approx([1, 1 / 3, 1 / 2])


def test_a_key_that_is_never_visible_has_no_persistence():
    nothing_SK = torch.zeros(3, 2, dtype=torch.bool)
    assert persistence(nothing_SK, nothing_SK).tolist() == [0, 0]


def test_every_share_of_steps_reaches_the_threshold_of_its_own_name():
    for steps in range(1, 30):
        for times in range(1, steps + 1):
            sinks_SK = (torch.arange(steps) < times)[:, None]
            assert split_by_persistence(sinks_SK, stability_threshold=times / steps)[0].any()


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"stability_threshold={threshold} must lie in \[0, 1\]"):
        split_by_persistence(torch.ones(1, 1, dtype=torch.bool), stability_threshold=threshold)


@quick
@given(sinks_SK=bools(), threshold=st.floats(0, 1))
def test_stable_and_unstable_divide_the_sinks(sinks_SK, threshold):
    stable_SK, unstable_SK = split_by_persistence(sinks_SK, stability_threshold=threshold)
    assert torch.equal(stable_SK | unstable_SK, sinks_SK)
    assert not (stable_SK & unstable_SK).any()
    assert not (stable_SK.any(0) & unstable_SK.any(0)).any()  # a position is one or the other
    for key, column in enumerate(sinks_SK.T.tolist()):
        share = sum(column) / len(column)
        if abs(share - threshold) > 1e-6:
            assert stable_SK[:, key].any() == (share > threshold and any(column))


# how much they move


def test_centroid_by_hand():
    profile_SK = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [5, 5, 5, 5]])
    sinks_SK = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    center_S = centroid(profile_SK, sinks_SK)
    assert center_S[[0, 2]].tolist() == pytest.approx([(2 * 1 + 4 * 3) / 6, 1.5])
    assert center_S[1].isnan()


def test_overlap_by_hand():
    sinks_SK = torch.tensor(
        [
            [True, True, False],
            [False, True, False],
            [False, False, False],
            [False, False, False],
            [True, False, True],
            [True, False, True],
        ]
    )

    overlap_S = overlap(sinks_SK)
    assert overlap_S[[0, 1, 3, 4]].tolist() == [0.5, 0, 0, 1]
    assert overlap_S[2].isnan()


def moving(*places: int, keys: int = 10, mass: float = 10) -> torch.Tensor:
    """Return a profile whose step s puts all mass on `places[s]`."""
    profile_SK = torch.zeros(len(places), keys)
    profile_SK[range(len(places)), list(places)] = mass
    return profile_SK


def test_variability_by_hand():
    frame = variability(torch.stack([moving(2, 2, 8), moving(4, 4, 4)]), stability_threshold=0.6)
    assert frame.prompt.tolist() == [0, 1]

    expected = {  # where the sink moves, and where it stays
        "spatial_variance": [((20 / 3 - 1) ** 2 + (10 / 3 - 1) ** 2 + 8) / 10, (81 + 9) / 10],
        "temporal_variance": [8, 0],  # of 2, 2, 8
        "temporal_variance_relative": [0.08, 0],
        "centroid_jump": [(0 + 0.6) / 2, 0],
        "overlap": [0.5, 1],
        "sinks_per_step": [1, 1],
        "positions": [2, 1],
        "stable_share": [2 / 3, 1],
        "top_share": [1, 1],
    }

    assert set(frame) == {"prompt", *expected}
    for name, values in expected.items():
        assert frame[name].tolist() == pytest.approx(values), name

    profile_SK = moving(2, 2, 2, 8)
    profile_SK[2] = 1.0  # a step without a sink, over which nothing jumps
    assert variability(profile_SK[None]).centroid_jump[0] == 0


def test_variability_looks_at_visible_keys_only():
    profile_BSK = torch.cat([moving(2, 2, 8), torch.full((3, 4), 7.0)], 1)[None]
    visible_SK = torch.arange(14).expand(3, -1) < 10
    hidden, plain = variability(profile_BSK, visible_SK).loc[0], variability(moving(2, 2, 8)[None]).loc[0]
    lengths = {"temporal_variance_relative": (10 / 14) ** 2, "centroid_jump": 10 / 14}  # to the whole length
    for name in plain.index:
        assert hidden[name] == pytest.approx(plain[name] * lengths.get(name, 1)), name


def test_the_table_of_tokens_by_hand(tiny_ar):
    ids_BSK = torch.tensor([[[18, 22, 19], [18, 4, 19]], [[20, 22, 4], [20, 22, 19]]])
    sinks_BSK = torch.tensor(
        [[[True, False, False], [True, True, False]], [[False, True, False], [True, False, False]]]
    )
    table = token_table(ids_BSK, sinks_BSK, tiny_ar.tokenizer).set_index("token")
    assert table.index[0] == "'the'"
    assert table.share.to_dict() == {"'the'": 0.4, "'<reponame>'": 0.2, "'list'": 0.2, "'is'": 0.2}
    assert table.persistence.to_dict() == {"'the'": 1, "'<reponame>'": 0.5, "'list'": 0.5, "'is'": 0.5}


# keys to hide


def test_the_top_keys_are_those_of_most_mass_that_can_be_seen():
    profile_BK = torch.tensor([[1.0, 9, 3, 9, 2], [5, 4, 3, 2, 1]])
    visible_BK = torch.tensor([[True, True, True, True, False], [False, True, True, True, True]])
    earlier_of_equal = [[0, 1], [1, 1]]

    assert top_keys(profile_BK, 1, visible_BK).nonzero().tolist() == earlier_of_equal
    assert top_keys(profile_BK, 3, visible_BK).nonzero()[:, 1].tolist() == [1, 2, 3, 1, 2, 3]
    assert top_keys(profile_BK, 2)[1].tolist() == [True, True, False, False, False]
    assert not top_keys(profile_BK, 0).any()

    with pytest.raises(ValueError, match="count=5 must lie in 0 … 4"):
        top_keys(profile_BK, 5, visible_BK)
