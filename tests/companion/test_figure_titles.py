"""Titles of figures say what their data show: other data give another title."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.figures import figure_titles
from sinkprune_companion.pages.phrases import EQUIVALENT, HURTS
from sinkprune_core.evaluation.intervals import Estimate

KINDS = ("diffusion", "autoregressive")


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="")


def table(columns: str, *rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def filled(few: float, many: float) -> pd.DataFrame:
    """What a DLM fills right at two shares of masks, where the AR model fills 0.4 of both."""
    rows = [
        (share, sequence, kind, right + 0.01 * sequence)
        for share, dlm in ((0.15, few), (0.85, many))
        for kind, right in zip(KINDS, (dlm, 0.4), strict=True)
        for sequence in range(4)
    ]
    return table("share sequence kind correct", *rows)


def test_filling_is_compared_where_few_and_where_many_tokens_are_masked():
    assert figure_titles.filling_in_words(filled(0.5, 0.1)) == (
        "With 15% masked the DLM fills 52% right, more than the AR model's 42%; with 85% masked the DLM "
        "fills 12% right, fewer than the AR model's 42%"
    )
    assert "15% masked the DLM fills 42% right, not clearly more" in figure_titles.filling_in_words(
        filled(0.4, 0.1)
    )


def test_accuracy_counts_the_groups_above_chance():
    rows = [("m", "a", 0.8, 0.6), ("m", "b", 0.6, 0.5), ("m", "all", 0.7, 0.6)]
    assert figure_titles.accuracy_in_words(table("model group value low", *rows)) == (
        "m: 70% of all items right, above chance in 1 of 2 groups"
    )
    rows[1] = ("m", "b", 0.6, 0.51)
    assert "chance in 2 of 2" in figure_titles.accuracy_in_words(table("model group value low", *rows))


def test_layers_are_counted_in_which_the_sinks_of_the_dlm_change_more():
    rows = [(0, "diffusion", 0.8, 0.5), (0, "autoregressive", 0.9, 0.4)]
    rows += [(1, "diffusion", 0.9, 0.3), (1, "autoregressive", 0.8, 0.4)]
    said = figure_titles.layers_in_words(table("layer kind overlap stable_share", *rows))
    assert said.startswith("In 1 of 2 layers consecutive sink sets overlap less in the DLM")
    assert said.endswith("in 1 of 2 fewer of its sinks are stable")
    rows[0] = (0, "diffusion", 0.95, 0.3)
    said = figure_titles.layers_in_words(table("layer kind overlap stable_share", *rows))
    assert said.startswith("In 0 of 2") and "in 2 of 2 fewer" in said


def test_heads_are_told_by_the_median():
    maps = {"diffusion": np.array([[1.0, 2.0, 30.0]]), "autoregressive": np.array([[5.0, 6.0, 7.0]])}
    assert figure_titles.heads_in_words(maps) == (
        "In the median head the strongest key gets, of the mean attention, 2.0 times in the diffusion model "
        "and 6.0 times in the autoregressive model"
    )


def test_hiding_is_told_at_the_largest_number_of_keys():
    rows = [("m", "strongest", 5, 1.0), ("m", "strongest", 10, 2.0), ("m", "random", 10, 0.5)]
    assert figure_titles.hiding_in_words(table("model label count value", *rows)) == (
        "Hiding the 10 strongest keys costs m 2.0 (random ones: 0.50) nats per token"
    )


def test_cases_are_counted_in_which_position_0_is_worth_more_or_less():
    rows = [("diffusion", "a", 1.0 + 0.1 * n, 0.5) for n in range(3)]
    rows += [("autoregressive", "a", 0.1, 0.5 + 0.1 * n) for n in range(3)]
    said = figure_titles.places_in_words(table("kind what first other", *rows), "first", "other")
    assert said == (
        "Hiding position 0 costs clearly more than hiding a random other one in 1 of 2 cases, clearly less "
        "in 1"
    )


def test_rows_are_counted_by_kind_of_model_in_which_the_strongest_keys_cost_more_or_less():
    rows = [("diffusion", "a", 1.0 + 0.1 * n, 0.5) for n in range(3)]
    rows += [("diffusion", "b", 1.0 - 2 * n, 0.5) for n in range(3)]
    rows += [("autoregressive", "a", 0.1, 0.5 + 0.1 * n) for n in range(3)]
    said = figure_titles.keys_in_words(table("kind where strongest random", *rows), "where")
    assert said == (
        "The strongest keys cost clearly more than random ones: the DLM in 1 of 2 cases (clearly less "
        "in 0) and the AR model in 0 of 1 cases (clearly less in 1)"
    )


def test_a_front_counts_the_pruned_points_that_the_dense_model_beats():
    rows = [("dense", 10.0, 0.15), ("dense", 20.0, 0.05)]
    rows += [("wanda", 10.0, 0.35), ("wanda", 9.0, 0.35), ("wanda", 20.0, 0.04)]
    said = figure_titles.front_in_words(table("variant tflop excess", *rows), "tflop", "FLOPs")
    assert said == "At no more FLOPs the dense model in fewer steps lies below 1 of 3 pruned points"
    alone = figure_titles.front_in_words(table("variant tflop excess", *rows[:2]), "tflop", "FLOPs")
    assert alone == "Only the dense model was measured"


def test_statistics_are_named_by_which_kind_of_model_has_more_of_them():
    found = {"a": estimate(1, 2), "b": estimate(-2, -1), "c": estimate(-1, 1), "d": None}
    assert figure_titles.kinds_in_words(found) == (
        "Clearly higher in the DLM than in the AR model: a; clearly lower: b"
    )
    assert figure_titles.kinds_in_words({"c": estimate(-1, 1)}).endswith(": nothing; clearly lower: nothing")


def test_training_masks_and_effects_are_told_in_numbers():
    log = table("tokens nelbo_a nelbo_b", (1, 5.0, 4.0), (2, 4.5, 3.8), (3, np.nan, 3.9))
    assert figure_titles.training_in_words(log, ["nelbo_a", "nelbo_b"]) == (
        "Held-out NELBO fell by 0.10 to 0.50 nats per token in this training"
    )
    assert figure_titles.training_in_words(log, []) == "The log has no held-out loss"
    masks = table("one other differ", ("x", "other text", 0.02), ("x", "other text", 0.04), ("x", "y", 0.001))
    assert figure_titles.masks_in_words(masks) == (
        "Kept weights that differ from those of x: other text 3.0 % and y 0.10 %"
    )
    effects = table("verdict", (HURTS,), (EQUIVALENT,), (EQUIVALENT,))
    assert figure_titles.verdicts_in_words(effects) == (
        "Of 3 effects: helps 0, hurts 1, no difference 2, inconclusive 0"
    )


def test_reach_is_told_beside_other_choices_of_tokens():
    names = ("reach_sinks", "reach_random", "reach_largest", "reach_other_text")
    found = {name: estimate(0.001 * size, 0.003 * size) for size, name in enumerate(names, 1)}
    assert figure_titles.reach_in_words(found) == (
        "Kept weights that change: leaving all sinks out 0.20 %, as many random tokens 0.40 %, as many "
        "tokens that change most 0.60 %, other text 0.80 %"
    )
    assert figure_titles.reach_in_words({}) == "There are no sinks to leave out"


@pytest.mark.parametrize("magnitude", [1.7, 3.2])
def test_what_is_far_above_the_rest_is_named_and_not_drawn(magnitude):
    rows = [
        ("p", "wanda", 0.8, 0.7, 0.85),
        ("p", "paper", 0.9, 0.8, 1.0),
        ("p", "magnitude", magnitude, 1, 4),
    ]
    excess = table("panel recipe value low high", *rows)
    assert figure_titles.best_in_words(excess) == (
        f"p: wanda costs least, not clearly (not drawn: magnitude {magnitude})"
    )
    assert figure_titles.near(excess).recipe.tolist() == ["wanda", "paper"]


def test_conditions_that_go_the_other_way_are_told():
    found = {"main": estimate(1, 2), "longer": estimate(-2, -1), "nothing": None, "wide": estimate(-1, 2)}
    assert figure_titles.moves_in_words(found) == (
        "The DLM's sinks move more in 1 of 4 conditions, less in 1, literal reading"
    )
    assert "less" not in figure_titles.moves_in_words({"main": estimate(1, 2)})
