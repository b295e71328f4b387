"""The claims table as the pages show it."""

import pandas as pd

from sinkprune_companion.ledger.tables import EXPLAINED, as_markdown
from sinkprune_core.evaluation.verdict_rule import VERDICTS


def counted(table: pd.DataFrame, what: str) -> str:
    """Return one sentence: how many of the rows of a table have which verdict."""
    counts = table.verdict.value_counts()
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    return f"Of {len(table)} {what}: {', '.join(parts)}."


def by_verdict(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of the verdicts, and of the ledger where these are the same."""
    return table.sort_values("verdict", key=lambda column: column.map(VERDICTS.index), kind="stable")


def by_kind(table: pd.DataFrame) -> str:
    """Return all rows in Markdown for a page in docs: the paper's, then controls, then those by others.

    Each kind has its count above it, and its rows in the order of the verdicts.
    """
    parts = []
    for kind, what in (
        ("claim", "claims of the paper"),
        ("control", "controls of ours"),
        ("others", "comparisons by others, at 8B"),
    ):
        rows = by_verdict(table[table.kind == kind])
        if len(rows):
            parts += [f"**{counted(rows, what)}**", as_markdown(rows, "../")]
    turned = table[table.turned != ""]
    if len(turned):
        lines = [f"* {row.claim}: {row.turned}" for row in turned.itertuples()]
        parts.append("Verdicts that turned because the measure had been wrong:\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, EXPLAINED])
