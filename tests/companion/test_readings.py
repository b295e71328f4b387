"""Readings of a step: they agree for a model whose queries all run again, and differ for a causal one."""

import dataclasses

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments.sink_measures import share_of_new_queries
from sinkprune_companion.readings import LITERAL, READINGS, reading
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.attention import even_share, track
from sinkprune_core.sinks.detection import sinks_above_others
from sinkprune_core.sinks.trace import Trace, query_windows, trace

PROMPT, LENGTH = 5, 19
SAMPLER = Sampler(length=14, steps=7, block=None, temperature=1.0)
WINDOWS = query_windows(PROMPT, LENGTH, 7)


@pytest.fixture
def causal(tiny_ar, make_ids) -> Trace:
    return trace(tiny_ar, make_ids(4, PROMPT), SAMPLER, progress=False)


def test_all_readings_of_a_bidirectional_model_agree_but_the_thresholds(tiny_dlm, make_ids):
    found = trace(tiny_dlm, make_ids(3, PROMPT), SAMPLER, progress=False)
    literal = READINGS[LITERAL]

    for name, one in READINGS.items():
        torch.testing.assert_close(one.mass_BSK(found), found.mass_BSK)
        assert one.visible(found).all()
        assert share_of_new_queries(found, name) == 1

        if not one.others:
            pd.testing.assert_frame_equal(
                one.variability(found, 1.0), literal.variability(found, 1.0), rtol=1e-4
            )

    sinks_BSK = READINGS["above_others"].sinks(found.mass_BSK, found.visible_SK)
    assert torch.equal(sinks_BSK, sinks_above_others(found.mass_BSK))


def test_readings_of_a_causal_model_are_what_trackers_of_their_windows_find(tiny_ar, causal):
    """A naive reference: a tracker with the very queries that a reading counts, over their even shares."""
    for name, start, divided in (
        (LITERAL, 0, False),
        ("newest", None, False),
        ("newest_shares", None, True),
        ("so_far_shares", PROMPT, True),
    ):
        windows = [(first if start is None else start, last) for first, last in WINDOWS]

        with track(tiny_ar.model, windows) as tracker:
            tiny_ar.hidden(causal.final_BK)
            mass_BSK = tracker.take().mean((1, 2))

        if divided:
            even_SK = even_share(LENGTH, windows, causal=True)
            mass_BSK = mass_BSK / even_SK.masked_fill(even_SK == 0, torch.inf)

        torch.testing.assert_close(reading(name).mass_BSK(causal), mass_BSK, atol=1e-5, rtol=1e-5)

        ends_S = [last if name == LITERAL else first + 1 for first, last in WINDOWS]
        seen = [[key < end for key in range(LENGTH)] for end in ends_S]
        assert reading(name).visible(causal).tolist() == seen


def test_a_causal_sum_over_all_queries_can_only_settle(causal):
    """Whatever the model does, a step moves all shares by its part of all queries at most, so ever less."""
    bound_S = torch.tensor([2 * (last - first) / last for first, last in WINDOWS[1:]])
    moved = {}
    for name in (LITERAL, "newest"):
        mass_BSK = READINGS[name].mass_BSK(causal)
        share_BSK = mass_BSK / mass_BSK.sum(-1, keepdim=True)
        moved[name] = share_BSK.diff(dim=1).abs().sum(-1)
    assert (moved[LITERAL] <= bound_S + 1e-5).all() and bound_S[-1] < 0.3
    assert (moved["newest"] > bound_S).all()


def test_new_queries_are_counted(causal):
    found = {name: share_of_new_queries(causal, name) for name in READINGS}
    since_beginning = sum(2 / last for _, last in WINDOWS[1:]) / 6
    since_prompt = sum(2 / (last - PROMPT) for _, last in WINDOWS[1:]) / 6
    expected = {LITERAL: since_beginning, "above_others": since_beginning, "newest": 1, "newest_shares": 1}
    assert found == pytest.approx(expected | {"so_far_shares": since_prompt})


def test_one_layer_has_statistics_of_its_own(causal):
    by_layer = [READINGS[LITERAL].variability(causal, layer=layer) for layer in range(3)]
    assert len({tuple(frame.top_share) for frame in by_layer}) == 3

    alone = dataclasses.replace(
        causal, layers_BSLK=causal.layers_BSLK[:, :, :1], prefix_BLK=causal.prefix_BLK[:, :1]
    )

    torch.testing.assert_close(
        torch.tensor(READINGS[LITERAL].variability(alone).to_numpy()),
        torch.tensor(by_layer[0].to_numpy()),
        equal_nan=True,
    )
