"""Titles of figures that say a conclusion: templates that people wrote, in `titles.yml`."""

from contextlib import suppress

import yaml
from jinja2 import UndefinedError

from sinkprune_companion.pages.render import FOLDER, environment
from sinkprune_companion.pages.sources import PresumedVerdictError, Results, results_of
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.shown import PUBLISHED

WRITTEN = yaml.safe_load((FOLDER / "titles.yml").read_text(encoding="utf-8"))  # by notebook and figure


def rendered(notebook: str, figure: str, results: Results) -> str:
    """Return one written title with the numbers of a run; errors are those of `render`."""
    template = environment().from_string(WRITTEN[notebook][figure])
    try:
        return template.render(f=results.f, holds=results.holds).strip()
    except PresumedVerdictError as error:
        raise PresumedVerdictError(f"titles.yml, {notebook}/{figure}: {error}") from None


def title(run: Run, figure: str, plain: str) -> str:
    """Return the written title of a figure, by the findings that its run has so far; `plain`, which presumes
    nothing, where the profile is not published or the run lacks the numbers or verdicts that it presumes.
    """
    if run.profile in PUBLISHED and figure in WRITTEN.get(run.notebook, {}):
        with suppress(PresumedVerdictError, UndefinedError):
            return rendered(run.notebook, figure, results_of(run.folder, run.notebook))
    return plain
