"""Paired comparisons of two models: differences by hand."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments.comparison import difference, flips, paired, paired_items


def texts(values) -> pd.DataFrame:
    return pd.DataFrame({"sequence": range(len(values)), "value": values})


def paired_texts(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    return paired(a, b, ["sequence"], "value")


def answers(correct: list[bool]) -> pd.DataFrame:
    """Return answers to pairs of items, the first half of them of one group."""
    count = len(correct)
    pair = np.arange(count) // 2
    return pd.DataFrame(
        {"group": np.where(np.arange(count) < count // 2, "a", "b"), "pair": pair, "correct": correct}
    )


def test_nats_are_paired_by_sequence():
    rng = np.random.default_rng(0)
    value = rng.normal(4, 1, 50)
    found = paired_texts(texts(value), texts(value + rng.normal(0.1, 0.01, 50)))
    assert found.a.mean() == pytest.approx(value.mean())
    change = difference(found)
    assert found.b.mean() - found.a.mean() == pytest.approx(change.value) == pytest.approx(0.1, abs=0.01)
    assert change.units == 50
    assert change.high - change.low < 0.01  # unpaired it would be about 0.8
    shuffled = texts(value).sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="score both models on the same texts"):
        paired_texts(texts(value), shuffled)
    with pytest.raises(ValueError, match="50 and 49 rows and not the same sequence"):
        paired_texts(texts(value), texts(value[:-1]))
    with pytest.raises(ValueError, match="at least 2 units"):
        difference(paired_texts(texts(value[:1]), texts(value[:1])))


def test_accuracy_is_paired_by_item_and_a_pair_is_one_unit():
    a = answers([True, True, True, False, False, False, True, False])
    b = answers([False, True, False, True, False, False, True, True])
    items = paired_items(a, b)
    found = difference(items.groupby(level=["group", "pair"], sort=False).mean())
    assert (items.a.mean(), items.b.mean()) == (4 / 8, 4 / 8) and found.units == 4
    assert found.value == 0  # pairs: -1/2, 0, 0, 1/2
    reach = 3.182446 * (1 / 6) ** 0.5 / 4**0.5  # t of 3 degrees of freedom, times the standard error
    assert (found.low, found.high) == pytest.approx((-reach, reach))
    assert flips(items) == {"only_a": 2, "only_b": 2, "both": 2, "neither": 2}
    with pytest.raises(ValueError, match="not the same group, pair, item"):
        paired_items(a, b[:6])
