"""The claims table as readers see it: in a terminal and in Markdown."""

import textwrap
from collections.abc import Mapping

import pandas as pd

from sinkprune.evaluation.numbers import SPACE, markdown_table, number, p_text
from sinkprune.evaluation.verdict_rule import NOT_RUN, VERDICTS

HEADS = {  # before a row, by its kind
    "control": "*control:* ",
    "question": "*our question:* ",
    "others": "*by others:* ",
}
KINDS = {  # of rows, as they are counted
    "claim": "claims of the paper",
    "control": "controls of these",
    "question": "our questions",
    "others": "measured by others, at 8B",
}
SECTIONS = {  # of what a terminal shows, by the kind that begins them
    "claim": "THE PAPER'S CLAIMS, with their controls",
    "question": "OUR OWN QUESTIONS",
}
NARROW = 60  # columns of a terminal below which a number stands beneath its verdict
TOO_SMALL = "too small for a verdict"
EXPLAINED = (
    "± is the smallest difference that matters. p is that of a two-sided t test, corrected over the row's "
    "family (Holm). Undecided rows say the half-width of the interval, the smallest effect that the run "
    "could have seen (power 80 %), and the run that would decide."
)


def as_text(named: Mapping[str, pd.DataFrame], columns: int = 80) -> str:
    """Return tables of the same claims for a terminal of so many columns.

    Below every claim stands a line of each table, behind its name where there are several. Of the rows that
    none of them has run the paper's claims are shown, and the others are counted at the end.
    """
    first = next(iter(named.values()))
    longest = max(map(len, VERDICTS))
    width = max(map(len, named)) if len(named) > 1 else 0

    lines = []
    section = None
    waiting = 0
    for claim, about in first.iterrows():
        is_run = any(table.loc[claim].verdict != NOT_RUN for table in named.values())
        if not is_run and about.kind != "claim":
            waiting += 1
            continue

        heading = SECTIONS.get(about.kind, section)
        if heading != section:
            lines += ["", heading, ""]
            section = heading

        is_beneath = bool(about.beneath)
        if not is_beneath and lines[-1]:
            lines.append("")
        lines.append(_says(about, first, columns))
        indent = " " * (8 if is_beneath else 4)
        deeper = indent + "  "
        for name, table in named.items():
            row = table.loc[claim]
            start = f"{name:<{width}}  " if width else ""
            here = _with_interval(row, in_percent=row.is_share)
            if columns < NARROW:
                lines.append(_filled(f"{start}{row.verdict}", columns, indent, deeper))
                lines.append(_filled(here, columns, deeper, deeper + "  "))
            else:
                found = f"{start}{row.verdict:<{longest}}  {here}"
                lines.append(_filled(found, columns, indent, deeper))

    if waiting:
        lines += ["", f"{waiting} rows of the ledger are not run."]
    return "\n".join(lines).lstrip("\n")


def _says(about: pd.Series, table: pd.DataFrame, columns: int) -> str:
    """Return what a claim says, in whole words; of a row beneath another one, what it does not repeat."""
    if not about.beneath:
        return _filled(about.claim, columns, "", "  ")

    words = about.claim
    if about.beneath in table.index:
        words = words.replace(f"{table.loc[about.beneath].claim}: ", "the same, ")
    label = {"control": "control: ", "others": "by others: "}.get(about.kind, "")
    return _filled(label + words, columns, " " * 4, " " * 6)


def _filled(text: str, columns: int, first: str, later: str) -> str:
    """Return a text in lines of so many columns, which begin with `first` and `later`, no word broken."""
    return textwrap.fill(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def without_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a run that is too small for verdicts: numbers alone, where there are some."""
    is_run = table.verdict != NOT_RUN
    return table.assign(verdict=table.verdict.where(~is_run, TOO_SMALL), interval="")


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table in Markdown, for a page in `figures`, behind how many rows have which verdict."""
    by_kind = pd.crosstab(table.kind, table.verdict).reindex(columns=list(VERDICTS), fill_value=0)
    counts = [[says, *by_kind.loc[kind]] for kind, says in KINDS.items() if kind in by_kind.index]

    rows = []  # claim, verdict and number come first: a narrow screen shows no more
    for row in table.itertuples():
        measured = row.metric
        if row.notebook:
            measured += f" [{row.notebook[:2]}](../notebooks/{row.notebook}.ipynb)"
        margin = "–" if pd.isna(row.margin) else number(row.margin)
        claim = HEADS.get(row.kind, "") + row.claim
        numbers = (_with_interval(row), margin, p_text(row.p_holm))
        rows.append([claim, row.verdict, *numbers, row.note or "–", measured])

    header = ["claim", "verdict", "here (95 % interval)", "±", "p", "note", "measured"]
    parts = [markdown_table(["rows", *VERDICTS], counts), markdown_table(header, rows), EXPLAINED]
    return "\n\n".join(parts)


def _with_interval(row: object, in_percent: bool = False) -> str:
    """Return a row's number with its interval, which may break between the two only; a dash for no number."""
    if not row.here:
        return "–"

    scale, unit = (100, f"{SPACE}%") if in_percent else (1, "")
    value = number(scale * float(row.here), 3) + unit
    if not row.interval:
        return value

    low, high = (number(scale * float(end), 3) for end in row.interval.strip("[]").split(","))
    return f"{value} [{low},{SPACE}{high}]"
