"""Tables of sink statistics by reading, paired differences, and figures with both kinds side by side."""

import math

import numpy as np
import pandas as pd
import torch

from sinkprune_companion.experiments import sink_measures
from sinkprune_companion.figures import forests, trajectories
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.readings import LITERAL, READINGS
from sinkprune_core.sinks.trace import trace

SAMPLER = Sampler(length=12, steps=4, block=None, temperature=1.0)


def test_every_reading_has_a_row_per_prompt(tiny_ar, make_ids):
    found = trace(tiny_ar, make_ids(3, 5), SAMPLER, progress=False)
    frame = sink_measures.by_reading(found, 1.5, 0.8, kind="autoregressive", condition="main")
    assert frame.groupby("reading", sort=False).prompt.apply(list).to_dict() == {
        name: [0, 1, 2] for name in READINGS
    }
    literal = READINGS[LITERAL].variability(found, 1.5, 0.8)
    part = frame[frame.reading == LITERAL]
    pd.testing.assert_frame_equal(part[literal.columns].reset_index(drop=True), literal)
    assert set(frame.condition) == {"main"} and part.new_queries.nunique() == 1
    layers = sink_measures.by_layer(found, 1.5, 0.8, kind="autoregressive")
    assert layers.groupby("layer").size().tolist() == [3, 3, 3]


def test_differences_are_paired_by_prompt_and_average_over_what_else_there_is():
    rows = []
    for prompt, base in enumerate((1.0, 5.0, 9.0)):
        for layer in (0, 1):
            rows.append({"prompt": prompt, "kind": "diffusion", "layer": layer, "value": base + 2 + layer})
            rows.append({"prompt": prompt, "kind": "autoregressive", "layer": layer, "value": base})
    frame = pd.DataFrame(rows)
    found = sink_measures.difference(frame, "value")
    assert (found.value, found.low, found.high, found.units) == (2.5, 2.5, 2.5, 3)
    frame.loc[frame.prompt == 2, "value"] = math.nan
    assert sink_measures.difference(frame, "value").units == 2
    frame.loc[frame.prompt == 1, "value"] = math.nan
    assert sink_measures.difference(frame, "value") is None, "one prompt has no interval"
    assert sink_measures.difference(frame[frame.kind == "diffusion"], "value") is None


def test_rows_are_drawn_at_their_means_for_both_kinds():
    rows = [
        {"row": row, "kind": kind, "value": place + 10 * (kind == "diffusion") + shift}
        for place, row in enumerate(("one", "two"))
        for kind in ("diffusion", "autoregressive")
        for shift in (-0.5, 0.5, math.nan)
    ]
    figure = forests.plot_by_row(pd.DataFrame(rows), "row", {"value": "v"}, "A title")
    (axis,) = figure.axes
    points = sorted((round(c[0].get_ydata()[0]), float(c[0].get_xdata()[0])) for c in axis.containers)
    assert points == [(0, 0.0), (0, 10.0), (1, 1.0), (1, 11.0)]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["one", "two"]
    assert figure.legends[0].get_title().get_text() == "A title"


def test_a_panel_shows_one_prompt_of_a_trace_by_a_reading(tiny_dlm, tiny_ar, make_ids):
    for lm in (tiny_dlm, tiny_ar):
        found = trace(lm, make_ids(2, 5), SAMPLER, progress=False)
        for reading in READINGS.values():
            panel = trajectories.panel(lm, found, 1, "title", reading, sink_std=1.0)
            mass_BSK, visible_SK = reading.mass_BSK(found), reading.visible(found)
            assert np.array_equal(panel["profile_SK"], mass_BSK[1].numpy())
            sinks_BSK = reading.sinks(mass_BSK, visible_SK, 1.0)
            assert torch.equal(torch.tensor(panel["sinks_SK"]), sinks_BSK[1])
            masks = [[name == "" for name in state] for state in panel["states_SK"]]
            assert masks == (found.ids_BSK[1] == lm.mask_token_id).tolist() if lm.is_diffusion else True
        trajectories.plot_writing([panel], 0)
