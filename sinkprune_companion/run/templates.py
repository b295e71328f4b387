"""Templates, in Jinja2, that somebody wrote for a reader, with numbers filled in.

A number has a filter: `{{ f["03/paper_minus_wanda"] | amount("nats") }}`. A sentence that presumes a
verdict says so beside it: `{{ holds("paper-beats-wanda", "contradicted") }}` prints nothing, and rendering
stops where the verdict is another one. Then a person writes a new sentence.
"""

import traceback
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sinkprune.evaluation.numbers import amount, count, number, p_text, percent, signed
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
from sinkprune_companion import DATA
from sinkprune_companion.margins import damage

FOLDER = DATA.parent / "pages"  # of the templates
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


class PresumedVerdictError(ValueError):
    """A sentence presumes a verdict that a claim does not have."""


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
