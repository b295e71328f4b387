"""Factorial effects agree with a regression, and verdicts follow the data."""

from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.verdict_rule import HURTS, UNDECIDED, judge
from sinkprune_companion.experiments.paired_differences import differences_of
from sinkprune_companion.experiments.recipe_search import (
    Switch,
    cells,
    contrast,
    effects,
    name,
    path,
)
from sinkprune_core.pruning.recipe import Recipe, preset

SWITCHES = [
    Switch("inputs", "clean", "noised", "noised text"),
    Switch("propagation", "sequential", "dense", "dense propagation"),
    Switch("exclude", "none", "all", "sinks left out"),
]


def scores_of(values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return scores of variants, from their values (R, N)."""
    rows = [
        {"variant": variant, "seed": seed, "sequence": sequence, "value": value}
        for variant, value_RN in values.items()
        for (seed, sequence), value in np.ndenumerate(value_RN)
    ]
    return pd.DataFrame(rows).assign(calibration_tokens=1)


def changes(one: Recipe, other: Recipe) -> set[str]:
    """Return the fields in which two recipes differ."""
    return {field for field, value in vars(one).items() if value != getattr(other, field)}


def test_a_factorial_has_every_combination_once_and_changes_nothing_else():
    base = Recipe(noise_levels=3, sink_std=1.5)
    found = cells(base, SWITCHES)
    assert list(found) == list(product((False, True), repeat=3)) and len(set(found.values())) == 8
    assert found[False, False, False] == base
    assert found[True, True, True] == preset("all-sinks", noise_levels=3, sink_std=1.5)
    for cell, recipe in found.items():
        assert changes(recipe, base) == {
            switch.field for switch, is_on in zip(SWITCHES, cell, strict=True) if is_on
        }


def test_a_path_changes_the_fields_of_one_step_at_a_time_and_its_differences_add_up():
    official = preset("paper")
    order = [("inputs",), ("propagation",), ("noise_levels", "noise"), ("norm_reduction",), ("exclude",)]
    found = path(Recipe(), official, order)
    assert found[0] == Recipe() and found[-1] == official
    assert [changes(later, earlier) for earlier, later in pairwise(found)] == [set(step) for step in order]
    rng = np.random.default_rng(0)
    names = [name(recipe, Recipe()) for recipe in found]
    scores = scores_of({one: rng.normal(size=(2, 5)) for one in names})
    steps = differences_of(scores, {later: (later, earlier) for earlier, later in pairwise(names)})
    (whole,) = differences_of(scores, {"whole": (names[-1], names[0])}).values()
    assert np.allclose(sum(steps.values()), whole)


def test_effects_are_the_coefficients_of_a_regression():
    """Least squares on -1/2, +1/2 codes and their products, scaled to whole differences, for every draw."""
    rng = np.random.default_rng(1)
    factorial = {cell: ", ".join(map(str, cell)) for cell in product((False, True), repeat=3)}
    values = {cell: rng.normal(size=(2, 5)) for cell in factorial}
    scores = scores_of({variant: values[cell] for cell, variant in factorial.items()})
    found = effects(scores.sample(frac=1, random_state=0), factorial, SWITCHES)
    codes = np.array([[is_on - 0.5 for is_on in cell] for cell in factorial])
    subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    design = np.column_stack([np.ones(8), *(codes[:, list(which)].prod(1) for which in subsets)])
    observed = np.array([values[cell].ravel() for cell in factorial])
    expected = np.linalg.lstsq(design, observed, rcond=None)[0][1:]
    assert list(found) == [
        "noised text",
        "dense propagation",
        "sinks left out",
        "noised text × dense propagation",
        "noised text × sinks left out",
        "dense propagation × sinks left out",
        "noised text × dense propagation × sinks left out",
    ]
    assert np.allclose([value.ravel() for value in found.values()], expected)


def test_a_combination_that_is_missing_is_refused():
    values = {cell: np.zeros((1, 3)) for cell in product((False, True), repeat=2)}
    assert contrast(values, [0]).tolist() == [[0, 0, 0]]
    del values[True, False]
    with pytest.raises(ValueError, match=r"combinations of switches have no values, e.g. \(True, False\)"):
        contrast(values, [0])


def test_looking_at_more_makes_a_weak_effect_undecided():
    rng = np.random.default_rng(3)
    weak = rng.normal(size=(5, 30))
    weak = weak - weak.mean() + 0.5 * weak.mean(0).std()
    alone = judge({"weak": weak}, 0.001)
    among = judge({"weak": weak, **{f"n{k}": rng.normal(size=(5, 30)) for k in range(30)}}, 0.001)
    assert alone.verdict[0] == HURTS and among.verdict[0] == UNDECIDED
    columns = ["value", "low", "high", "p"]
    assert alone.loc[0, columns].tolist() == among.loc[0, columns].tolist() and among.low[0] > 0
    assert among.p_holm[0] == pytest.approx(min(1, 31 * alone.p[0]))
