"""The figure of README's first screen, wide, and narrow for a phone; `data/headline.yml` has its rows."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkprune_companion import DATA
from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.figures.forests import draw_rows, handles_of, marks_of
from sinkprune_companion.figures.style import BLACK, GREEN, GREY, bars, canvas
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.ledger.verdict_rule import fields_of, verdicts_on_losses
from sinkprune_companion.numbers import number, percent
from sinkprune_core.evaluation.intervals import Estimate

NAME = "headline"
CAPTION = "What each change does to the pruned model, and how many of the kept weights it changes"
SHOWN = yaml.safe_load((DATA / "headline.yml").read_text(encoding="utf-8"))
MASK_SECTION = list(SHOWN["rows"])[-1]


def table(estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return what the figure shows: differences in nats per token, then shares of the mask, a row each.

    `damage` is what the second recipe costs above the dense model, in nats per token. Verdicts follow the one
    rule, corrected over the differences of this table.
    """
    rows = [(section, *named) for section, findings in SHOWN["rows"].items() for named in findings.items()]
    frame = pd.DataFrame(rows, columns=["section", "comparison", "finding"])
    shown = {finding: estimates[finding] for finding in frame.finding}
    frame = frame.assign(**fields_of(shown, "value", "low", "high", "draws", "margin"))
    frame["damage"] = frame.margin / share_that_matters()
    losses = frame.finding[frame.section != MASK_SECTION]
    frame["verdict"] = pd.Series(verdicts_on_losses([shown[finding] for finding in losses]), losses.index)
    return frame


def plot(frame: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `table`'s differences in percent of what the second recipe costs, and the mask's in percent."""
    is_mask = frame.section == MASK_SECTION
    marks = marks_of(frame.verdict)
    if is_narrow:
        figure, axes = canvas(2, 1, (4.3, 5.4), height_ratios=(3, 1))
    else:
        figure, axes = canvas(1, 2, (9.6, 3.7), width_ratios=(3, 2))
    losses, masks = axes.flat
    _draw_losses(losses, frame[~is_mask].assign(mark=frame.verdict.map(marks)))
    _draw_masks(masks, frame[is_mask])
    columns = 2 if is_narrow else len(marks)
    figure.legend(handles=handles_of(marks), loc="outside upper left", ncols=columns, fontsize=8.5)
    return figure


def _draw_losses(axis: Axes, frame: pd.DataFrame) -> None:
    """Draw a row per difference below the heading of its sparsity, with its value in nats at the right."""
    margin = 100 * share_that_matters()
    axis.axvspan(-margin, margin, color=GREEN, alpha=0.12, lw=0)
    axis.axvline(0, color=BLACK, lw=0.9)
    right = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8.5}

    def draw(place: int, row: Any) -> None:
        value, *ends = (100 * end / row.damage for end in (row.value, row.low, row.high))
        axis.errorbar(value, place, xerr=[[end] for end in bars(value, *ends)], **row.mark, ms=6, lw=1.6)
        axis.text(1.02, place, number(row.value), **right)

    draw_rows(axis, frame, draw, size=8.5)
    axis.text(1.02, 0, "nats", **right)
    verdicts = frame.set_index("finding").verdict
    presumed = SHOWN["presumed"].items()
    holds = all((verdicts[findings] == verdict).all() for verdict, findings in presumed)
    axis.set_title(SHOWN["conclusion"] if holds else "Loss, first − second", fontsize=9.5, loc="right")
    below = "loss, first − second, in % of what the second costs; ← better\n"
    below += f"band: ± {number(margin)} %, too small to matter; bars: 95 % intervals"
    axis.set_xlabel(below, fontsize=8.5, x=1.0, ha="right")


def _draw_masks(axis: Axes, frame: pd.DataFrame) -> None:
    """Draw a bar per change of the calibration, with its percent beside it."""
    places = range(len(frame))
    ends = bars(100 * frame.value, 100 * frame.low, 100 * frame.high)
    line = {"ecolor": BLACK, "lw": 1}
    drawn = axis.barh(places, 100 * frame.value, xerr=ends, height=0.6, color=GREY, error_kw=line)
    axis.bar_label(drawn, [f"{number(100 * share)} %" for share in frame.value], padding=4, fontsize=8.5)
    axis.set_yticks(places, frame.comparison, fontsize=8.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set(ylim=(len(frame) - 0.5, -0.5), xlim=(0, 120 * frame.high.max()))
    share = frame.set_index("finding").value
    sinks, text = percent(share["03/masks_all_sinks"]), percent(share["03/masks_other_text"])
    title = f"Leaving sinks out changes {sinks}\nof the kept weights, other text {text}"
    axis.set_title(title, fontsize=9.5, loc="right")
    below = "kept weights that differ at 50 % from those on noised\n"
    below += "text, all sinks kept (%); lines: 95 % intervals"
    axis.set_xlabel(below, fontsize=8.5, x=1.0, ha="right")


def save(estimates: Mapping[str, Estimate], root: Path) -> list[Path]:
    """Write both shapes to `root/figures/headline` with data and origin beside them; return the files."""
    frame = table(estimates)
    provenance = {"findings": frame.finding.tolist()}
    run = SimpleNamespace(folder=root, provenance=provenance, notebook=NAME)  # what `save_figure` asks
    for name, is_narrow in ((NAME, False), (f"{NAME}_narrow", True)):
        save_figure(run, plot(frame, is_narrow), name, frame, CAPTION)
    return sorted((root / "figures" / NAME).iterdir())
