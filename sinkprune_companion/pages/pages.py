"""The pages that are computed: those in docs that are written from tables, and README's blocks.

`python -m sinkprune_companion.pages.pages` writes them; a test checks that they are in step.
Results are the published findings, in `figures/findings`.
"""

from pathlib import Path

from sinkprune_companion.ledger import claims
from sinkprune_companion.pages import readme
from sinkprune_companion.pages.figures_page import figures_page
from sinkprune_companion.pages.models_page import models_page
from sinkprune_companion.pages.more_text_page import more_text_page
from sinkprune_companion.pages.performance_page import performance_page
from sinkprune_companion.pages.results_page import results_page
from sinkprune_companion.pages.trainings_page import trainings_page
from sinkprune_core.files import atomic, project_root


def pages() -> dict[str, str]:
    """Return the text of every computed page by its path in the repository.

    Raises ValueError where README lacks the markers that its blocks stand between.
    """
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    ledger = claims.ledger()
    found = claims.findings(project_root() / "figures")
    return {
        "docs/results.md": results_page(ledger, found),
        "docs/claims_to_figures.md": figures_page(ledger),
        "docs/models.md": models_page(),
        "docs/performance.md": performance_page(),
        "docs/trainings.md": trainings_page(),
        "docs/more_text.md": more_text_page(),
        "README.md": readme.with_blocks(text, readme.blocks(ledger, found)),
    }


def write() -> list[Path]:
    """Write all pages; return their files."""
    files = []
    for name, text in pages().items():
        file = project_root() / name
        with atomic(file) as partial:
            partial.write_text(text, encoding="utf-8")
        files.append(file)
    return files


if __name__ == "__main__":
    for written in write():
        print(written.relative_to(project_root()))
