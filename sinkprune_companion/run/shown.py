"""How a notebook shows what it found: a reading, and long tables folded."""

import html

import pandas as pd
from IPython.display import Markdown
from jinja2 import UndefinedError

from sinkprune_companion.ledger.claims import CLAIM
from sinkprune_companion.ledger.tables import HEADS
from sinkprune_companion.numbers import amount, markdown_table
from sinkprune_companion.pages.render import render_results
from sinkprune_companion.pages.sources import PresumedVerdictError, Results, results_of
from sinkprune_companion.run.records import Run

UNFIT = "The written reading does not fit this run."
PUBLISHED = ("full", "evidence")  # profiles whose results the written sentences speak of


def reading(run: Run) -> Markdown:
    """Return what a notebook found, from the findings that its run has written.

    A run of a published profile has the sentences of `pages/readings`, as long as it has their numbers
    and the verdicts that they presume. Every run has the table of the ledger's rows that it decides; one with
    neither has a table of its numbers.
    """
    results = results_of(run.folder)
    parts = []
    if run.profile in PUBLISHED:
        beside = results_of(run.folder, run.notebook)
        try:
            parts.append(render_results(f"readings/{run.notebook}.md.j2", beside))
        except (PresumedVerdictError, UndefinedError) as error:
            parts.append(f"{UNFIT} {error}.")
    is_read = bool(parts) and not parts[0].startswith(UNFIT)
    parts.append(claims_of_notebook(run.notebook, results))
    if not parts[-1] and not is_read:
        parts.append(numbers_of_notebook(run.notebook, results))
    return Markdown("\n\n".join(filter(None, parts)))


def claims_of_notebook(notebook: str, results: Results) -> str:
    """Return a table of the ledger's rows that a notebook decides, empty where there is none.

    Controls and questions without a number are left out.
    """
    rows = []
    for claim in results.ledger:
        estimate = results.estimate.get(claim.id)
        if claim.notebook == notebook and (claim.kind == CLAIM or estimate is not None):
            says = HEADS.get(claim.kind, "") + claim.says
            rows.append([says, results.verdict[claim.id], "–" if estimate is None else amount(estimate)])
    if not rows:
        return ""
    table = markdown_table(["claim", "verdict", "number [95 % interval]"], rows)
    return f"{table}\n\n[How a verdict is made](../docs/results.md)"


def numbers_of_notebook(notebook: str, results: Results) -> str:
    """Return a table of the findings of a notebook."""
    prefix = f"{notebook}/"
    estimates = {name: one for name, one in results.estimates.items() if name.startswith(prefix)}
    rows = [[f"`{name.removeprefix(prefix)}`", amount(estimate)] for name, estimate in estimates.items()]
    return markdown_table(["finding", "number [95 % interval]"], rows)


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
