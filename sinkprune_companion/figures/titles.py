"""Titles of figures: written ones with the numbers of a run, where what they presume holds."""

from collections.abc import Callable
from contextlib import suppress

import pandas as pd
import yaml
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.ledger.results import Results, results_for
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.templates import FOLDER, PresumedVerdictError, environment

TITLES = yaml.safe_load((FOLDER / "titles.yml").read_text(encoding="utf-8"))  # by notebook and figure


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
