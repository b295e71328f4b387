"""Tables of sinks that are kept without their traces."""

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
        assert (
            continued(kind)
            .readings(1.0, 0.6)[["overlap", "stable_share"]]
            .equals(expected[kind][["overlap", "stable_share"]])
        )
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
