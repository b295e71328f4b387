"""Figures: what a forest cuts and says of its rows, and titles that outlive no verdict."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.verdict_rule import HELPS, NO_DIFFERENCE, UNDECIDED
from sinkprune.figures import trajectories
from sinkprune_companion import project_root
from sinkprune_companion.experiments.paper_protocol import finding_name
from sinkprune_companion.figures import figures, forests, maps, recipes, titles
from sinkprune_companion.ledger.results import Results
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.templates import PresumedVerdictError


def estimate(value: float, half: float, margin: float | None = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half, 9, "t", margin=margin, freedom=8.0)


def test_every_interval_and_every_band_lies_on_the_one_axis():
    rows = {"near": estimate(0.02, 0.01), "wide": estimate(0.05, 0.6), "far": estimate(-3.0, 0.1)}
    figure = forests.plot_forest(rows, "nats")
    (axis,) = figure.axes
    left, right = axis.get_xlim()
    assert left < -3.1 and right > 0.65
    marks = [line.get_xdata().item() for line in axis.lines if len(line.get_xdata()) == 1]
    assert marks == [0.02, 0.05, -3.0], "each is where its number is"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == forests.forest_table(rows).verdict.nunique()


def test_rows_have_verdicts_where_all_have_margins():
    rows = {"better": estimate(-0.5, 0.01), "same": estimate(0.001, 0.001)}
    assert forests.forest_table(rows).verdict.tolist() == [HELPS, NO_DIFFERENCE]
    assert "verdict" not in forests.forest_table({**rows, "open": estimate(0.5, 0.1, None)})


def test_a_series_of_one_panel_alone_is_in_the_legend():
    frame = pd.DataFrame({"x": [0, 1, 0, 1], "y": [1.0, 2, 3, 4], "of": list("aabb"), "panel": list("aabb")})
    drawn = figures.plot_curves(frame, "x", "y", "of", {"x": "x", "y": "y"}, panel="panel")
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["a", "b"]


def test_bars_are_in_the_legend_where_a_figure_has_intervals_alone():
    frame = pd.DataFrame({"x": [0, 1], "y": [1.0, 2], "low": [0.5, 1], "high": [2.0, 3], "of": ["a", "a"]})
    for columns in (None, ("low", "high")):
        drawn = figures.plot_curves(frame, "x", "y", "of", {"x": "x", "y": "y"}, interval_columns=columns)
        (shown,) = drawn.axes[0].containers
        assert shown.has_yerr is (columns is not None)


def test_a_figure_is_kept_sharp_and_shown_as_wide_as_it_was_drawn(tmp_path):
    run = SimpleNamespace(folder=tmp_path, provenance={}, notebook="n")
    drawn = forests.plot_forest({"row": estimate(0.1, 0.05)}, "nats")
    _, about = figures.save_figure(run, drawn, "forest", pd.DataFrame(), "words")._repr_mimebundle_()
    assert about == {"image/png": {"alt": "words", "width": 7 * 96}}
    with Image.open(tmp_path / "figures" / "n" / "forest.png") as picture:
        assert picture.width == 7 * 220


def test_rows_of_one_comparison_share_its_name_and_the_legend_names_their_models():
    table = pd.DataFrame({"comparison": ["early", "early", "late"]})
    table["kind"] = ["diffusion", "autoregressive", "diffusion"]
    table = table.assign(value=[-0.1, 0.2, 0.1], low=[-0.2, 0.1, 0.0], high=[0.0, 0.3, 0.2])
    drawn = forests.plot_costs(table, "nats")
    axis = drawn.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["early", "late"]
    assert axis.get_yticks().tolist() == [0.5, 2.0], "beside the middle of its rows"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["DLM", "AR model"]
    left, right = axis.get_xlim()
    assert left < -0.2 and right > 0.3, "no interval touches the edge"


def test_a_trajectory_names_every_sink_that_has_room_the_more_frequent_ones_first():
    sinks_SK = np.zeros((3, 36), dtype=bool)
    sinks_SK[:, 0], sinks_SK[:2, 2], sinks_SK[:1, 3] = True, True, True
    assert trajectories.keys_to_name({"sinks_SK": sinks_SK}, least=2) == [0, 2]
    assert trajectories.keys_to_name({"sinks_SK": sinks_SK, "named": [3, 2, 9]}, least=2) == [3, 9]

    panel = {"title": "DLM", "profile_SK": np.ones((3, 36)), "visible_SK": np.ones((3, 36), dtype=bool)}
    panel |= {"sinks_SK": sinks_SK, "labels": [f"␣{key}" for key in range(36)], "prompt_length": 0}
    drawn = trajectories.plot_sink_positions([panel])
    names = [text.get_text() for text in drawn.axes[0].get_xticklabels()]
    assert names == ["0: ␣0", "2: ␣2", "3: ␣3"]
    says = drawn._supxlabel.get_text()
    assert "␣ space" in says and "line end" not in says, "signs are explained where they are shown"


def test_the_legend_of_two_masks_has_only_what_occurs_in_the_part_that_is_drawn():
    kept_OI = np.zeros((2, 4), dtype=bool)
    kept_OI[:, :2] = True
    other_OI = kept_OI.copy()
    other_OI[0, 3] = True

    drawn = maps.plot_kept_weights(kept_OI, other_OI, "", ("only the first", "only the second"))
    named = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert named == ["kept by both", "pruned by both", "only the second"]


def test_every_draw_is_a_dot_in_the_lane_of_its_series():
    frame = pd.DataFrame({"what": ["one"] * 3 + ["two"], "of": ["a", "a", "b", "b"], "value": [1.0, 2, 3, 4]})
    margins = {("one", "a"): 0.5, ("one", "b"): 7.0}
    axis = forests.plot_lanes(frame, "what", "of", margins, "nats", "").axes[0]
    dots = {(value, height) for line in axis.lines[1:] for value, height in line.get_xydata()}
    assert {value for value, _ in dots} == {1, 2, 3, 4}
    heights = dict(dots)
    assert heights[1] == heights[2] < heights[3] < 0.5 < heights[4], "a lane below the other, within its row"

    bands = {band.get_width(): band.get_y() + band.get_height() / 2 for band in axis.patches}
    assert (bands[1.0], bands[14.0]) == (pytest.approx(heights[1]), pytest.approx(heights[3]))
    assert axis.get_xlim()[0] < -7 < 7 < axis.get_xlim()[1], "no band is cut"


def test_points_of_a_curve_have_their_words_beside_them():
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0], "of": ["a", "a"], "steps": [8, 16]})
    drawn = figures.plot_curves(frame, "x", "y", "of", {"x": "x", "y": "y"}, point="steps")
    assert [(note.get_text(), *note.xy) for note in drawn.axes[0].texts] == [("8", 1, 3), ("16", 2, 4)]


def test_words_stand_below_a_point_that_has_another_above_it():
    frame = pd.DataFrame({"x": [1.0, 1.0, 2.0], "y": [3.0, 4.0, 3.0], "of": ["a", "b", "a"]})
    frame = frame.assign(steps=[8, 16, 32])
    drawn = figures.plot_curves(frame, "x", "y", "of", {"x": "x", "y": "y"}, point="steps")
    heights = {note.get_text(): note.xyann[1] for note in drawn.axes[0].texts}
    assert heights["8"] < 0 < heights["16"] == heights["32"]


def test_what_is_measured_at_one_place_stands_side_by_side_and_nearer_than_the_next_place():
    frame = pd.DataFrame({"x": [25, 25, 50, 50, 70, 75], "y": [1.0] * 6, "of": list("ababab")})
    drawn = figures.plot_curves(frame, "x", "y", "of", {"x": "x", "y": "y"}, dodge=True)
    marks = sorted(x for line in drawn.axes[0].lines for x in line.get_xdata())
    assert len(set(marks)) == len(marks) == 6
    places = [25, 50, 70, 75]
    assert all(min(abs(mark - place) for place in places) < 2.5 for mark in marks)


# titles


def test_every_title_is_asked_for_by_its_notebook():
    drawn_for = Path(recipes.__file__).read_text(encoding="utf-8")  # pictures of notebooks 06 to 08
    for notebook, titled in titles.TITLES.items():
        source = (project_root() / "notebooks" / f"{notebook}.py").read_text(encoding="utf-8")
        source += drawn_for
        for figure in titled:
            start = figure.partition("_")[0]  # of a name that ends with a number, which the notebook fills in
            asked = (f'"{figure}"', f'f"{start}_', f'f"{start}{{')
            assert any(part in source for part in asked), (notebook, figure)


def test_a_title_stops_where_its_verdict_has_changed():
    results = Results([], {})
    results.__dict__["verdict"] = {"control-weights-alone-former": "reproduced"}
    place = r"titles.yml, 03_leaving_sinks_out/differences_50: 'control-weights-alone-former' is presumed"
    with pytest.raises(PresumedVerdictError, match=place):
        titles.rendered_title("03_leaving_sinks_out", "differences_50", results)


def test_a_smaller_run_has_titles_that_presume_nothing():
    run = Run("03_leaving_sinks_out", "quick", {})
    assert titles.title(run, "differences_50", "Paired differences") == "Paired differences"


def test_the_paper_s_protocol_has_a_picture_for_every_sparsity_and_one_for_whole_units(tmp_path, monkeypatch):
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    run = Run("03_leaving_sinks_out", "tiny", {})
    places = [
        ("paper_minus_wanda", "unstructured", 0.5),
        ("sparsegpt_minus_wanda", "unstructured", 0.25),
        ("paper_minus_wanda", "unstructured", 0.25),
        ("structured_sink_minus_structured", "structured", 0.5),
        ("structured_sink_minus_structured", "structured", 0.3),
    ]
    found = {finding_name(*place): estimate(-0.1 * i, 0.05) for i, place in enumerate(places, 1)}
    run.find(found)
    assert recipes.save_protocol(run, found, 0.75) is None
    assert recipes.save_protocol_units(run, found, [0.4]) is None
    assert recipes.save_protocol_units(run, found, []) is None

    drawn = recipes.save_protocol(run, found, 0.25)
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == [
        "the official recipe",
        "official recipe − Wanda",
        "baselines, on as many tokens",
        "SparseGPT − Wanda",
    ]
    recipes.save_protocol_units(run, found, [0.3, 0.5])
    folder = run.folder / "figures" / run.notebook
    assert pd.read_csv(folder / "protocol_25.csv").value.tolist() == [-0.3, -0.2], "in the order of the table"
    of_units = pd.read_csv(folder / "protocol_units.csv")
    assert of_units.section.tolist() == ["30 % of the weights removed", "50 % of the weights removed"]
    assert of_units.value.tolist() == [-0.5, -0.4]


def test_the_picture_of_what_is_left_out_has_the_verdicts_of_the_ledger(tmp_path, monkeypatch):
    """Which counts looks and all rows of a family; by itself a row would have another one."""
    found = {}
    monkeypatch.setattr(
        recipes.figures, "save_figure", lambda run, figure, name, table, _: found.update(all=table)
    )
    asked = []

    def on_losses(differences: list[Estimate]) -> list[str]:
        asked.extend(differences)
        return [UNDECIDED] * len(differences)

    monkeypatch.setattr(recipes, "results_for", lambda run: SimpleNamespace(on_losses=on_losses))
    rng = np.random.default_rng(0)
    effects = {
        model: ({f"{choice} − none": rng.normal(-1, 0.1, (4, 9)) for choice in ("all", "random")}, 0.01)
        for model in ("one", "two")
    }
    controls = {"one": ({recipes.CONTROL: rng.normal(-1, 0.1, (4, 9))}, 0.01)}
    recipes.save_left_out(Run("08_what_results_depend_on", "manual", {}), effects, controls, "plain")

    table = found["all"]
    assert set(table.verdict) == {UNDECIDED} and len(table) == 5
    assert [each.value for each in asked] == table.value.tolist()
    assert {each.margin for each in asked} == {0.01}
