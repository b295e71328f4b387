"""What a first token does for a model: nothing without attention, and what other code finds with it."""

import pytest
import torch

from sinkprune_companion.training.first_token import CONDITIONS, first_token_rows
from sinkprune_core import corpus
from sinkprune_core.evaluation.likelihood import nelbo, nll


def by_condition(lm, ids_NT) -> dict[str, float]:
    rows = first_token_rows(lm, ids_NT, draws=2, seed=0)
    assert [row["on"] for row in rows] == list(CONDITIONS)
    return {row["on"]: row["value"] for row in rows}


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_without_attention_a_first_token_does_nothing(make_lm, make_ids, kind):
    lm = make_lm(kind)
    with torch.no_grad():
        for name, weight in lm.model.named_parameters():
            if "o_proj" in name:
                weight.zero_()
    found = by_condition(lm, make_ids(3, 12))
    assert found["without it"] > 0
    for condition in CONDITIONS[2:]:
        assert found[condition] == pytest.approx(0, abs=1e-6)


def test_the_same_tokens_count_with_and_without_it(tiny_dlm, make_ids):
    ids_NT = make_ids(4, 12)
    found = by_condition(tiny_dlm, ids_NT)
    behind_NT = corpus.with_first_token(ids_NT, tiny_dlm.tokenizer)
    assert found["without it"] == pytest.approx(nelbo(tiny_dlm, ids_NT, 2, 0).value.mean())
    assert found["with it"] == pytest.approx(nelbo(tiny_dlm, behind_NT, 2, 0, first_scored=2).value.mean())
    assert found["without − with"] == pytest.approx(found["without it"] - found["with it"])


def test_hiding_position_0_costs_most_where_it_is_the_only_sink(make_anchored_lm, make_ids):
    found = by_condition(make_anchored_lm("diffusion"), make_ids(4, 12))
    with_it, without = (found[f"hiding position 0, {name}"] for name in ("with", "without"))
    assert abs(with_it) > 2 * abs(without)


def test_an_autoregressive_model_is_scored_exactly(tiny_ar, make_ids):
    ids_NT = make_ids(4, 12)
    found = by_condition(tiny_ar, ids_NT)
    assert found["without it"] == pytest.approx(nll(tiny_ar, ids_NT).value.mean())
