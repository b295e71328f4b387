"""Titles of figures that say a conclusion: sentences that people wrote, in `titles.yml`.

They are templates as all pages are, and `holds` stops a sentence that presumes another verdict.
"""

from functools import cache

import yaml
from jinja2 import UndefinedError

from sinkprune_companion.pages.render import FOLDER, environment
from sinkprune_companion.pages.sources import PresumedVerdictError, Results, results_of
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.shown import PUBLISHED

FILE = FOLDER / "titles.yml"


@cache
def written() -> dict[str, dict[str, str]]:
    """Return the templates of all titles, by notebook and figure."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def rendered(notebook: str, figure: str, results: Results) -> str:
    """Return one written title with the numbers of a run.

    Raises jinja2.UndefinedError for a number that the run lacks, and PresumedVerdictError, which names the
    title, where it presumes another verdict than the run gives.
    """
    template = environment().from_string(written()[notebook][figure])
    try:
        return template.render(f=results.f, holds=results.holds).strip()
    except PresumedVerdictError as error:
        raise PresumedVerdictError(f"{FILE.name}, {notebook}/{figure}: {error}") from None


def title(run: Run, figure: str, plain: str) -> str:
    """Return the title of a figure by the findings that its run has written so far.

    It is the written sentence in a run of a published profile, as long as that has its numbers and the
    verdicts that it presumes; else `plain`, which presumes nothing.
    """
    if run.profile not in PUBLISHED or figure not in written().get(run.notebook, {}):
        return plain
    try:
        return rendered(run.notebook, figure, results_of(run.folder, run.notebook))
    except (PresumedVerdictError, UndefinedError):
        return plain
