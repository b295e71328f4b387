"""Differences of recipes are paired and named by place, and factorial effects agree with a regression."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.verdict_rule import HURTS, UNDECIDED, judge
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.recipe_differences import (
    SWITCHED_ON,
    Difference,
    contrast,
    differences,
    main_effects,
    of_kind,
)
from sinkprune_companion.figures.recipes import damage_table, shares_table
from sinkprune_companion.margins import share_that_matters


def costs_of(values: dict[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """Return costs of variants at places, from their values (R, N)."""
    rows = [
        {
            "variant": variant,
            "place": place,
            "seed": seed,
            "sequence": sequence,
            "value": value,
            "calibration_tokens": 128,
        }
        for (variant, place), value_RN in values.items()
        for (seed, sequence), value in np.ndenumerate(value_RN)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_where_both_were_measured_and_grow_from_50_to_75():
    rng = np.random.default_rng(0)
    measured = [("a", "50 %"), ("b", "50 %"), ("a", "75 %"), ("b", "75 %"), ("a", "2:4"), ("c", "2:4")]
    values = {each: rng.normal(size=(2, 5)) for each in measured}
    found = differences(costs_of(values).sample(frac=1, random_state=0), {"x": ("a", "b"), "y": ("a", "c")})

    assert set(found) == {"x_50", "x_75", "x_growth", "y_2_4"}

    at_50, at_75 = (values["a", place] - values["b", place] for place in ("50 %", "75 %"))
    assert np.array_equal(found["x_50"].values_RN, at_50)
    assert np.array_equal(found["x_growth"].values_RN, at_75 - at_50)
    assert np.array_equal(found["x_growth"].cost_RN, values["b", "75 %"])


def test_differences_are_taken_on_the_calibration_draws_that_both_have():
    """Never by position: draw 0 of one recipe is no partner of draw 1 of another."""
    rng = np.random.default_rng(0)
    places = ("50 %", "75 %")
    values = {(variant, place): rng.normal(size=(2, 5)) for variant in "ab" for place in places}
    costs = costs_of(values)

    is_later = (costs.variant == "a") & (costs.place == "50 %")
    shifted = costs.assign(seed=costs.seed + is_later)  # draws 1 and 2 instead of 0 and 1
    found = differences(shifted, {"x": ("a", "b")})

    at_50 = values["a", "50 %"][:1] - values["b", "50 %"][1:]  # draw 1
    assert np.array_equal(found["x_50"].values_RN, at_50)
    at_75 = values["a", "75 %"] - values["b", "75 %"]
    assert np.array_equal(found["x_75"].values_RN, at_75)
    assert np.allclose(found["x_growth"].values_RN, at_75[1:] - at_50)

    with pytest.raises(ValueError, match="share no calibration draw"):
        differences(costs.assign(seed=costs.seed + 9 * is_later), {"x": ("a", "b")})


def test_a_difference_on_one_kind_of_text_has_the_sequences_and_the_cost_of_that_kind():
    difference = Difference(np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]]))
    part = of_kind(difference, np.array(["samples", "natural", "samples"]), "samples")
    assert part.values_RN.tolist() == [[1.0, 3.0]] and part.cost_RN.tolist() == [[4.0, 6.0]]


def test_percentages_have_the_margin_and_the_verdict_of_nats():
    rng = np.random.default_rng(1)
    difference = Difference(rng.normal(-0.1, 0.01, size=(5, 30)), rng.normal(2, 0.01, size=(5, 30)))
    in_nats, share = difference.estimate, difference.in_percent()
    assert share.margin == pytest.approx(100 * share_that_matters())
    assert share.value == pytest.approx(100 * in_nats.value / difference.cost_RN.mean())
    assert share.p_value() == pytest.approx(in_nats.p_value())

    table = shares_table({"one": {"a row": difference}, "two": {"a row": difference}})
    assert table.value.tolist() == [in_nats.value] * 2
    assert table.percent.tolist() == [share.value] * 2
    assert table.verdict.nunique() == 1


def test_a_pattern_stands_behind_all_sparsities_and_every_recipe_has_its_name():
    rng = np.random.default_rng(3)
    measured = [("a", "75 %"), ("a", "2:4"), ("b", "50 %"), ("unnamed", "50 %"), ("a", "60 %"), ("a", "50 %")]
    values = {each: rng.normal(1, 0.1, size=(2, 5)) for each in measured}
    table = damage_table(costs_of(values), {"a": "one", "b": "other"})

    assert table.zeros.drop_duplicates().tolist() == ["50 %", "60 %", "75 %", "2:4"]
    assert table.recipe.tolist() == ["other", "one", "one", "one", "one"]
    assert table.value.iloc[-1] == pytest.approx(values["a", "2:4"].mean())


@pytest.mark.parametrize("with_sinks", [False, True])
def test_main_effects_are_the_coefficients_of_a_regression(with_sinks):
    """Least squares on -1/2, +1/2 codes and their products, scaled to whole differences, for every draw."""
    rows = recipe_search.factorial(0.75, 16, 8)
    rng = np.random.default_rng(2)
    values = {row.variant: rng.normal(3, 1, size=(2, 5)) for row in rows}
    costs = costs_of({(variant, "75 %"): values_RN for variant, values_RN in values.items()})
    found = main_effects(costs.sample(frac=1, random_state=0), rows, with_sinks)

    def fitted(rows: list) -> dict[str, np.ndarray]:
        """Return the coefficients of main effects, (R, N)."""
        fields = SWITCHED_ON.items()
        is_on = [[getattr(row.recipe, field) == on for _, (field, on) in fields] for row in rows]
        codes = np.where(is_on, 0.5, -0.5)
        subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
        columns = [np.ones(len(rows)), *(codes[:, list(which)].prod(1) for which in subsets)]
        observed = np.array([values[row.variant].ravel() for row in rows])
        solved = np.linalg.lstsq(np.column_stack(columns), observed, rcond=None)[0][1:4]
        return {name: each.reshape(2, 5) for name, each in zip(SWITCHED_ON, solved, strict=True)}

    over_all = fitted(rows)
    assert np.allclose(found["main_sinks_75"].values_RN, over_all["sinks"])
    if with_sinks:
        assert np.allclose(found["main_noised_75"].values_RN, over_all["noised"])
    else:
        none = {row.variant: values[row.variant] for row in rows if row.recipe.exclude == "none"}
        noised = none["noised, sequential, none"] + none["noised, dense, none"]
        clean = none["clean, sequential, none"] + none["clean, dense, none"]
        assert np.allclose(found["main_noised_75"].values_RN, (noised - clean) / 2)
    assert np.array_equal(found["main_dense_75"].cost_RN, values["clean, sequential, none"])


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
