"""The figure of README's first screen: what each change does to the loss, and to the mask."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import number, percent
from sinkprune.evaluation.verdict_rule import fields_of, verdicts_on_losses
from sinkprune.figures.style import canvas
from sinkprune_companion.figures.figures import bars, save_figure
from sinkprune_companion.figures.forests import handles_of, marks_of, placed
from sinkprune_companion.figures.looks import BLACK, GREEN, GREY
from sinkprune_companion.ledger.margins import share_that_matters

CAPTION = "What each change does to the pruned model, and how many of the kept weights it changes"

# rows by section, each with its finding: differences of losses at each sparsity, then shares of the mask
ROWS = {
    "50 % of the weights zero": {
        "official recipe − Wanda": "03/paper_minus_wanda",
        "unstable sinks left out − kept": "03/unstable_minus_none",
        "all sinks left out − kept": "03/all_sinks_minus_none",
        "SparseGPT, sinks left out − kept": "03/paper_sparsegpt_minus_sparsegpt",
        "SparseGPT − Wanda": "03/sparsegpt_minus_wanda",
        "SparseGPT, half noised − clean, ⅛ of the text": "09/sparsegpt_half_minus_sparsegpt_clean_50",
    },
    "75 % of the weights zero": {
        "official recipe − Wanda": "09/paper_minus_wanda_75",
        "noised, dense propagation − Wanda": "09/noised_dense_minus_wanda_75",
        "official noise levels − even ones": "09/official_levels_minus_grid_75",
        "official recipe, sinks left out − kept": "09/paper_minus_paper_no_sinks_75",
        "SparseGPT, sinks left out − kept": "03/paper_sparsegpt_minus_sparsegpt_75",
        "SparseGPT, half noised − clean text": "09/sparsegpt_half_minus_sparsegpt_clean_75",
    },
    "kept weights that change": {
        "unstable sinks left out": "03/masks_unstable",
        "all sinks left out": "03/masks_all_sinks",
        "other calibration text": "03/masks_other_text",
        "Wanda on clean text": "03/masks_wanda",
    },
}
MASK_SECTION = "kept weights that change"

# what the differences say, as long as these findings have these verdicts
CONCLUSION = "Sinks left out: no change that matters, where\ndecided; half noised text helps SparseGPT"
PRESUMED = {
    "no difference that matters": [
        "03/all_sinks_minus_none",
        "03/unstable_minus_none",
        "03/paper_sparsegpt_minus_sparsegpt",
        "09/paper_minus_paper_no_sinks_75",
    ],
    "helps": [
        "09/sparsegpt_half_minus_sparsegpt_clean_50",
        "09/sparsegpt_half_minus_sparsegpt_clean_75",
    ],
}


def headline_table(estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return what the figure shows: differences in nats per token, with the `damage` that the second recipe
    does and verdicts corrected over this table, then shares of the mask.
    """
    rows = [(section, *named) for section, findings in ROWS.items() for named in findings.items()]
    frame = pd.DataFrame(rows, columns=["section", "comparison", "finding"])
    shown = {finding: estimates[finding] for finding in frame.finding}
    frame = frame.assign(**fields_of(shown, "value", "low", "high", "draws", "margin"))
    frame["damage"] = frame.margin / share_that_matters()
    losses = frame.finding[frame.section != MASK_SECTION]
    frame["verdict"] = pd.Series(verdicts_on_losses([shown[finding] for finding in losses]), losses.index)
    return frame


def plot_headline(frame: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `headline_table`: its differences in percent of what the second recipe costs, beside its masks."""
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
    for place, row in placed(axis, frame, size=8.5):
        value, *ends = (100 * end / row.damage for end in (row.value, row.low, row.high))
        axis.errorbar(value, place, xerr=[[end] for end in bars(value, *ends)], **row.mark, ms=6, lw=1.6)
        axis.text(1.02, place, number(row.value), **right)
    axis.text(1.02, 0, "in nats", **right)
    verdicts = frame.set_index("finding").verdict
    holds = all((verdicts[findings] == verdict).all() for verdict, findings in PRESUMED.items())
    axis.set_title(CONCLUSION if holds else "Loss, first − second", fontsize=9.5, loc="right")
    below = "first − second, in % of the second's loss above dense; ← better\n"
    below += f"95 % intervals; wholly in the band, ± {number(margin)} %: does not matter"
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
    title = f"Kept weights swapped for others: {sinks}\nby leaving sinks out, {text} by other text"
    axis.set_title(title, fontsize=9.5, loc="right")
    below = "% of the kept weights changed at 50 %, against noised\n"
    below += "text with all sinks, in one draw; lines: 95 % over matrices"
    axis.set_xlabel(below, fontsize=8.5, x=1.0, ha="right")


def save_headline(estimates: Mapping[str, Estimate], root: Path) -> list[Path]:
    """Write both shapes to `root/figures/headline` with data and origin beside them; return the files."""
    frame = headline_table(estimates)
    provenance = {"findings": frame.finding.tolist()}
    run = SimpleNamespace(folder=root, provenance=provenance, notebook="headline")  # what `save_figure` asks
    for name, is_narrow in (("headline", False), ("headline_narrow", True)):
        save_figure(run, plot_headline(frame, is_narrow), name, frame, CAPTION)
    return sorted((root / "figures" / "headline").iterdir())
