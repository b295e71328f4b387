"""What was foreseen, held against what was measured."""

import pandas as pd
import pytest

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
)
from sinkprune_companion.figures.why import plot_doses, plot_when


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


def test_every_case_at_50_percent_has_a_row_below_the_heading_of_its_kind():
    cases = [case(False, -0.002, 0.003, "plain"), case(True, -0.3, -0.2, "× 9", PLANTED)]
    cases += [case(False, 0.0, 0.1, "at three quarters", AS_IT_IS, 0.75)]
    cases += [case(False, -0.002, 0.003, "another", ELSEWHERE)]

    (axis,) = plot_when(foresight(cases), "a title").axes

    rows = [label.get_text() for label in axis.get_yticklabels()]
    assert [row.partition(" (")[0] for row in rows[1::2]] == ["× 9", "plain", "another"]


def test_a_case_without_a_margin_is_drawn_without_a_band():
    cases = [Case(name, AS_IT_IS, 0.5, 0.001, 0.02, False, estimate(-0.1, 0.1, None)) for name in "ab"]
    table = foresight(cases)
    assert table.margin.isna().all()
    assert plot_when(table, "a title").axes


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
