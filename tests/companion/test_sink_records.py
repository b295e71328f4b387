"""Tables of sinks that are kept without their traces, and differences of their statistics."""

import math

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments import sink_measures, sink_records
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.experiments.sink_records import Continued

HOW = {"prompt_length": 6, "steps": 4, "temperature": 1.0}


@pytest.fixture
def continued(run, tiny_dlm, tiny_ar, make_ids, monkeypatch):
    """A function that returns a model with three prompts, by its kind."""
    texts = {"natural": make_ids(3, 6)}
    monkeypatch.setattr(sink_records.sink_conditions, "prompts", lambda *given: texts)
    models = {"diffusion": tiny_dlm, "autoregressive": tiny_ar}

    def make(kind: str, trajectory: int = 0) -> Continued:
        return Continued(run, models[kind], "same weights", Condition(tokens=14), 3, HOW, 0, trajectory)

    return make


def test_tables_are_those_of_the_trace_and_need_none_again(continued, run, monkeypatch):
    expected = {}
    for kind in ("diffusion", "autoregressive"):
        expected[kind] = sink_measures.by_reading(continued(kind).trace(), 1.0, 0.6)
        found = continued(kind).readings(1.0, 0.6)
        for column in ("overlap", "stable_share"):
            assert found[column].equals(expected[kind][column])

    assert not expected["diffusion"].equals(expected["autoregressive"])

    monkeypatch.delattr(sink_records, "trace")
    again = continued("diffusion").readings(1.0, 0.6)
    assert again.overlap.equals(expected["diffusion"].overlap)

    continued("diffusion").readings(1.0, 0.9)  # another rule, the same trace
    with pytest.raises(NameError):
        continued("diffusion", trajectory=1).readings(1.0, 0.6)


def test_the_first_prompts_are_traced_as_among_all(continued):
    for kind in ("diffusion", "autoregressive"):
        first, every = continued(kind).trace(first=2), continued(kind).trace()
        assert torch.equal(first.final_BK, every.final_BK[:2])
        torch.testing.assert_close(first.layers_BSLK, every.layers_BSLK[:2])


def test_the_spread_alone_has_a_tenth_of_the_ar_model_s_value_as_its_margin():
    """As the ledger says; other measures have margins that are numbers, or none."""
    rows = [
        {"prompt": prompt, "kind": kind, "spatial_variance": value, "overlap": value}
        for prompt in (0, 1)
        for kind, value in (("diffusion", 1.0 + prompt), ("autoregressive", 4.0))
    ]
    frame = pd.DataFrame(rows)
    assert sink_measures.difference(frame, "spatial_variance").margin == pytest.approx(0.4)
    assert sink_measures.difference(frame, "overlap").margin is None


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
