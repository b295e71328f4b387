"""Build the site: gather the project's own pages in `build/site-source`, then let Sphinx write `build/site`.

Nothing is written twice: README.md makes the front page and the one behind it, the notebooks keep their
stored outputs, the claims are those of the published findings. Files that pages link to travel with the site,
so it works from a folder and below any address. A link that leads nowhere stops the build. No network is
used.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import api_pages
import figure_pages
import nbformat
import pandas as pd
from links import Links
from mdit_py_plugins.anchors.index import slugify

from sinkprune.evaluation.numbers import amount, markdown_table, number, p_text
from sinkprune.models.weight_files import read_json
from sinkprune_companion.figures import step_views
from sinkprune_companion.ledger.results import results_of
from sinkprune_companion.ledger.tables import HEADS

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build"
EXPLORER = "figures/01_do_sinks_move/explorer_steps.json"
SHOWN_FIRST = "The claims of the paper"  # the one section of README that stands on the front page
FURTHER = "further.md"  # the page of the others
READ = "Read"  # captions of the navigation
LOOK = "Look closer"
USE = "Use and extend"
KEEP = "Maintain"
UPKEEP = ["docs/results_history.md", "CONTRIBUTING.md", "CHANGELOG.md"]
DATA = "Models and data that ship"


def project_pages(root: Path) -> dict[str, Path]:
    """Return the project's own Markdown pages: where each stands in the site, and its file."""
    pages = {}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        pages[name] = root / name
    for file in [
        *sorted((root / "docs").glob("*.md")),
        *sorted(root.glob("sinkprune*/data/**/README.md")),
    ]:
        pages[file.relative_to(root).as_posix()] = file
    return pages


def navigation(sections: dict[str, list[str]]) -> str:
    """Return hidden tables of contents for the front page, by caption: they make the navigation."""
    parts = []
    for caption, names in sections.items():
        lines = "\n".join(name.removesuffix(".md").removesuffix(".ipynb") for name in names)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```")
    return "\n\n".join(parts)


def stage(target: Path, root: Path = ROOT) -> None:
    """Write the sources of all pages to `target/pages`, and the files that they link to to `target/files`."""
    shutil.rmtree(target, ignore_errors=True)
    pages = project_pages(root)
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    read = [f"notebooks/{file.name}" for file in notebooks]
    made = ["claims.md", "figures.md", "explorer.md"]
    library = api_pages.pages(root)
    figures = figure_pages.all_figures(root)
    cells = {figure.picture: figure.place for every in figures.values() for figure in every}
    front, further, moved = split_readme((root / "README.md").read_text(encoding="utf-8"))
    links = Links(root, target, ["index.md", FURTHER, *pages, *read, *made, *library], cells, moved)
    texts = {FURTHER: links.rewritten(further, FURTHER, "README.md")}
    for name, file in pages.items():
        text = links.rewritten(file.read_text(encoding="utf-8"), name)
        texts[name] = figure_pages.below_pictures(text, name, figures, links)
    texts["claims.md"] = claims_page(root, links)
    texts["figures.md"] = figure_pages.gallery(root, figures, links)
    texts["explorer.md"] = explorer_page(root / EXPLORER, links)
    texts |= library
    docs = [name for name in pages if name.startswith("docs/") and name not in UPKEEP]
    cards = [name for name in pages if name.startswith("sinkprune")]
    sections = {
        READ: [FURTHER, *read],
        LOOK: made,
        USE: [*docs, "api/index.md"],
        KEEP: UPKEEP,
        DATA: cards,
    }
    texts["index.md"] = f"{links.rewritten(front, 'index.md')}\n\n{navigation(sections)}\n"
    for name, text in texts.items():
        write(target / "pages" / name, figure_pages.PERCENT.sub("\N{NO-BREAK SPACE}%", text))
    for file in notebooks:
        notebook = figure_pages.with_sources(nbformat.read(file, 4), file.stem, figures, links)
        write(target / "pages" / "notebooks" / file.name, nbformat.writes(notebook))


def write(file: Path, text: str) -> None:
    """Write a text file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def split_readme(text: str) -> tuple[str, str, dict[str, str]]:
    """Return README's first screen with its claims, the rest of it, and where headings of the rest stand."""
    text = re.sub(r"\]\((?=#)", "](README.md", text)  # `Links` knows on which page a heading is
    first, *sections = re.split(r"(?m)^(?=## )", text)
    titled = {section.splitlines()[0].removeprefix("## "): section for section in sections}

    explorer = (HERE / "pages" / "to_explorer.md").read_text(encoding="utf-8")
    front = f"{first}{explorer}\n{titled.pop(SHOWN_FIRST)}"
    further = (HERE / "pages" / FURTHER).read_text(encoding="utf-8")
    return front, "\n".join([further, *titled.values()]), {slugify(title): FURTHER for title in titled}


def claims_page(root: Path, links: Links) -> str:
    """Return the page of all claims, whose table a script makes sortable."""
    results = results_of(root / "figures")
    heads = {"condition": "*under a condition:* "} | HEADS
    rows = []
    for row in results.table.itertuples():
        estimate = results.estimate.get(row.Index)
        notes = [row.metric, row.note]
        if estimate is not None:
            margin = "" if pd.isna(row.margin) else f"± {number(row.margin)} is too small to matter"
            notes += [margin, f"p {p_text(row.p_holm)}"]
        notebook = f"notebooks/{row.notebook}.ipynb"
        if row.notebook and (root / notebook).exists():
            notes.append(f"[notebook {row.notebook[:2]}](../../{notebook})")
        number_here = "–" if estimate is None else amount(estimate)
        note = "; ".join(part for part in notes if part)
        rows.append([heads.get(row.kind, "") + row.claim, row.verdict, number_here, note])
    text = (HERE / "pages" / "claims.md").read_text(encoding="utf-8")
    table = markdown_table(["claim", "verdict", "here [95 % interval]", "note"], rows)
    return links.rewritten(text.replace("{table}", table), "claims.md")


def explorer_page(data: Path, links: Links) -> str:
    """Return the page on which sinks are explored step by step, with its data."""
    text = (HERE / "pages" / "explorer.md").read_text(encoding="utf-8")
    text = links.rewritten(text, "explorer.md")
    fragment = step_views.fragment("explorer", read_json(data))
    sources = [
        f'<a href="{links.copied(path)}">{says}</a>'
        for path, says in ((EXPLORER, "data (JSON)"), (EXPLORER.replace("_steps", ""), "provenance (JSON)"))
    ]
    below = f'<p class="figure-sources">explorer: {" · ".join(sources)}</p>'
    return text.replace("{explorer}", f"```{{raw}} html\n{fragment}```\n\n{below}")


def main() -> int:
    """Build the site and print where it begins; return Sphinx's exit status."""
    source = BUILD / "site-source"
    stage(source)
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE)]
    command += ["-d", str(BUILD / "site-doctrees"), str(source / "pages"), str(BUILD / "site")]
    status = subprocess.run(command, env={**os.environ, "SITE_FILES": str(source / "files")}).returncode
    if status == 0:
        print(f"the site begins at {(BUILD / 'site' / 'index.html').relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
