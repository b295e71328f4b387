"""The figure of README's first screen: the comparisons that matter, and how much of the mask sinks reach.

It is drawn from published findings when pages are written, in two shapes: wide, and narrow for a phone.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.figures.forests import EFFECT_MARKS, draw_rows, handles_of, marks_of
from sinkprune_companion.figures.style import BLACK, GREEN, GREY, bars, canvas
from sinkprune_companion.ledger.contrasts import HELPS, fields_of, verdicts_on_losses
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.ledger.verdict_rule import NO_DIFFERENCE
from sinkprune_companion.numbers import number, percent
from sinkprune_core.evaluation.intervals import Estimate

NAME = "headline"
CAPTION = "What each change does to the pruned model, and how many of the kept weights it changes"
MASK_SECTION = "kept weights that change"
FINDINGS = {  # by section and row: differences of losses at each sparsity, and shares of the mask
    "50 % of the weights zero": {
        "official recipe − Wanda": "03/paper_minus_wanda",
        "unstable sinks left out − none": "03/unstable_minus_none",
        "all sinks left out − none": "03/all_sinks_minus_none",
        "sinks left out of SparseGPT − none": "03/paper_sparsegpt_minus_sparsegpt",
        "SparseGPT − Wanda": "03/sparsegpt_minus_wanda",
        "SparseGPT, half-noised text − clean": "09/sparsegpt_half_minus_sparsegpt_clean_50",
    },
    "75 % of the weights zero": {
        "official recipe − Wanda": "09/paper_minus_wanda_75",
        "noised, dense propagation − Wanda": "09/noised_dense_minus_wanda_75",
        "official noise levels − even ones": "09/official_levels_minus_grid_75",
        "norms summed over levels − one norm": "09/paper_no_sinks_minus_official_levels_75",
        "sinks left out, officially − none": "09/paper_minus_paper_no_sinks_75",
        "SparseGPT, half-noised text − clean": "09/sparsegpt_half_minus_sparsegpt_clean_75",
    },
    MASK_SECTION: {
        "unstable sinks left out": "03/masks_unstable",
        "all sinks left out": "03/masks_all_sinks",
        "other calibration text": "03/masks_other_text",
        "Wanda on clean text": "03/masks_wanda",
    },
}
SINKS = [
    "03/all_sinks_minus_none",
    "03/unstable_minus_none",
    "03/paper_sparsegpt_minus_sparsegpt",
    "09/paper_minus_paper_no_sinks_75",
]
HALF_NOISED = [
    "09/sparsegpt_half_minus_sparsegpt_clean_50",
    "09/sparsegpt_half_minus_sparsegpt_clean_75",
]


def table(estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return what the figure shows: differences in nats per token, then shares of the mask, a row each.

    `damage` is what the second recipe costs above the dense model, in nats per token. Verdicts follow the one
    rule, corrected over the differences of this table.
    """
    rows = [(section, *named) for section, findings in FINDINGS.items() for named in findings.items()]
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
    if is_narrow:
        figure, axes = canvas(2, 1, (4.3, 5.4), height_ratios=(3, 1))
    else:
        figure, axes = canvas(1, 2, (9.6, 3.7), width_ratios=(3, 2))
    losses, masks = axes.flat
    _draw_losses(losses, frame[~is_mask])
    _draw_masks(masks, frame[is_mask])
    handles = handles_of(marks_of(frame.verdict))
    columns = 2 if is_narrow else len(handles)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8.5)
    return figure


def _draw_losses(axis: Axes, frame: pd.DataFrame) -> None:
    """Draw a row per difference below the heading of its sparsity, with its value in nats at the right."""
    margin = 100 * share_that_matters()
    axis.axvspan(-margin, margin, color=GREEN, alpha=0.12, lw=0)
    axis.axvline(0, color=BLACK, lw=0.9)
    right = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8.5}

    def draw(place: int, row: Any) -> None:
        value, *ends = (100 * end / row.damage for end in (row.value, row.low, row.high))
        mark = EFFECT_MARKS[row.verdict]
        axis.errorbar(value, place, xerr=[[end] for end in bars(value, *ends)], **mark, ms=6, lw=1.6)
        axis.text(1.02, place, number(row.value), **right)

    draw_rows(axis, frame, draw, size=8.5)
    axis.text(1.02, 0, "nats", **right)
    axis.set_title(_conclusion(frame.set_index("finding").verdict), fontsize=9.5, loc="right")
    below = "loss, first − second, in % of what the second costs; ← better\n"
    below += f"band: ± {number(margin)} %, too small to matter; bars: 95 % intervals"
    axis.set_xlabel(below, fontsize=8.5, x=1.0, ha="right")


def _conclusion(verdicts: pd.Series) -> str:
    """Return what the differences say, as long as they say it."""
    if (verdicts[SINKS] == NO_DIFFERENCE).all() and (verdicts[HALF_NOISED] == HELPS).all():
        return "Sinks left out: nothing that matters;\nhalf-noised text helps SparseGPT"
    return "Loss, first − second"


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
