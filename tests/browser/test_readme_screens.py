"""README in a real Chromium, drawn much as GitHub draws it: pictures load, and a phone shows all of it.

With `SINKPRUNE_SCREENSHOTS=FOLDER` a picture of it is left for each width.
"""

from pathlib import Path

import pytest
from browser.chromium import in_a_browser, keep, wide

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 1200  # pixels of a screen of a laptop
STYLE = """
body {font: 16px/1.5 "Liberation Sans", "Noto Sans", sans-serif; max-width: 1012px; margin: 24px auto;
  padding: 0 16px; color: #1f2328; overflow-wrap: break-word}
p, ul, table, pre {margin: 0 0 16px}
h1 {font-size: 2em; margin: 0 0 16px; border-bottom: 1px solid #d1d9e0; padding-bottom: .3em;
  line-height: 1.25}
h2 {font-size: 1.5em; margin: 24px 0 16px; border-bottom: 1px solid #d1d9e0; padding-bottom: .3em;
  line-height: 1.25}
ul {padding-left: 2em} li + li {margin-top: .25em} img {max-width: 100%} a {color: #0969da}
pre, code {background: #f6f8fa; border-radius: 6px; font-size: 85%}
pre {padding: 16px; overflow: auto; line-height: 1.45} pre code {font-size: 100%}
table {border-collapse: collapse; display: block; overflow: auto; width: max-content; max-width: 100%}
td, th {border: 1px solid #d1d9e0; padding: 6px 13px}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """README as a page of its own."""
    markdown_it = pytest.importorskip("markdown_it", reason="the extra `site` is not installed")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    body = parser.render((ROOT / "README.md").read_text(encoding="utf-8"))
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"<base href='{ROOT.as_uri()}/'><style>{STYLE}</style>"
    file = tmp_path_factory.mktemp("readme") / "readme.html"
    file.write_text(head + body, encoding="utf-8")
    return file


@in_a_browser
def test_every_picture_of_readme_is_there(driver, page):
    wide(driver, WIDTH)
    driver.get(page.as_uri())
    keep(driver, f"readme-{WIDTH}")
    assert driver.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")


@in_a_browser
def test_readme_is_no_wider_than_a_phone(driver, page):
    wide(driver, 390)
    driver.get(page.as_uri())
    keep(driver, "readme-390")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    cut = "const [table] = document.querySelectorAll('table'); return table.scrollWidth - table.clientWidth"
    assert driver.execute_script(cut) == 0, "no number of the claims table is cut"
