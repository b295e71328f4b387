"""The claims table as readers see it: in a terminal and in Markdown."""

from collections.abc import Mapping

import pandas as pd

from sinkprune.evaluation.numbers import SPACE, markdown_table, number, p_text
from sinkprune.evaluation.verdict_rule import VERDICTS

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
EXPLAINED = (
    "± is the smallest difference that matters. p is that of a two-sided t test, corrected over the row's "
    "family (Holm). Undecided rows say the half-width of the interval, the smallest effect that the run "
    "could have seen (power 80 %), and the run that would decide."
)


def as_text(named: Mapping[str, pd.DataFrame]) -> str:
    """Return tables of the same claims for a terminal: of every claim a line of each, behind its name."""
    longest = max(map(len, VERDICTS))
    width = max(map(len, named))

    lines = []
    for claim, text in next(iter(named.values())).claim.items():
        lines.append(f"  {text}")
        for name, table in named.items():
            row = table.loc[claim]
            lines.append(f"      {name:<{width}}  {row.verdict:<{longest}}  {_with_interval(row)}")

    return "\n".join(lines)


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


def _with_interval(row: object) -> str:
    """Return a row's number with its interval, which may break between the two only; a dash for none."""
    if not row.here:
        return "–"
    low, high = (float(end) for end in row.interval.strip("[]").split(","))
    return f"{number(float(row.here), 3)} [{number(low, 3)},{SPACE}{number(high, 3)}]"
