"""Figures draw what their table says, step by step as well, and the same data give the same bytes."""

import os

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from sinkprune_companion.figures import figures, forests, sink_figures, style, trajectories
from sinkprune_companion.ledger.verdict_rule import NOT_RUN
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


def test_heads_share_one_scale():
    maps = {"one": np.array([[0.5, 1.0], [2.0, 4.0]]), "two": np.array([[8.0, 1.0], [2.0, 40.0]])}
    axes = sink_figures.plot_heads(maps, "share").axes
    assert [axis.images[0].norm.vmax for axis in axes[:2]] == [40.0, 40.0] and axes[0].images[
        0
    ].norm.vmin == axes[1].images[0].norm.vmin == 0.5


def test_a_training_log_may_begin_without_sinks_or_never_have_them():
    log = pd.DataFrame({"tokens": [1e6, 2e6, 3e6], "loss": [3.0, 2.0, 1.0], "sinks": [None, 4.0, 5.0]})
    axes = figures.plot_training(
        log, {"loss": {"loss": "held out"}, "sinks": {"sinks": "per step"}, "share": {"gone": "stable"}}
    ).axes
    assert [len(axis.lines) for axis in axes] == [1, 1, 0]
    assert list(axes[1].lines[0].get_xdata()) == [2.0, 3.0]
    assert "no such column" in axes[2].texts[0].get_text()


def test_filling_is_drawn_per_model_at_its_means_in_nats_and_percent():
    rows = [
        {
            "model": kind,
            "kind": kind,
            "share": share,
            "sequence": sequence,
            "value": 2 + share + sequence,
            "correct": 0.25 * sequence,
        }
        for kind in ("autoregressive", "diffusion")
        for share in (0.15, 0.85)
        for sequence in (0, 1, 2)
    ]
    nats, right = figures.plot_filling(pd.DataFrame(rows)).axes[:2]
    assert [
        line.get_ydata().tolist()
        for line in nats.lines
        if len(line.get_ydata()) == 2 and line.get_linestyle() in ("-", "--")
    ] == [[pytest.approx(3.15), pytest.approx(3.85)]] * 2
    assert all(
        value == pytest.approx(25)
        for line in right.lines
        if line.get_linestyle() in ("-", "--")
        for value in line.get_ydata()
    )


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
    estimates = {
        "a long name of a comparison of two recipes, " + name: Estimate(0.1, 0.0, 0.2, 9, "by hand")
        for name in names
    }
    for figure in (
        figures.plot_curves(frame, "x", "y", "name", {"x": "x", "y": "y"}),
        forests.plot_forest(
            estimates, "x", {name: f"group {place % 3}" for place, name in enumerate(estimates)}
        ),
    ):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        left, bottom, right, top = extent(legend, figure)
        assert left >= 0 and right <= 1 and top <= 1 and bottom >= extent(figure.axes[0], figure)[3]
        assert extent(figure.axes[0], figure)[2] > 0.95, "the axes take the whole width"
        assert all(
            left >= 0 and right <= 1 for left, _, right, _ in (extent(text, figure) for text in figure.texts)
        ), "no words are cut"


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


def test_the_figure_of_verdicts_cuts_no_claim():
    says = "a claim " * 15
    row = {"claim": says, "kind": "control", "here": "", "interval": "", "verdict": NOT_RUN}
    table = pd.DataFrame([{**row, "margin": None, "p_holm": None}])
    texts = [text.get_text().split() for text in forests.plot_verdicts(table).axes[0].texts]
    assert ("control: " + says).split() in texts


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
    (axis,) = forests.plot_methods(empty, "panel", "recipe", "nats").axes
    assert axis.get_title("left") == "nothing measured" and not axis.lines
    full = pd.DataFrame([["2:4", "wanda", 1.0, 0.5, 1.5], ["4:8", "wanda", 2.0, 1.5, 2.5]], columns=columns)
    assert [
        axis.get_title("left") for axis in forests.plot_methods(full, "panel", "recipe", "nats").axes
    ] == ["2:4", "4:8"]


def test_an_interval_that_would_flatten_the_rest_is_cut_with_an_arrow_and_its_numbers():
    estimates = {name: Estimate(0.0, -0.01, 0.01, 9, "") for name in "abc"}
    near = forests.plot_forest(estimates, "x")
    far = forests.plot_forest({**estimates, "d": Estimate(0.5, 0.4, 0.6, 9, "")}, "x")
    assert not near.axes[0].texts and "arrows" not in near.get_supxlabel()
    assert [text.get_text() for text in far.axes[0].texts] == ["+0.500 [+0.400, +0.600]"]
    assert far.axes[0].get_xlim()[1] < 0.1 and "arrows: goes on" in far.get_supxlabel()
    alone = forests.plot_forest({"a": Estimate(0.0, 0.0, 0.0, 9, "")}, "x")
    assert not alone.axes[0].texts


def test_an_axis_is_logarithmic_only_where_values_reach_far():
    row = {"model": "m", "kind": "diffusion", "label": "strongest", "count": 1, "low": 0.0}
    scales = [
        figures.plot_hiding(pd.DataFrame([{**row, "value": high / 2, "high": high}]), "excess")
        .axes[0]
        .get_yscale()
        for high in (0.2, 5.0)
    ]
    assert scales == ["linear", "symlog"]


def test_a_kind_of_text_has_one_colour_however_it_starts():
    rows = [(tokens, text, 5.0) for text in ("a, crops", "a, beginnings", "b, crops") for tokens in (1, 2)]
    curve = pd.DataFrame(rows, columns=["tokens", "text", "nelbo"])
    figure, title = figures.plot_learning(curve, {"a": 4.0, "b": 3.0})
    colours = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert list(colours) == ["DLM, a, crops", "DLM, a, beginnings", "AR, a", "DLM, b, crops", "AR, b"]
    assert colours["DLM, a, crops"] == colours["DLM, a, beginnings"] == colours["AR, a"] != colours["AR, b"]
    assert "ends 1.0 to 2.0 nats above" in title
