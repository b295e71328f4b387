"""Differences of sink statistics, paired by prompt."""

import math

import pandas as pd

from sinkprune_companion.experiments import sink_measures


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
