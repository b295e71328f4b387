"""Factorial effects agree with a regression, and verdicts follow the data."""

from dataclasses import fields, replace
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sinkprune_companion.figures import forests
from sinkprune_companion.ledger.contrasts import (
    HELPS,
    HURTS,
    Switch,
    cells,
    changes,
    contrast,
    differences_of,
    effects,
    judge,
    name,
    neighbours,
    path,
)
from sinkprune_core.evaluation.intervals import crossed_interval
from sinkprune_core.evaluation.verdict_rule import NO_DIFFERENCE, TOO_FEW_DRAWS, UNDECIDED
from sinkprune_core.pruning.recipe import Recipe, preset

SWITCHES = [
    Switch("inputs", "clean", "noised", "noised text"),
    Switch("propagation", "sequential", "dense", "dense propagation"),
    Switch("exclude", "none", "all", "sinks left out"),
]


def scores_with(
    gains: dict[frozenset, float], noise: float = 0.0, seeds: int = 3, sequences: int = 24
) -> tuple[pd.DataFrame, dict]:
    """Return scores of all 8 combinations, where a set of switches that are on together adds its gain, and
    the factorial.
    """
    rng = np.random.default_rng(0)
    hard_N, factorial, rows = rng.normal(4, 1, sequences), {}, []
    for cell, recipe in cells(Recipe(), SWITCHES).items():
        factorial[cell] = name(recipe, Recipe())
        on = {switch.field for switch, is_on in zip(SWITCHES, cell, strict=True) if is_on}
        shift = sum(gain for together, gain in gains.items() if together <= on)
        rows += [
            {
                "variant": factorial[cell],
                "seed": s,
                "sequence": n,
                "value": hard_N[n] + shift + noise * rng.normal(),
            }
            for s in range(seeds)
            for n in range(sequences)
        ]
    return pd.DataFrame(rows), factorial


# recipes


def test_a_factorial_has_every_combination_once_and_changes_nothing_else():
    base = Recipe(noise_levels=3, sink_std=1.5)
    found = cells(base, SWITCHES)
    assert list(found) == list(product((False, True), repeat=3)) and len(set(found.values())) == 8
    assert found[False, False, False] == base and found[True, True, True] == preset(
        "all-sinks", noise_levels=3, sink_std=1.5
    )
    for cell, recipe in found.items():
        assert set(changes(recipe, base)) == {
            switch.field for switch, is_on in zip(SWITCHES, cell, strict=True) if is_on
        }


def test_neighbours_are_the_edges_of_the_cube():
    found = neighbours(cells(Recipe(), SWITCHES))
    assert len(found) == 12
    assert len(set(found)) == 12
    for on, off, switch in found:
        assert on[switch] and not off[switch], "on minus off"
        assert on[:switch] + on[switch + 1 :] == off[:switch] + off[switch + 1 :]
    assert neighbours([(False, False), (True, True)]) == []


def test_a_name_tells_every_recipe_from_every_other():
    other = {
        "sparsity": 0.25,
        "inputs": "noised",
        "propagation": "dense",
        "exclude": "unstable",
        "noise_levels": 2,
        "noise": "rollout",
        "norm_reduction": "sum",
        "sink_std": 1.0,
        "stability_threshold": 0.5,
        "allocation": "owl",
        "owl_lambda": 0.1,
    }
    assert set(other) <= {field.name for field in fields(Recipe)}
    recipes = [Recipe(), *(replace(Recipe(), **{field: value}) for field, value in other.items())]
    assert len({name(recipe, Recipe()) for recipe in recipes}) == len(recipes)
    assert (
        name(Recipe(), Recipe()) == "base"
        and name(preset("all-sinks"), Recipe()) == "inputs=noised, propagation=dense, exclude=all"
    )


def test_a_path_changes_one_field_per_step_and_its_differences_add_up():
    official, order = (
        preset("paper", noise_levels=8),
        ["inputs", "propagation", "noise", "norm_reduction", "exclude"],
    )
    found = path(Recipe(), official, order)
    assert found[0] == Recipe() and found[-1] == official
    assert [list(changes(later, earlier)) for earlier, later in pairwise(found)] == [
        [field] for field in order
    ]
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(
        [
            {"variant": name(recipe, Recipe()), "seed": s, "sequence": n, "value": rng.normal()}
            for recipe in found
            for s in range(2)
            for n in range(5)
        ]
    )
    names = [name(recipe, Recipe()) for recipe in found]
    steps = differences_of(scores, {later: (later, earlier) for earlier, later in pairwise(names)})
    (whole,) = differences_of(scores, {"whole": (names[-1], names[0])}).values()
    assert np.allclose(sum(steps.values()), whole)
    with pytest.raises(
        ValueError,
        match="must name the fields that differ, each once: "
        "inputs, propagation, exclude, noise, norm_reduction",
    ):
        path(Recipe(), official, order[:-1])


def test_a_field_has_one_switch():
    with pytest.raises(ValueError, match="set a field twice"):
        cells(Recipe(), [SWITCHES[0], SWITCHES[0]])


# effects


def test_effects_are_the_coefficients_of_a_regression():
    """Least squares on -1/2, +1/2 codes and their products, scaled to whole differences of differences, for
    every draw and sequence.
    """
    rng = np.random.default_rng(1)
    factorial = {cell: ", ".join(map(str, cell)) for cell in product((False, True), repeat=3)}
    values = {cell: rng.normal(size=(2, 5)) for cell in factorial}
    scores = pd.DataFrame(
        [
            {"variant": factorial[cell], "seed": s, "sequence": n, "value": values[cell][s, n]}
            for cell in factorial
            for s in range(2)
            for n in range(5)
        ]
    )
    found = effects(scores.sample(frac=1, random_state=0), factorial, SWITCHES)
    codes = np.array([[is_on - 0.5 for is_on in cell] for cell in factorial])
    subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    design = np.column_stack([np.ones(8), *(codes[:, list(which)].prod(1) for which in subsets)])
    expected = np.linalg.lstsq(design, np.array([values[cell].ravel() for cell in factorial]), rcond=None)[0][
        1:
    ]
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


def test_effects_find_what_went_in():
    """A gain of one switch is its main effect; a gain of two together is their interaction, and half of it
    each one's main effect.
    """
    scores, factorial = scores_with({frozenset(["inputs"]): -0.3, frozenset(["propagation", "exclude"]): 0.2})
    found = {label: value.mean() for label, value in effects(scores, factorial, SWITCHES).items()}
    assert found["noised text"] == pytest.approx(-0.3) and found[
        "dense propagation × sinks left out"
    ] == pytest.approx(0.2)
    assert [found["dense propagation"], found["sinks left out"]] == pytest.approx([0.1, 0.1])
    assert [
        found[label] for label in found if "×" in label and label != "dense propagation × sinks left out"
    ] == pytest.approx([0, 0, 0])


def test_the_mean_of_simple_effects_is_the_main_effect():
    scores, factorial = scores_with(
        {frozenset(["inputs"]): -0.3, frozenset(["inputs", "exclude"]): 0.1}, noise=0.1
    )
    recipes = cells(Recipe(), SWITCHES)
    simple = [
        differences_of(scores, {"x": (name(recipes[on], Recipe()), name(recipes[off], Recipe()))})["x"]
        for on, off, number in neighbours(recipes)
        if SWITCHES[number].field == "inputs"
    ]
    assert len(simple) == 4 and np.allclose(
        np.mean(simple, 0), effects(scores, factorial, SWITCHES)["noised text"]
    )


def test_a_combination_that_is_missing_is_refused():
    values = {cell: np.zeros((1, 3)) for cell in product((False, True), repeat=2)}
    assert contrast(values, [0]).tolist() == [[0, 0, 0]]
    del values[True, False]
    with pytest.raises(
        ValueError, match=r"1 of 4 combinations of switches have no values, e.g. \(True, False\)"
    ):
        contrast(values, [0])


# verdicts


@pytest.mark.parametrize(
    ("shift", "spread", "draws", "expected"),
    [
        (-0.12, 0.02, 5, HELPS),
        (0.12, 0.02, 5, HURTS),
        (0.0, 0.005, 5, NO_DIFFERENCE),
        (-0.01, 0.005, 5, NO_DIFFERENCE),
        (0.0, 1.0, 5, UNDECIDED),
        (-0.12, 0.02, 4, TOO_FEW_DRAWS),
    ],
)
def test_a_verdict_changes_when_the_data_do(shift, spread, draws, expected):
    noise_RN = np.random.default_rng(0).normal(size=(draws, 40))
    row = judge({"x": shift + spread * (noise_RN - noise_RN.mean())}, 0.02).iloc[0]
    assert row.verdict == expected


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


def test_rows_have_the_numbers_of_their_interval():
    values_RN = np.random.default_rng(0).normal(size=(5, 20))
    row = judge({"x": values_RN}, 0.02, "s").iloc[0]
    expected = crossed_interval(values_RN)
    assert (row.value, row.low, row.high) == (expected.value, expected.low, expected.high)
    assert (row.p, row.error_draws) == (expected.p_value(), expected.error_draws)
    assert (row.section, row.margin) == ("s", 0.02)


def test_recipes_that_do_the_same_do_not_differ():
    assert judge({"same": np.zeros((5, 9))}, 0.02).verdict[0] == NO_DIFFERENCE


def test_without_damage_by_the_baseline_nothing_is_too_small_to_matter():
    noise_RN = np.random.default_rng(0).normal(0, 0.01, (5, 40))
    table = judge({"none": noise_RN - noise_RN.mean()}, None)
    assert table.verdict[0] == UNDECIDED and np.isnan(table.margin[0])
    assert "too small to matter" not in forests.plot_effects(table, "effect").axes[0].get_xlabel()


# figures


def rows_of(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels() if label.get_text()]


def test_the_forest_of_effects_has_every_row_below_its_section_and_a_mark_per_verdict():
    noise_RN = np.random.default_rng(0).normal(size=(5, 30))
    noise_RN -= noise_RN.mean()
    first = judge({"gain": -0.2 + 0.01 * noise_RN, "nothing": 0.01 * noise_RN}, 0.02, "first")
    second = judge(
        {"loss": 0.2 + 0.01 * noise_RN, "open": noise_RN, "far": 9 + 0.01 * noise_RN}, 0.02, "second"
    )
    figure = forests.plot_effects(pd.concat([first, second]), "x (nats per token)")
    assert rows_of(figure) == ["first", "gain", "nothing", "second", "loss", "open", "far"]
    markers = [line.get_marker() for line in figure.axes[0].get_lines() if line.get_gid() == "effect"]
    assert markers[:4] == [forests.EFFECT_MARKS[each][1] for each in (HELPS, NO_DIFFERENCE, HURTS, UNDECIDED)]
    left, right = figure.axes[0].get_xlim()
    assert -2 < left < 0 < right < 9, "a far effect is an arrow at the edge and does not flatten the others"
    assert len(set(forests.EFFECT_MARKS.values())) == len(forests.EFFECT_MARKS) == 5
    assert any("+9.0" in text.get_text() for text in figure.axes[0].texts)
