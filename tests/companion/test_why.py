"""What was foreseen, held against what was measured."""

import pandas as pd
import pytest
import torch

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.experiments.why import (
    AS_IT_IS,
    ELSEWHERE,
    OPEN,
    PLANTED,
    RIGHT,
    WRONG,
    Case,
    by_layer,
    diagnosis_findings,
    fit_table,
    foresight,
    length_table,
    planted_cases,
    score_window,
)
from sinkprune_companion.figures.why import plot_doses, plot_when, plot_window
from sinkprune_core.pruning.diagnosis import mask_changes


def estimate(low: float, high: float, margin: float | None = 0.01) -> Estimate:
    """Return an estimate with an interval over six draws that is symmetrical."""
    half_width = (high - low) / 2

    return Estimate(
        value=(low + high) / 2,
        low=low,
        high=high,
        units=100,
        method="t interval over calibration draws and sequences",
        margin=margin,
        draws=6,
        error_draws=half_width / 2.571,
        error_sequences=0.0,
        freedom=5.0,
    )


def case(
    expects: bool, low: float, high: float, name: str = "a model", kind: str = AS_IT_IS, zeros: float = 0.5
) -> Case:
    return Case(name, kind, zeros, 0.001, 0.02, expects, estimate(low, high))


def maps(**columns: list) -> pd.DataFrame:
    """Return a table of two maps of layer 3 and one of layer 4, with other columns in place of these."""
    table = {
        "layer": [3, 3, 4],
        "kind": ["q_proj", "down_proj", "down_proj"],
        "sparsity": 0.5,
        "weights": [1, 3, 5],
        "energy": [0.0, 0.4, 0.9],
        "predicted": [0.001, 0.02, 0.0],
        "exact": [0.002, 0.05, 0.0],
        "other_text": [0.02, 0.02, 0.02],
    }
    return pd.DataFrame(table | columns)


@pytest.mark.parametrize(
    ("expects", "low", "high", "foreseen"),
    [
        (False, -0.002, 0.003, RIGHT),
        (True, -0.3, -0.2, RIGHT),
        (True, 0.2, 0.3, RIGHT),  # harm is an effect, too
        (False, -0.3, -0.2, WRONG),
        (True, -0.002, 0.003, WRONG),
        (True, -0.3, 0.2, OPEN),
    ],
)
def test_what_was_foreseen_is_held_against_what_was_measured(expects, low, high, foreseen):
    table = foresight([case(expects, low, high)])
    assert table.foreseen.tolist() == [foreseen]


def test_the_largest_miss_is_named_and_maps_that_do_not_change_have_no_ratio():
    (row,) = fit_table({"a model": maps()}).to_dict("records")
    assert row["largest_miss"] == pytest.approx(0.03)
    assert (row["worst_map"], row["predicted"], row["exact"]) == ("down_proj, layer 3", 0.02, 0.05)
    assert row["largest_ratio"] == pytest.approx(2.5)
    assert row["maps"] == 2


def test_a_miss_below_the_prediction_counts_as_much_as_one_above():
    (row,) = fit_table({"a model": maps(predicted=[0.1, 0.02, 0.0])}).to_dict("records")
    assert row["largest_miss"] == pytest.approx(-0.098)
    assert row["worst_map"] == "q_proj, layer 3"


def test_a_layer_counts_its_maps_by_their_weights_over_all_draws():
    found = by_layer([maps(), maps(exact=[0.004, 0.03, 0.0])], 0.5)
    assert found.exact[3] == pytest.approx((0.002 + 3 * 0.05 + 0.004 + 3 * 0.03) / 8)
    assert found.energy[4] == pytest.approx(0.9)


def test_a_length_has_a_row_per_sparsity_with_means_by_weights():
    both = pd.concat([maps(), maps(sparsity=0.75, exact=[0.0, 0.09, 0.0])])
    found = length_table({128: both, 512: maps(other_text=[0.2, 0.2, 0.2])})
    assert found[["tokens", "zeros"]].to_numpy().tolist() == [[128, 0.5], [128, 0.75], [512, 0.5]]
    assert found.exact.tolist()[:2] == pytest.approx([(0.002 + 3 * 0.05) / 9, 3 * 0.09 / 9])
    assert found.other_text.tolist()[2] == pytest.approx(0.2)


def test_a_planted_case_is_the_mean_over_draws_and_judged_by_it():
    draws = [
        pd.DataFrame({"dose": [1.0, 9.0], "sparsity": 0.5, "exact": [0.001, exact], "other_text": 0.02})
        for exact in (0.01, 0.04)
    ]
    gains = {f"planted_gain_x{dose}_50": estimate(-0.1, 0.1) for dose in (1, 9)}

    plain, planted = planted_cases(draws, gains, "a model", 0.5)

    assert (plain.name, plain.kind, plain.expects) == ("a model", AS_IT_IS, False)
    assert (planted.name, planted.kind, planted.expects) == ("× 9", PLANTED, True)
    assert planted.exchanged == pytest.approx(0.025)


def test_every_sparsity_has_a_panel_and_every_case_its_name():
    cases = [case(False, -0.002, 0.003, "plain"), case(True, -0.3, -0.2, "× 9", PLANTED)]
    cases += [case(False, 0.0, 0.1, "at three quarters", AS_IT_IS, 0.75)]

    figure = plot_when(foresight(cases), "a title")

    assert [axis.get_title(loc="left") for axis in figure.axes] == ["50% zeros", "75% zeros"]
    named = [sorted(text.get_text() for text in axis.texts) for axis in figure.axes]
    assert named == [["plain", "× 9"], ["at three quarters"]]


def test_a_case_without_a_margin_is_drawn_without_a_band():
    cases = [Case(name, AS_IT_IS, 0.5, 0.001, 0.02, False, estimate(-0.1, 0.1, None)) for name in "ab"]
    table = foresight(cases)
    assert table.margin.isna().all()
    assert plot_when(table, "a title").axes


def test_a_window_has_the_hottest_channels_first_and_marks_what_is_exchanged():
    weight_OI = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    norm_I, without_I = torch.ones(20), torch.ones(20)
    norm_I[[4, 7]] = torch.tensor([50.0, 3.0])
    (exchanged,) = mask_changes(weight_OI, norm_I, [without_I], 0.5)

    window = score_window(weight_OI, norm_I, without_I, 0.5, rows=30, hottest=2, others=18)

    assert window.drop_duplicates("place").channel.tolist()[:2] == [4, 7]
    assert sorted(window.channel.unique()) == list(range(20))
    assert (window.kept & ~window.kept_without).sum() / window.kept.sum() == pytest.approx(exchanged)
    assert ((window.over_threshold >= 1) == window.kept).all()
    assert len(plot_window(window, "a title").axes) == 3  # with the bar of colours

    part = score_window(weight_OI, norm_I, without_I, 0.5, rows=3, hottest=2, others=5)
    assert part.row.unique().tolist() == [0, 14, 29]
    assert len(part) == 3 * 7


def test_the_picture_names_every_model_in_which_nothing_is_planted():
    cases = [case(False, -0.002, 0.003, "one"), case(False, -0.002, 0.003, "two", ELSEWHERE)]
    planted = case(True, -0.3, -0.2, "× 9", PLANTED)

    figure = plot_when(foresight([*cases, planted]), "a title")

    above, beneath = figure.axes
    assert {text.get_text().split(" (")[0].strip() for text in above.texts} == {"one", "two"}
    assert [text.get_text() for text in beneath.texts] == ["× 9"]
    assert len(plot_when(foresight([planted]), "a title").axes) == 1


def doses(*ends: tuple[float, float, float], margin: float = 0.01) -> dict[float, Estimate]:
    """Return estimates with intervals by dose; an end is a dose, then the interval."""
    return {dose: estimate(low, high, margin) for dose, low, high in ends}


def test_every_interval_of_a_dose_lies_within_its_picture():
    gains = {
        "planted_gain": doses((1, -0.1, 0.1), (30, -0.9, -0.5)),
        "planted_random_gain": doses((1, 0.1, 0.7)),
    }
    axis = plot_doses({"a panel": gains}, "a title").axes[0]
    low, high = axis.get_ylim()
    assert low <= -0.9 and high >= 0.7


def test_every_panel_has_the_band_of_its_own_first_line():
    panels = {
        "Wanda": {"planted_gain": doses((1, -0.1, 0.1), (30, -0.9, -0.5))},
        "SparseGPT": {"planted_sparsegpt_gain": doses((30, -0.3, -0.2), margin=0.02)},
    }
    figure = plot_doses(panels, "a title")

    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Wanda", "SparseGPT"]
    bands = [axis.collections[-1].get_datalim(axis.transData) for axis in figure.axes]
    assert [round(band.y1, 6) for band in bands] == [0.01, 0.02]


def test_means_count_maps_by_their_weights_but_for_those_called_unweighted():
    other = maps().assign(layer=[10, 11, 11], left_out=0.01)
    found = diagnosis_findings([pd.concat([other, other.assign(sparsity=0.75)])] * 2)
    assert found["exact_50"].value == pytest.approx((0.002 + 3 * 0.05) / 9)
    assert found["unweighted_exact_50"].value == pytest.approx((0.002 + 0.05) / 3)
    assert found["largest_miss_50"].value == pytest.approx(0.03)
    assert found["exact_layer_11_50"].value == pytest.approx(3 * 0.05 / 8)


def test_a_model_of_few_layers_has_no_findings_of_the_layers_where_attention_collapses():
    draw = pd.concat([maps(), maps(sparsity=0.75)]).assign(left_out=0.01)
    found = diagnosis_findings([draw, draw])
    assert found["exact_50"].value > 0
    assert not any("layer" in name for name in found)
