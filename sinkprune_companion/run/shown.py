"""How a notebook shows its reading: plain sentences first, the table of all numbers folded beneath."""

import html
from collections.abc import Iterable

import pandas as pd
from IPython.display import Markdown


def sentences(said: Iterable[str]) -> Markdown:
    """Return a reading as a notebook shows it, a bullet per sentence."""
    return Markdown("\n".join(f"- {sentence}" for sentence in said))


class Folded:
    """A table that a notebook shows when its summary is clicked; without HTML it is printed as it is."""

    def __init__(self, table: pd.DataFrame, summary: str = "All numbers"):
        self.table = table
        self.summary = summary

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        summary = html.escape(self.summary)
        with pd.option_context("display.max_rows", None, "display.max_colwidth", None):
            inside = self.table.to_html()
            plain = self.table.to_string()
        return {
            "text/html": f"<details><summary>{summary}</summary>{inside}</details>",
            "text/plain": f"{self.summary}\n{plain}",
        }
