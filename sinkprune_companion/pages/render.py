"""Render a page that somebody wrote: a Jinja2 template in this folder, with numbers filled in.

A number has a filter: `{{ f["03/paper_minus_wanda"] | amount("nats") }}`. A sentence that presumes a
verdict says so beside it: `{{ holds("paper-beats-wanda", "contradicted") }}` prints nothing, and rendering
stops where the verdict is another one. Then a person writes a new sentence.
"""

import traceback
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.numbers import amount, count, number, percent, signed
from sinkprune_companion.pages.sources import PresumedVerdictError, Results
from sinkprune_core.evaluation.intervals import Estimate

FOLDER = Path(__file__).parent


def cell(text: object) -> str:
    """Return a text as a cell of a Markdown table: one line, vertical bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def damage(estimate: Estimate) -> float | None:
    """Return what a comparison's baseline costs above the dense model; its margin is a share of that."""
    return None if estimate.margin is None else estimate.margin / share_that_matters()


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
    for helper in (amount, count, number, percent, signed, cell, damage, gigabytes):
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
    """Return the text of a template that knows `values`, and `f`, `ledger`, … and `holds` of the results."""
    known = {name: getattr(results, name) for name in ("f", "ledger", "verdict", "estimate", "holds")}
    return render(template, **known, **values)
