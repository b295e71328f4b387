"""The pages that `python -m sinkprune_companion.pages` writes from templates and the published findings, and
the badges of README and of notebooks, which `tools/address.py` puts there.
"""

import re
import tomllib
from pathlib import Path

from sinkprune.cli.options import commands
from sinkprune.files import atomic
from sinkprune.models import catalog, hub
from sinkprune_companion import project_root
from sinkprune_companion.experiments import compute
from sinkprune_companion.figures.headline import save_headline
from sinkprune_companion.ledger import others, published
from sinkprune_companion.pages import sources
from sinkprune_companion.pages.render import FOLDER, TITLES, render_results, rendered_title
from sinkprune_core.calibration import dense_statistics
from sinkprune_core.calibration.token_weights import EXCLUDE

IN_DOCS = ("results", "models", "performance", "trainings")
READ_FROM = (catalog, compute, dense_statistics, hub, others, published, sources)  # by templates
REF = "main"  # the branch that badges and links lead to; the tag of a release once it is pushed
ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
BADGES = re.compile(r"\n\[!\[Open in Colab\]\(.*\n\[!\[Open in Binder\]\(.*\n")
FIRST = "00_start_here"


def pages(folder: Path) -> dict[str, str]:
    """Return the text of every page by its path in the repository, from the findings of a run in `folder`.

    Raises PresumedVerdictError where a sentence, of a page, a notebook's reading or a figure's title,
    presumes a verdict that a claim does not have by these findings.
    """
    results = sources.results_of(folder)
    for file in sorted(FOLDER.glob("readings/*.j2")):
        render_results(f"readings/{file.name}", results)
    for notebook, figures in TITLES.items():
        for figure in figures:
            rendered_title(notebook, figure, results)
    known = {module.__name__.rpartition(".")[2]: module for module in READ_FROM}
    known |= {"exclude": EXCLUDE, "figures": sources.figures_by_finding(), "commands": commands()}
    readme = render_results("readme.md.j2", results, **known)
    texts = {"README.md": with_badges(readme, FIRST, address(project_root()))}
    return texts | {f"docs/{name}.md": render_results(f"{name}.md.j2", results, **known) for name in IN_DOCS}


def write() -> list[Path]:
    """Write all pages, and README's figure, from the published findings; return their files."""
    root = project_root()
    files = save_headline(sources.results_of(root / "figures").f, root)
    for name, text in pages(root / "figures").items():
        with atomic(root / name) as partial:
            partial.write_text(text, encoding="utf-8")
        files.append(root / name)
    return files


# the repository's address


def address(root: Path) -> str:
    """Return the repository's address from pyproject.toml; an empty text before there is one."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def with_badges(text: str, notebook: str, url: str) -> str:
    """Return a page with the badges that open a notebook below its title, or without any."""
    text = BADGES.sub("", text)
    if not url or not text.startswith("# "):
        return text
    name = ADDRESS.fullmatch(url)[1]
    file = f"notebooks/{notebook}.ipynb"
    colab = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{name}/blob/{REF}/{file})"
    binder = (
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{name}/{REF}?urlpath=lab/tree/{file})"
    )
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{colab}\n{binder}\n{rest}"
