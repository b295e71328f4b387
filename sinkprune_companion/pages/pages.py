"""The pages of the repository that are rendered from templates, and the readings of notebooks.

`python -m sinkprune_companion.pages` writes them from the published findings, in `figures/findings`; a test
checks that they are in step.
"""

from pathlib import Path

from sinkprune_companion import project_root
from sinkprune_companion.experiments import compute
from sinkprune_companion.figures import headline
from sinkprune_companion.ledger import others, published
from sinkprune_companion.pages import sources, titles
from sinkprune_companion.pages.render import render_results
from sinkprune_companion.run import address, run_costs
from sinkprune_core.calibration import dense_statistics
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.files import atomic
from sinkprune_core.models import catalog, hub

PAGES = {
    "README.md": "readme.md.j2",
    "docs/results.md": "results.md.j2",
    "docs/claims_to_figures.md": "claims_to_figures.md.j2",
    "docs/models.md": "models.md.j2",
    "docs/performance.md": "performance.md.j2",
    "docs/trainings.md": "trainings.md.j2",
}
READINGS = Path(__file__).parent / "readings"


def pages(folder: Path) -> dict[str, str]:
    """Return the text of every page by its path in the repository, from the findings of a run in `folder`.

    Raises PresumedVerdictError where a sentence, of a page, a notebook's reading or a figure's title,
    presumes a verdict that a claim does not have by these findings.
    """
    results = sources.results_of(folder)
    for file in sorted(READINGS.glob("*.j2")):
        render_results(f"{READINGS.name}/{file.name}", results)
    for notebook, figures in titles.WRITTEN.items():
        for figure in figures:
            titles.rendered(notebook, figure, results)
    known = {
        "catalog": catalog,
        "compute": compute,
        "dense_statistics": dense_statistics,
        "exclude": EXCLUDE,
        "figures": sources.figures_by_finding(),
        "hub": hub,
        "others": others,
        "published": published,
        "run_costs": run_costs,
        "sources": sources,
    }
    texts = {name: render_results(template, results, **known) for name, template in PAGES.items()}
    badges = address.address(project_root())  # of the repository, if it has one
    texts["README.md"] = address.with_badges(texts["README.md"], address.FIRST, badges)
    return texts


def write() -> list[Path]:
    """Write all pages, and README's figure, from the published findings; return their files."""
    root = project_root()
    files = headline.save(sources.results_of(root / "figures").f, root)
    for name, text in pages(root / "figures").items():
        with atomic(root / name) as partial:
            partial.write_text(text, encoding="utf-8")
        files.append(root / name)
    return files
