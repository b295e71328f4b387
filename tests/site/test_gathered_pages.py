"""What the site is built from: every page, and figures with their data, origin and cell."""

import re
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("sphinx", reason="the extra `site` is not installed")

import api_pages
import build_site
import figure_pages

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_every_picture_of_a_notebook_has_its_data_its_origin_and_its_cell(file):
    notebook = nbformat.read(file, 4)
    pictures = [
        (place, output)
        for place, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    figures = figure_pages.figures_of(notebook, file.stem, ROOT)
    assert [place for place, _ in pictures] == [figure.cell for figure in figures]
    for figure in figures:
        for suffix in ("csv", "json", "png"):
            assert (ROOT / "figures" / file.stem / f"{figure.name}.{suffix}").exists()


def test_all_pages_are_gathered_and_in_the_navigation(tmp_path):
    build_site.stage(tmp_path)
    pages = {
        file.relative_to(tmp_path / "pages").with_suffix("").as_posix()
        for file in (tmp_path / "pages").rglob("*")
        if file.suffix in (".md", ".ipynb")
    }
    front = (tmp_path / "pages" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?m)^[\w/-]+$", front[front.index("```{toctree}") :]))
    assert pages - {"index"} == listed | {f"api/{folder}" for folder in api_pages.ORDER}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert front.splitlines()[0] == text.splitlines()[0], "the front page is README"
