"""Rows of the ledger measured in several ways, side by side: where verdicts agree, and where they do not.

Other trainings and other amounts of calibration text are compared with what is published in this way.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune_companion.figures.forests import VERDICT_MARKS
from sinkprune_companion.figures.style import BLACK, canvas, titled_legend
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.ledger.tables import MARKS
from sinkprune_companion.pages import phrases
from sinkprune_core.evaluation import verdict_rule
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.evaluation.verdict_rule import UNDECIDED
from sinkprune_core.tables import markdown_table

LETTERS = 95  # of a title in a row


class Measured(Protocol):
    """One of the ways in which rows were measured: a trained pair, an amount of calibration text."""

    @property
    def name(self) -> str:
        """What tables and figures call it."""

    @property
    def found(self) -> Mapping[str, Estimate]:
        """What was found so, by notebook/name."""


def verdicts_of(claim: Claim, measured: Iterable[Measured]) -> list[str]:
    """Return the verdict of a claim by each way of measuring it."""
    return [claim.verdict(one.found[claim.finding]) for one in measured]


def has_one_verdict(claim: Claim, measured: Iterable[Measured]) -> bool:
    """Return whether a claim has the same verdict by all ways of measuring it."""
    return len(set(verdicts_of(claim, measured))) == 1


def disagree(claim: Claim, measured: Iterable[Measured]) -> bool:
    """Return whether two ways give a claim different verdicts on intervals that do not overlap."""
    for one, other in combinations((each.found[claim.finding] for each in measured), 2):
        is_apart = one.high < other.low or other.high < one.low
        if is_apart and claim.verdict(one) != claim.verdict(other):
            return True
    return False


def agreement(claims: Sequence[Claim], measured: Sequence[Measured], what: str, ways: str) -> str:
    """Return in words how many claims have one verdict by all ways, and on how many ways disagree.

    `what` names the claims, `ways` what the ways of measuring are, both in the plural.
    """
    same = sum(has_one_verdict(claim, measured) for claim in claims)
    apart = sum(disagree(claim, measured) for claim in claims)
    return (
        f"Of {len(claims)} {what}, {same} have the same verdict on all {len(measured)} {ways}; on {apart}, "
        f"{ways} have different verdicts and intervals that do not overlap."
    )


def bullets(claims: Iterable[Claim], measured: Sequence[Measured]) -> str:
    """Return a bullet per claim: its verdict and number by every way of measuring it."""
    lines = []
    for claim in claims:
        says = [f"{one.name} {in_words(claim, one.found[claim.finding])}" for one in measured]
        lines.append(f"* *{claim.says}*: {', '.join(says)}.")
    return "\n".join(lines)


def in_words(claim: Claim, found: Estimate) -> str:
    """Return a verdict with its number; one on an effect that is too small to matter says so."""
    verdict = claim.verdict(found)
    said = [phrases.amount(found) + phrases.few_draws(found)]
    if verdict != UNDECIDED:  # of which the note says how to decide it
        said.append(verdict_rule.note(found, claim.side, claim.against, claim.margin_of(found)))
    return f"{verdict} ({', '.join(part for part in said if part)})"


def plot_side_by_side(claims: Sequence[Claim], measured: Sequence[Measured], title: str) -> Figure:
    """Draw a panel per claim and a row per way of measuring it: number, interval and verdict.

    The line is what the claim compares with; the arrow in its title points to the side that it claims.
    """
    height = 0.9 + len(claims) * (0.85 + 0.2 * len(measured))
    figure, axes = canvas(len(claims), 1, (7.2, height))
    for axis, claim in zip(axes[:, 0], claims, strict=True):
        for row, (one, verdict) in enumerate(zip(measured, verdicts_of(claim, measured), strict=True)):
            found = one.found[claim.finding]
            colour, marker = VERDICT_MARKS[verdict]
            inside = "white" if verdict == UNDECIDED else colour
            axis.plot([found.low, found.high], [row, row], color=colour, lw=1.5)
            axis.plot(found.value, row, marker, color=colour, mfc=inside, ms=6)
        axis.axvline(claim.against, color=BLACK, lw=0.9)
        axis.set_yticks(range(len(measured)), [one.name for one in measured], fontsize=8)
        axis.set_ylim(len(measured) - 0.5, -0.5)
        arrow = "→" if claim.side == "above" else "←"
        axis.set_title(textwrap.fill(f"{claim.says} ({arrow})", LETTERS), fontsize=8, loc="left")
        axis.set_xlabel(textwrap.fill(claim.metric, LETTERS), fontsize=7)
        axis.locator_params(axis="x", nbins=6)
    figure.supxlabel("bars: 95 % interval; arrows: the side that is claimed", fontsize=9)
    shown = {verdict for claim in claims for verdict in verdicts_of(claim, measured)}
    handles = []
    for verdict, (colour, marker) in VERDICT_MARKS.items():
        if verdict in shown:
            inside = "white" if verdict == UNDECIDED else colour
            handles.append(Line2D([], [], color=colour, marker=marker, mfc=inside, label=verdict))
    titled_legend(figure, handles, title=title)
    return figure


def as_table(claims: Iterable[Claim], measured: Sequence[Measured], way: str) -> pd.DataFrame:
    """Return a row per claim and way of measuring it: number, interval, margin and verdict.

    The column called `way` has the names of the ways.
    """
    rows = []
    for claim in claims:
        for one, verdict in zip(measured, verdicts_of(claim, measured), strict=True):
            found = one.found[claim.finding]
            numbers = {"value": found.value, "low": found.low, "high": found.high}
            about = {"id": claim.id, way: one.name, "margin": claim.margin_of(found), "verdict": verdict}
            rows.append({**about, **numbers, "units": found.units, "draws": found.draws})
    return pd.DataFrame(rows)


def claims_table(claims: Iterable[Claim], measured: Sequence[Measured]) -> str:
    """Return a Markdown table: a row per claim, a column per way of measuring it."""
    rows = []
    for claim in claims:
        row = [claim.says]
        for one, verdict in zip(measured, verdicts_of(claim, measured), strict=True):
            row.append(f"{MARKS[verdict]} {phrases.amount(one.found[claim.finding])}")
        rows.append([*row, claim.metric])
    return markdown_table(["claim", *(one.name for one in measured), "measured"], rows)
