"""The claims table as readers see it: in a terminal and in Markdown."""

from typing import TYPE_CHECKING

import pandas as pd

from sinkprune_companion.ledger.verdict_rule import VERDICTS
from sinkprune_companion.numbers import SPACE, number, p_text
from sinkprune_core.tables import markdown_table

if TYPE_CHECKING:
    from sinkprune_companion.ledger.claims import LedgerChange

HEADS = {"control": "*control:* ", "others": "*by others:* "}  # of a claim, by kind of row
COLUMNS = (
    "id",
    "claim",
    "kind",
    "family",
    "metric",
    "published",
    "here",
    "interval",
    "claimed",
    "verdict",
    "margin",
    "p_holm",
    "half_width",
    "smallest_effect",
    "error_draws",
    "error_sequences",
    "note",
    "first_verdict",
    "turned",
    "notebook",
)  # of the table
EXPLAINED = (
    "± is the smallest difference that matters, fixed before the run. p is that of a normal mean with this "
    "interval, two-sided, corrected over the row's family (Holm). Undecided rows say the half-width of the "
    "interval, the smallest effect that the run could have seen (power 80 %), and the run that would decide."
)


def as_text(table: pd.DataFrame, width: int = 60) -> str:
    """Return the table for a terminal, claims cut to `width` characters."""
    longest = max(map(len, VERDICTS))
    lines = []
    for row in table.itertuples():
        says = row.claim if len(row.claim) <= width else row.claim[: width - 1] + "…"
        lines.append(f"  {row.verdict:<{longest}} {says:<{width}} {row.here:>9} {row.interval}")
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table in Markdown, with kinds marked.

    Claim, verdict and number come first, so that they are what a narrow screen shows; an interval stays on
    one line.
    """
    rows = []
    for row in table.itertuples():
        notes = [row.note, f"turned: {row.turned}" if row.turned else ""]
        rows.append(
            [
                HEADS.get(row.kind, "") + row.claim,
                row.verdict,
                _with_interval(row),
                "–" if pd.isna(row.margin) else number(row.margin),
                p_text(row.p_holm),
                "; ".join(note for note in notes if note) or "–",
                row.metric,
            ]
        )
    return markdown_table(["claim", "verdict", "here (95 % interval)", "±", "p", "note", "measured"], rows)


def _with_interval(row: object) -> str:
    """Return a row's number with its interval, which may break between the two only; a dash for none."""
    if not row.here:
        return "–"
    low, high = (float(end) for end in row.interval.strip("[]").split(","))
    return f"{number(float(row.here), 3)} [{number(low, 3)},{SPACE}{number(high, 3)}]"


def history_text(changes: "list[LedgerChange]") -> str:
    """Return the changes of the ledger after results had been seen, as a list in Markdown."""
    lines = [
        f"* {change.date}: {change.changed} {change.why} Seen by then: {change.seen}" for change in changes
    ]
    return "\n".join(lines)


def then_and_now(table: pd.DataFrame) -> str:
    """Return how many rows had which verdict by the first results and have which now, in Markdown.

    Rows that were not there then are left out. The rule is today's for both.
    """
    known = table[table.first_verdict != ""]
    counts = pd.crosstab(known.first_verdict, known.verdict)
    counts = counts.reindex(index=VERDICTS, columns=VERDICTS, fill_value=0)
    rows = [[f"then {name}", *counts.loc[name]] for name in VERDICTS if counts.loc[name].any()]
    return markdown_table(["rows", *(f"now {name}" for name in VERDICTS)], rows)


def without_row_text(names: list[str]) -> str:
    """Return one sentence on the findings away from zero that no row of the ledger reads."""
    if not names:
        return "Every finding whose interval leaves zero out has a row."
    return f"Findings whose interval leaves zero out and that have no row: {', '.join(names)}."
