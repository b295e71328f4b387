"""Render what somebody wrote, pages and titles of figures: Jinja2 templates with numbers filled in.

A number has a filter: `{{ f["03/paper_minus_wanda"] | amount("nats") }}`. A sentence that presumes a
verdict says so beside it: `{{ holds("paper-beats-wanda", "contradicted") }}` prints nothing, and rendering
stops where the verdict is another one. Then a person writes a new sentence.
"""

import html
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from matplotlib.figure import Figure

from sinkprune.evaluation.numbers import amount, count, markdown_table, number, p_text, percent, signed
from sinkprune.evaluation.verdict_rule import (
    CONTRADICTED,
    DEPENDS,
    NO_DIFFERENCE,
    NOT_DONE,
    NOT_RUN,
    REPRODUCED,
    TOO_FEW_DRAWS,
    UNDECIDED,
)
from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.ledger.claims import CLAIM
from sinkprune_companion.ledger.margins import damage
from sinkprune_companion.ledger.published import published_averages
from sinkprune_companion.ledger.tables import HEADS
from sinkprune_companion.pages.sources import (
    PresumedVerdictError,
    Results,
    by_prompt,
    published_rows,
    results_for,
)
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run

FOLDER = Path(__file__).parent
TITLES = yaml.safe_load((FOLDER / "titles.yml").read_text(encoding="utf-8"))  # by notebook and figure
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
GLYPHS = {
    REPRODUCED: "✔",
    CONTRADICTED: "✘",
    NO_DIFFERENCE: "≈",
    DEPENDS: "⇄",
    UNDECIDED: "?",
    TOO_FEW_DRAWS: "?",
    NOT_DONE: "–",
    NOT_RUN: "–",
}
YES_OR_NO = {REPRODUCED: "yes", CONTRADICTED: "no"}  # on a question of our own
SHOWN_QUESTIONS = 12  # of our own, at most: a longer table is folded


def cell(text: object) -> str:
    """Return a text as a cell of a Markdown table: one line, vertical bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def marked(verdict: str) -> str:
    """Return a verdict on a claim behind its sign."""
    return f"{GLYPHS[verdict]} {verdict}"


def p_value(p: float) -> str:
    """Return a p-value with the sign between the letter p and the number, as in `p = 0.02`."""
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def gigabytes(size: float) -> str:
    """Return a number of bytes in gigabytes."""
    return f"{count(size / 1e9)} GB"


def environment() -> Environment:
    """Return the environment of all templates: an unknown name is an error, lines of statements vanish."""
    made = Environment(
        loader=PackageLoader("sinkprune_companion", "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )

    for helper in (amount, count, number, percent, signed, cell, damage, gigabytes, marked, p_text, p_value):
        made.filters[helper.__name__] = helper

    return made


def render(template: str, **values: object) -> str:
    """Return the text of a template of this folder, e.g. `card.md.j2`, with `values` filled in.

    Raises jinja2.UndefinedError for a name that has no value, PresumedVerdictError, which names file and
    line, where `holds` finds another verdict than a sentence presumes.
    """
    try:
        return environment().get_template(template).render(values)
    except PresumedVerdictError as error:
        frames = traceback.extract_tb(error.__traceback__)
        *_, innermost = (frame for frame in frames if frame.filename.endswith(".j2"))
        file = Path(innermost.filename).relative_to(FOLDER.parent)
        raise PresumedVerdictError(f"{file.as_posix()}:{innermost.lineno}: {error}") from None


def render_results(template: str, results: Results, **values: object) -> str:
    """Return the text of a template with `values` and what RESULT_NAMES names of results.

    Templates may call the functions in TABLES, which read published tables.
    """
    known = {name: getattr(results, name) for name in RESULT_NAMES}
    return render(template, **TABLES, **known, **values)


# what notebooks show


def rendered_title(notebook: str, figure: str, results: Results) -> str:
    """Return the written title of a figure with the numbers of a run; errors are those of `render`."""
    template = environment().from_string(TITLES[notebook][figure])
    try:
        return template.render(f=results.f, holds=results.holds, verdict=results.verdict).strip()
    except PresumedVerdictError as error:
        raise PresumedVerdictError(f"titles.yml, {notebook}/{figure}: {error}") from None


def title(run: Run, figure: str, plain: str) -> str:
    """Return the written title of a figure, by what `results_for` gives of a run that goes on.

    It is `plain`, which presumes nothing, where the profile is not published or where numbers or verdicts are
    missing that the written title presumes.
    """
    is_written = run.profile in PUBLISHED and figure in TITLES.get(run.notebook, {})
    if not is_written:
        return plain

    with suppress(PresumedVerdictError, UndefinedError):
        return rendered_title(run.notebook, figure, results_for(run))

    return plain


def draw(
    run: Run,
    figure: str,
    plain: str,
    plot: Callable[..., Figure],
    *given: object,
    data: pd.DataFrame,
    caption: str,
    **options: object,
) -> Figure:
    """Draw a figure, `plot(*given, title=..., **options)`, keep it with its data, and return it to be shown.

    Its title is the written one, or `plain`, as `title` says; the title ends the caption, too.
    """
    says = title(run, figure, plain)
    return save_figure(run, plot(*given, title=says, **options), figure, data, f"{caption}. {says}")


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
