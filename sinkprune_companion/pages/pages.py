"""The pages that `python -m sinkprune_companion.pages` writes from templates and the published findings:
README, pages of docs/, and what notebooks say in whole sentences.
"""

from pathlib import Path

from sinkprune.files import atomic
from sinkprune.models import catalog, hub
from sinkprune_companion import project_root
from sinkprune_companion.experiments import compute
from sinkprune_companion.figures import claims_strip
from sinkprune_companion.figures.published import save_published
from sinkprune_companion.figures.titles import TITLES, rendered_title
from sinkprune_companion.ledger import others, published
from sinkprune_companion.ledger.results import results_of
from sinkprune_companion.pages import sources
from sinkprune_companion.pages.notebook_cells import notebook_texts
from sinkprune_companion.pages.render import render_results
from sinkprune_core.calibration import dense_statistics
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.pruning.recipe import PRESETS, preset

IN_DOCS = ("results", "controls", "models", "performance", "trainings", "pruning")
READ_FROM = (
    catalog,
    claims_strip,
    compute,
    dense_statistics,
    hub,
    others,
    published,
    sources,
)  # by templates


def pages(folder: Path) -> dict[str, str]:
    """Return the text of every page by its path in the repository, from the findings of a run in `folder`.

    Notebooks are pages, too, with the outputs that they have. Raises PresumedVerdictError where a sentence,
    of a page, of a notebook or of a figure's title, presumes a verdict that a claim does not have by these
    findings.
    """
    root = project_root()
    results = results_of(folder)
    texts = notebook_texts(root, results)
    for notebook, figures in TITLES.items():
        for figure in figures:
            rendered_title(notebook, figure, results)

    known = {module.__name__.rpartition(".")[2]: module for module in READ_FROM}
    known |= {"exclude": EXCLUDE, "figures": sources.figures_by_finding()}
    known |= {"preset": preset, "presets": {name: preset(name) for name in PRESETS}}
    texts["README.md"] = render_results("readme.md.j2", results, **known)
    return texts | {f"docs/{name}.md": render_results(f"{name}.md.j2", results, **known) for name in IN_DOCS}


def write() -> list[Path]:
    """Write all pages, and the pictures on them, from the published findings; return their files."""
    root = project_root()
    files = save_published(results_of(root / "figures"), root)
    for name, text in pages(root / "figures").items():
        with atomic(root / name) as partial:
            partial.write_text(text, encoding="utf-8")
        files.append(root / name)
    return files
