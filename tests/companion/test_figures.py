"""Figures draw what their table says, step by step as well, and the same data give the same bytes."""

import os

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from sinkprune_companion.figures import figures, forests, style, trajectories
from sinkprune_companion.run import records
from sinkprune_core.evaluation.intervals import Estimate


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    assert not plt.get_fignums()


@pytest.fixture
def panels() -> list[dict]:
    """Two small trajectories of 3 steps over 6 keys: masks that are filled in, keys that do not exist yet."""
    generator = np.random.default_rng(0)
    profile_SK = generator.uniform(0.4, 3, (3, 6))
    sinks_SK = np.zeros((3, 6), bool)
    sinks_SK[[0, 1, 2], [0, 3, 0]] = True
    states = [["a", "b", "", "", "", ""], ["a", "b", "c", "", "", "f"], list("abcdef")]
    whole = {
        "title": "one",
        "labels": list("abcdef"),
        "prompt_length": 2,
        "profile_SK": profile_SK,
        "visible_SK": np.ones((3, 6), bool),
        "sinks_SK": sinks_SK,
        "states_SK": states,
    }
    return [
        whole,
        {
            **whole,
            "title": "two",
            "visible_SK": np.tri(3, 6, 3, dtype=bool),
            "states_SK": [list("abcdef")] * 3,
        },
    ]


def framed(axis) -> list[tuple[int, int]]:
    return [(round(patch.get_x() + 0.46), round(patch.get_y() + 0.44)) for patch in axis.patches]


def test_a_step_of_writing_shows_its_tokens_its_sinks_and_what_does_not_exist(panels):
    left, right = trajectories.plot_writing(panels, 1, columns=4).axes[:2]
    assert [text.get_text() for text in left.texts] == ["a", "b", "c", "", "", "f"]
    assert [text.get_text() for text in right.texts] == list("abcde"), "a key that no query sees has no label"
    assert framed(left) == framed(right) == [(3, 0)]
    shown = left.images[0].get_array()
    assert shown.shape == (2, 4) and np.allclose(shown.compressed(), panels[0]["profile_SK"][1])
    assert right.images[0].get_array().count() == 5
    assert "step 2 of 3" in left.get_title(loc="left")


def test_an_animation_is_the_same_to_the_byte_and_keeps_every_frame(panels, tmp_path, monkeypatch):
    monkeypatch.setattr(records.Run, "folder", tmp_path)
    run = records.Run("01_x", "p", {})

    def written() -> bytes:
        return trajectories.save_animation(
            run, (trajectories.plot_writing(panels, step) for step in range(3)), "a", seconds=0.2
        ).read_bytes()

    first = written()
    assert written() == first
    assert not plt.get_fignums()
    with Image.open(tmp_path / "figures" / "01_x" / "a.gif") as image:
        assert image.n_frames == 3 and image.info["loop"] == 0
        red = np.array(to_rgb(style.RED)) * 255
        for step in range(3):
            image.seek(step)
            assert image.info["duration"] == (800 if step == 2 else 200)
            frame = np.asarray(image.convert("RGB")).astype(float)
            figure = trajectories.plot_writing(panels, step)
            figure.set_dpi(110)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
            assert np.abs(frame - drawn).mean() < 4, (
                "what is transparent shows the frame before, so the whole is the figure"
            )
            assert (np.abs(frame - red).max(-1) < 3).any(), "the colour of sinks is in the palette"


def test_the_strongest_keys_are_named_and_no_two_beside_each_other(panels):
    assert trajectories.strongest_apart(panels[0], apart=1 / 6) == list(range(6)), "all, where there is room"
    named = trajectories.strongest_apart(panels[0], apart=2 / 6)
    assert {0, 3} <= set(named), "sinks first"
    assert min(np.diff(named)) >= 2
    axis = trajectories.plot_sink_positions(panels).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == [
        panels[0]["labels"][key] for key in axis.get_xticks()
    ]


def test_what_is_added_to_a_figure_after_it_was_made_has_the_style_too():
    with plt.rc_context():
        plt.rcdefaults()
        frame = pd.DataFrame({"tokens": [1e6, 2e6], "loss": [3.0, 2.0], "kind": "one"})
        axis = figures.plot_curves(
            frame, "tokens", "loss", "kind", {"tokens": "tokens", "loss": "loss"}
        ).axes[0]
        axis.figure.draw_without_rendering()
        (legend,) = axis.figure.legends
        assert not legend.get_frame_on()
        assert axis.xaxis.label.get_fontsize() == style.STYLE["font.size"]
        assert "2 M" in [label.get_text() for label in axis.get_xticklabels()], "no power of ten in a corner"


def extent(artist, figure) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of what an artist takes, in shares of the figure."""
    return (
        artist.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        .transformed(figure.transFigure.inverted())
        .extents
    )


@pytest.mark.parametrize("names", [["a", "b"], [f"a rather long name, {number}" for number in range(14)]])
def test_a_legend_stands_above_the_axes_and_inside_the_picture(names):
    frame = pd.DataFrame([{"x": x, "y": x, "name": name} for name in names for x in (0.25, 0.5)])
    figure = figures.plot_curves(frame, "x", "y", "name", {"x": "x", "y": "y"})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    left, bottom, right, top = extent(legend, figure)
    assert left >= 0 and right <= 1 and top <= 1 and bottom >= extent(figure.axes[0], figure)[3]
    assert extent(figure.axes[0], figure)[2] > 0.95, "the axes take the whole width"


def test_lines_that_are_moved_apart_stand_around_their_place_and_the_axis_names_it():
    frame = pd.DataFrame(
        [{"x": x, "y": 1.0, "name": name} for x, names in {0.25: "ab", 0.5: "abcd"}.items() for name in names]
    )
    axis = figures.plot_curves(frame, "x", "y", "name", {"x": "x", "y": "y"}, dodge=0.01).axes[0]
    places = np.concatenate([line.get_xdata() for line in axis.lines]).astype(float)
    there = sorted(places[~np.isnan(places)])
    assert there == pytest.approx([0.245, 0.255, 0.485, 0.495, 0.505, 0.515])
    assert axis.get_xticks().tolist() == [0.25, 0.5]


def test_a_line_has_a_gap_where_its_method_was_not_measured():
    rows = [(0.5, "a", 1.0), (0.6, "a", 2.0), (0.75, "a", 3.0), (0.5, "b", 1.0), (0.75, "b", 4.0)]
    frame = pd.DataFrame(rows, columns=["x", "name", "y"]).assign(low=0.5, high=5.0)
    axis = figures.plot_curves(
        frame, "x", "y", "name", {"x": "x", "y": "y"}, ("low", "high"), dodge=0.01
    ).axes[0]
    whole, broken = (container[0].get_ydata() for container in axis.containers)
    assert whole.tolist() == [1.0, 2.0, 3.0]
    assert broken[[0, 2]].tolist() == [1.0, 4.0] and np.isnan(broken[1])


def test_a_word_that_is_cut_says_so(panels):
    states = [["<|endoftext|>", "·rebellion", "·eightlet", "d", "e", "f"]] * 3
    axis = trajectories.plot_writing([{**panels[0], "states_SK": states}], 0, columns=4).axes[0]
    assert [text.get_text() for text in axis.texts] == ["endofte…", "rebelli…", "eightlet", "d", "e", "f"]


def test_a_saved_figure_tells_a_notebook_its_caption(tmp_path, monkeypatch):
    from IPython.core.formatters import DisplayFormatter

    monkeypatch.setattr(records.Run, "folder", tmp_path)
    monkeypatch.delenv(figures.DATE, raising=False)
    frame = pd.DataFrame({"x": [1, 2], "y": [3.0, 2.0], "kind": "one"})
    figure = figures.save_figure(
        records.Run("01_x", "p", {}),
        figures.plot_curves(frame, "x", "y", "kind", {"x": "x", "y": "y"}),
        "a",
        frame,
        "what it shows",
    )
    assert figures.DATE not in os.environ, "zip files of Python 3.14 read it, and refuse dates before 1980"
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(type(figure), lambda _: b"picture")
    data, about = formatter.format(figure)
    assert data["image/png"] == b"picture" and about["image/png"] == {"alt": "what it shows"}


def test_a_cell_of_a_sweep_without_a_row_for_a_figure_still_draws_it():
    columns = ["panel", "recipe", "value", "low", "high"]
    empty = pd.DataFrame(columns=columns)
    (axis,) = forests.plot_rows(empty, "panel", "recipe", "nats").axes
    assert axis.get_title("left") == "nothing measured" and not axis.lines
    full = pd.DataFrame([["2:4", "wanda", 1.0, 0.5, 1.5], ["4:8", "wanda", 2.0, 1.5, 2.5]], columns=columns)
    assert [axis.get_title("left") for axis in forests.plot_rows(full, "panel", "recipe", "nats").axes] == [
        "2:4",
        "4:8",
    ]


def test_an_interval_that_would_flatten_the_rest_is_cut_with_an_arrow():
    estimates = {name: Estimate(0.0, -0.01, 0.01, 9, "") for name in "abc"}
    figure = forests.plot_forest({**estimates, "d": Estimate(0.5, 0.4, 0.6, 9, "")}, "x")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts][-1] == "+0.500 [+0.400, +0.600]"
    assert axis.get_xlim()[1] < 0.1 and axis.lines[-1].get_marker() == forests.ARROW_RIGHT
    forests.plot_forest({"a": Estimate(0.0, 0.0, 0.0, 9, "")}, "x")
    forests.plot_forest({}, "x")


def test_a_row_per_condition_has_both_models_at_their_means():
    rows = [
        {"kind": kind, "what": what, "overlap": 0.25 * number}
        for kind in ("diffusion", "autoregressive")
        for what in ("one", "other")
        for number in range(3)
    ]
    (axis,) = forests.plot_by_row(pd.DataFrame(rows), "what", {"overlap": "overlap"}, "").axes
    assert len(axis.containers) == 4
    assert all(container[0].get_xdata().tolist() == [pytest.approx(0.25)] for container in axis.containers)


@pytest.mark.parametrize(("high", "scale"), [(0.2, "linear"), (50.0, "symlog")])
def test_an_axis_is_logarithmic_only_where_values_reach_far(high, scale):
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [0.1, 0.1, high], "name": "a"})
    axis = figures.plot_curves(frame, "x", "y", "name", {"x": "x", "y": "y"}).axes[0]
    assert axis.get_yscale() == scale


def test_a_line_has_one_look_in_all_panels():
    rows = [(1, 1.0, "b", "left"), (1, 1.0, "a", "right"), (1, 2.0, "b", "right")]
    frame = pd.DataFrame(rows, columns=["x", "y", "name", "panel"])
    figure = figures.plot_curves(frame, "x", "y", "name", {"x": "x", "y": "y"}, panel="panel")
    left, right = ({line.get_label(): line for line in axis.containers} for axis in figure.axes)
    assert left["b"][0].get_color() == right["b"][0].get_color() != right["a"][0].get_color()
