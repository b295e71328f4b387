"""Tables of sink statistics by reading, and paired differences."""

import math

import pandas as pd

from sinkprune_companion.experiments import sink_measures
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
