"""Paired comparisons of two models: differences by hand."""

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.comparison import ACCURACY, NATS, comparison

MARGIN = 0.02


def texts(values) -> pd.DataFrame:
    return pd.DataFrame({"sequence": range(len(values)), "value": values})


def compared(a: pd.DataFrame, b: pd.DataFrame, measure: str = NATS) -> dict:
    return comparison({measure: a}, {measure: b}, MARGIN)


def answers(correct: list[bool]) -> pd.DataFrame:
    """Return answers to pairs of items with a template each, the first half of them of one group."""
    count = len(correct)
    pair = np.arange(count) // 2
    group = np.where(np.arange(count) < count // 2, "a", "b")
    return pd.DataFrame({"group": group, "template": pair, "pair": pair, "correct": correct})


def test_nats_are_paired_by_sequence():
    rng = np.random.default_rng(0)
    value = rng.normal(4, 1, 50)
    found = compared(texts(value), texts(value + rng.normal(0.1, 0.01, 50)))
    [row] = found["differences"]

    assert found["verdict"] == "A is better"
    assert row["a"] == pytest.approx(value.mean())
    assert row["b"] - row["a"] == pytest.approx(row["b_minus_a"]) == pytest.approx(0.1, abs=0.01)
    assert row["number"] == 50
    assert row["high"] - row["low"] < 0.01  # unpaired it would be about 0.8

    shuffled = texts(value).sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="score both models on the same texts"):
        compared(texts(value), shuffled)

    with pytest.raises(ValueError, match="50 and 49 rows and not the same sequence"):
        compared(texts(value), texts(value[:-1]))

    with pytest.raises(ValueError, match="at least 2 units"):
        compared(texts(value[:1]), texts(value[:1]))


def test_accuracy_is_paired_by_item_and_a_template_is_one_unit():
    a = answers([True, True, True, False, False, False, True, False])
    b = answers([False, True, False, True, False, False, True, True])
    found = compared(a, b, ACCURACY)
    [row] = found["differences"]

    assert (row["a"], row["b"], row["number"]) == (4 / 8, 4 / 8, 4)
    assert row["b_minus_a"] == 0  # templates: -1/2, 0, 0, 1/2
    reach = 3.182446 * (1 / 6) ** 0.5 / 4**0.5  # t of 3 degrees of freedom, times the standard error
    assert (row["low"], row["high"]) == pytest.approx((-reach, reach))
    assert found["flips"] == {"only_a": 2, "only_b": 2, "both": 2, "neither": 2}

    with pytest.raises(ValueError, match="not the same group, template, pair"):
        compared(a, b[:6], ACCURACY)
