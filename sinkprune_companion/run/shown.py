"""How a notebook shows what it found: a reading, and long tables folded."""

import html

import pandas as pd
from IPython.display import Markdown
from jinja2 import UndefinedError

from sinkprune_companion.ledger.claims import CLAIM
from sinkprune_companion.ledger.tables import HEADS
from sinkprune_companion.numbers import amount, markdown_table
from sinkprune_companion.pages.render import render_results
from sinkprune_companion.pages.sources import PresumedVerdictError, results_of
from sinkprune_companion.run.records import Run

PUBLISHED = ("full", "evidence")  # profiles whose results the written sentences speak of


def reading(run: Run) -> Markdown:
    """Return what a notebook found, from the findings that its run has written: of a published profile the
    sentences of `pages/readings`, where they fit; the ledger's rows that it decides, controls and questions
    without a number left out; and where there is neither, its numbers.
    """
    results = results_of(run.folder)
    parts = []
    is_read = False
    if run.profile in PUBLISHED:
        beside = results_of(run.folder, run.notebook)
        try:
            parts.append(render_results(f"readings/{run.notebook}.md.j2", beside))
            is_read = True
        except (PresumedVerdictError, UndefinedError) as error:
            parts.append(f"The written reading does not fit this run. {error}.")
    rows = []
    for claim in results.ledger:
        estimate = results.estimate.get(claim.id)
        if claim.notebook == run.notebook and (claim.kind == CLAIM or estimate is not None):
            says = HEADS.get(claim.kind, "") + claim.says
            rows.append([says, results.verdict[claim.id], "–" if estimate is None else amount(estimate)])
    if rows:
        parts.append(markdown_table(["claim", "verdict", "number [95 % interval]"], rows))
        parts.append("[How a verdict is made](../docs/results.md)")
    elif not is_read:
        prefix = f"{run.notebook}/"
        own = [(name, one) for name, one in results.estimates.items() if name.startswith(prefix)]
        rows = [[f"`{name.removeprefix(prefix)}`", amount(estimate)] for name, estimate in own]
        parts.append(markdown_table(["finding", "number [95 % interval]"], rows))
    return Markdown("\n\n".join(parts))


class Folded:
    """A table that a notebook shows when its summary is clicked; without HTML it is printed as it is."""

    def __init__(self, table: pd.DataFrame, summary: str = "All numbers"):
        self.table = table
        self.summary = summary

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        summary = f"<summary>{html.escape(self.summary)}</summary>"
        with pd.option_context("display.max_rows", None, "display.max_colwidth", None):
            return {
                "text/html": f"<details>{summary}{self.table.to_html()}</details>",
                "text/plain": f"{self.summary}\n{self.table.to_string()}",
            }
