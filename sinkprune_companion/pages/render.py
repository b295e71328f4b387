"""What pages and notebooks show of the results of a run: templates with numbers filled in, and tables."""

import html

import pandas as pd

from sinkprune.evaluation.numbers import amount, markdown_table
from sinkprune.evaluation.verdict_rule import CONTRADICTED, REPRODUCED
from sinkprune_companion.ledger.claims import CLAIM
from sinkprune_companion.ledger.published import published_averages
from sinkprune_companion.ledger.results import Results, results_for
from sinkprune_companion.ledger.tables import HEADS
from sinkprune_companion.pages.sources import by_prompt, published_rows
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.templates import render

# functions that templates may call
TABLES = {table.__name__: table for table in (by_prompt, published_averages, published_rows)}
# what templates know of results
RESULT_NAMES = (
    "f",
    "ledger",
    "verdict",
    "p_corrected",
    "estimate",
    "by_kind",
    "controls_of",
    "holds",
    "alone",
    "if_draws_counted",
    "unseen_draws",
    "unseen_sequences",
)
YES_OR_NO = {REPRODUCED: "yes", CONTRADICTED: "no"}  # on a question of our own
SHOWN_QUESTIONS = 12  # of our own, at most: a longer table is folded


def render_results(template: str, results: Results, **values: object) -> str:
    """Return the text of a template with `values` and what RESULT_NAMES names of results.

    Templates may call the functions in TABLES, which read published tables.
    """
    known = {name: getattr(results, name) for name in RESULT_NAMES}
    return render(template, **TABLES, **known, **values)


# what notebooks show


def results_table(run: Run) -> object:
    """Return, for a notebook to show, what its run has found: numbers and verdicts, and no sentence.

    These are the rows of the ledger that it decides, but for controls and questions without a number; and
    where it decides none, its findings.
    """
    from IPython.display import Markdown  # pages are written without it

    results = results_for(run)
    tables = _ledger_tables(run, results)
    if not tables:
        return Markdown(_table_of_numbers(run, results))

    words = "Beside the interval p decides, corrected for related rows (Holm)"
    if run.profile not in PUBLISHED:
        words += ", of which those of other notebooks count as not run"
    return Markdown("\n\n".join([*tables, f"{words}: [how a verdict is made](../docs/results.md)."]))


def _ledger_tables(run: Run, results: Results) -> list[str]:
    """Return the rows of the ledger that a notebook decides: the paper's claims, then our own questions."""
    claimed = []
    asked = []
    for claim in results.ledger:
        estimate = results.estimate.get(claim.id)
        is_shown = claim.notebook == run.notebook and (claim.kind == CLAIM or estimate)
        if not is_shown:
            continue
        verdict = results.verdict[claim.id]
        number_of = amount(estimate) if estimate else "–"
        if claim.kind == "question":  # of our own, so there is nothing to reproduce
            asked.append([claim.says, YES_OR_NO.get(verdict, verdict), number_of])
        else:
            claimed.append([HEADS.get(claim.kind, "") + claim.says, verdict, number_of])

    tables = []
    columns = ["verdict", "number [95 % interval]"]
    if claimed:
        tables.append(markdown_table(["claim", *columns], claimed))
    if asked:
        table = markdown_table(["our question", *columns], asked)
        if len(asked) > SHOWN_QUESTIONS:
            summary = f"<summary>{len(asked)} questions of our own</summary>"
            table = f"<details>{summary}\n\n{table}\n\n</details>"
        tables.append(table)
    return tables


def _table_of_numbers(run: Run, results: Results) -> str:
    """Return the findings of a notebook that decides no row of the ledger."""
    prefix = f"{run.notebook}/"
    rows = [
        [f"`{name.removeprefix(prefix)}`", amount(estimate)]
        for name, estimate in results.estimates.items()
        if name.startswith(prefix)
    ]
    return markdown_table(["finding", "number [95 % interval]"], rows)


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
