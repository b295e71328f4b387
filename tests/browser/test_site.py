"""The site as a reader meets it: every link leads somewhere, and in a real Chromium everything works.

`make site-test` runs this: it builds the site first, which takes a minute. The tests in a browser need
Chromium and its driver. With `SINKPRUNE_SCREENSHOTS=FOLDER` they leave pictures of every page.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser.chromium import complaints, in_a_browser, keep, wide

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "site"))
pytest.importorskip("sphinx", reason="the extra `site` is not installed")

import build_site  # noqa: E402 (it needs the path above)

SITE = build_site.BUILD / "site"
WIDTHS = (1200, 390)
LEFT = "\ue012"  # arrow keys
RIGHT = "\ue014"


class Page(HTMLParser):
    """What a page names: `links` that a reader may follow, `loads` that a browser fetches, `names` in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links = []
        self.loads = []
        self.names = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.names |= {about[name] for name in ("id", "name") if about.get(name)}
        if tag == "a" and about.get("href"):
            self.links.append(about["href"])
        elif tag == "link" and about.get("href") and about.get("rel") != "canonical":
            self.loads.append(about["href"])
        elif about.get("src"):
            self.loads.append(about["src"])


@pytest.fixture(scope="module")
def site() -> Path:
    assert build_site.main() == 0, "the site is built without a warning"
    return SITE


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}


# without a browser


def test_every_link_within_the_site_leads_somewhere(site, pages):
    broken = []
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme:
                continue  # another host, or data
            target, anchor = unquote(parts.path), unquote(parts.fragment)
            found = (file.parent / target).resolve() if target else file
            inside = found.is_relative_to(site) and not target.startswith("/") and found.is_file()
            if not inside or (anchor and found in pages and anchor not in pages[found].names):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert len(pages) > 30 and broken == []


def test_nothing_is_loaded_from_another_host(site, pages):
    loads = [load for page in pages.values() for load in page.loads]
    assert [load for load in loads if load.startswith(("http:", "https:", "//"))] == []
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert "url(http" not in styles and "@import" not in styles


# in a browser


@in_a_browser
@pytest.mark.parametrize("pixels", WIDTHS)
def test_no_page_complains_or_is_wider_than_the_screen(driver, site, pages, pixels):
    wide(driver, pixels)
    for file in pages:
        driver.get(file.as_uri())
        name = file.relative_to(site).as_posix()
        assert complaints(driver) == [], name
        assert driver.execute_script("return document.documentElement.scrollWidth") <= pixels, name
        keep(driver, f"{name.replace('/', '-').removesuffix('.html')}-{pixels}")


def seen(driver) -> tuple[str, list[str]]:
    """Return the text and the heights of all bars of the first panel of steps."""
    return driver.execute_script(
        "const panel = document.querySelector('.sink-steps section');"
        "return [panel.querySelector('.text').textContent,"
        " [...panel.querySelectorAll('.bars i')].map((bar) => bar.style.height)]"
    )


@in_a_browser
@pytest.mark.parametrize("page", ["explorer.html", "figures/01_sink_variance/writing.html"])
def test_the_slider_moves_and_text_and_bars_change(driver, site, page):
    wide(driver, 1200)
    driver.get((site / page).as_uri())
    slider = driver.find_element("css selector", ".sink-steps input[type=range]")
    last = int(slider.get_attribute("max"))
    states = [seen(driver)]
    for _ in range(last - 1):
        slider.send_keys(LEFT)
        states.append(seen(driver))
    texts, bars = zip(*states, strict=True)
    masks = [text.count("□") for text in texts]
    assert masks == sorted(masks) and masks[-1] > masks[0], "earlier steps have more masks"
    assert len({tuple(heights) for heights in bars}) == last, "attention differs from step to step"
    slider.send_keys(RIGHT)
    assert seen(driver) == list(states[-2])
    assert complaints(driver) == []
