"""What the site is built from: every page, and figures with their data, origin and cell."""

import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

pytest.importorskip("sphinx", reason="the extra `site` is not installed")

import api_pages
import build_site
import figure_pages
from links import Links, LostLinkError

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
    assert pages - {"index"} == listed | set(map(api_pages.page_of, api_pages.ORDER))
    further = (tmp_path / "pages" / "further.md").read_text(encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert front.splitlines()[0] == text.splitlines()[0], "the front page is README"
    headings = re.findall(r"(?m)^## .*", text)
    assert re.findall(r"(?m)^## .*", front) == [f"## {build_site.SHOWN_FIRST}"]
    assert re.findall(r"(?m)^## .*", further) == [one for one in headings if one not in front]

    for file in sorted((tmp_path / "pages" / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(file, 4).cells
        words = [cell.source for cell in cells if cell.cell_type == "markdown"]
        assert not re.search(r"\d\s%", "".join(words).replace("\N{NO-BREAK SPACE}", "")), "a number has its %"

    gallery = (tmp_path / "pages" / "figures.md").read_text(encoding="utf-8")
    for name in ("claims_strip", "ladder"):
        for theme in ("", "_dark"):
            assert f'srcset="figures/pictures/{name}_narrow{theme}.png"' in gallery
        assert (tmp_path / "files" / "figures" / "pictures" / f"{name}.png").exists()


def test_machinery_is_folded_and_what_teaches_is_not():
    def cell(source: str, *tags: str):
        return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})

    short = "weight_OI @ input_I"
    for tag in ("main-parameters", "parameters"):
        assert figure_pages.is_machinery(cell("a: int = 1", tag), shows_figure=False)
    assert figure_pages.is_machinery(cell(short), shows_figure=True)
    assert figure_pages.is_machinery(cell("\n".join([short] * 40)), shows_figure=False)
    assert not figure_pages.is_machinery(cell(short), shows_figure=False)


@pytest.fixture
def links(tmp_path):
    """Links of a project with a page, a file, a folder, and a figure that a cell made."""
    root = tmp_path / "project"
    for name in ("docs/page.md", "data/numbers.csv", "figures/01/drawn.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    for name in ("drawn.png", "drawn_dark.png"):
        Image.new("RGB", (1, 1)).save(root / "figures" / "01" / name)
    cells = {"figures/01/drawn.png": "notebooks/01.html#cell-03"}
    return Links(root, tmp_path / "site", ["docs/page.md", "further.md"], cells, {"limits": "further.md"})


@pytest.mark.parametrize("lost", ["gone.md", "../data", "../../elsewhere.md"])
def test_a_link_that_leads_nowhere_stops_the_build_and_is_named(links, lost):
    with pytest.raises(LostLinkError, match=rf"docs/page.md: \[words\]\({re.escape(lost)}\) leads to"):
        links.rewritten(f"See [words]({lost}).", "docs/page.md")


def test_a_link_leads_to_a_page_a_file_or_the_cell_of_a_figure(links):
    text = "[a](page.md#there) [b](../data/numbers.csv) [1 [0, 2]](../figures/01/drawn.png) [c](https://x.y)"

    assert links.rewritten(text, "docs/page.md") == (
        '[a](page.md#there) <a href="../data/numbers.csv">b</a> '
        '<a href="../notebooks/01.html#cell-03">1 [0, 2]</a> [c](https://x.y)'
    )
    assert (links.files / "data" / "numbers.csv").exists()
    assert links.rewritten("[d](README.md#limits)", "index.md") == "[d](further.md#limits)"

    printed = links.in_output("[a](../docs/page.md#there) [b](../figures/01/drawn.png)", "notebooks/01.ipynb")
    assert printed == "[a](../docs/page.html#there) [b](01.html#cell-03)"


def test_a_picture_stands_there_for_both_themes_and_its_files_travel(links):
    text = '<picture><source srcset="x"><img src="../figures/01/drawn.png" alt="a &amp; b"></picture>'
    written = links.rewritten(text, "docs/page.md")
    for theme, file in (("light", "drawn"), ("dark", "drawn_dark")):
        assert re.search(
            rf'class="only-{theme}"><img src="../figures/01/{file}.png" alt="a &amp; b"', written
        )
        assert (links.files / "figures" / "01" / f"{file}.png").exists()
    assert "<source" not in written, "there is no narrow one"
