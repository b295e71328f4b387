"""The site as a reader meets it: every link leads somewhere, and in a real Chromium everything works.

`make site-test` runs this: it builds the site first, which takes a minute. The tests in a browser need
Chromium and its driver. With `SINKPRUNE_SCREENSHOTS=FOLDER` they leave pictures of every page.
"""

import functools
import http.server
import itertools
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser.chromium import complaints, in_a_browser, keep, wait_for, wide

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


def test_no_table_is_left_as_the_text_of_its_markdown(site):
    for file in site.rglob("*.html"):
        assert "<p>| " not in file.read_text(encoding="utf-8"), file.name
    verdicts = (site / "notebooks" / "03_pruning_results.html").read_text(encoding="utf-8")
    assert '<th class="head"><p>verdict</p></th>' in verdicts


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


def test_gathering_twice_gives_the_same(site, tmp_path):
    build_site.stage(tmp_path)
    assert contents(tmp_path) == contents(build_site.BUILD / "site-source")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# in a browser


@pytest.fixture(scope="module")
def address(site) -> str:
    """A server at whose address the site lies two folders deep."""
    above = site.parents[1]

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=above))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{site.relative_to(above).as_posix()}"
    server.shutdown()


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


@in_a_browser
def test_the_explorer_shows_another_layer_model_and_prompt(driver, site):
    from selenium.webdriver.support.ui import Select

    driver.get((site / "explorer.html").as_uri())
    prompt, model, layer = map(Select, driver.find_elements("css selector", ".sink-steps select"))
    first = seen(driver)
    layer.select_by_visible_text("layer 7")
    other_layer = seen(driver)
    assert other_layer[0] == first[0] and other_layer[1] != first[1], "the same text, another attention"
    model.select_by_index(1)
    other_model = seen(driver)
    assert other_model[1] != other_layer[1]
    prompt.select_by_index(1)
    assert seen(driver)[0] != other_model[0], "another text"
    row = driver.find_element("css selector", ".sink-steps .map")
    row.click()  # its middle
    steps = int(driver.find_element("css selector", ".sink-steps input").get_attribute("max"))
    assert driver.find_element("css selector", ".sink-steps .step span").text != f"{steps} of {steps}"
    keep(driver, "explorer-used")


@in_a_browser
def test_playing_ends_at_the_last_step(driver, site):
    driver.get((site / "explorer.html").as_uri())
    button = driver.find_element("css selector", ".sink-steps button")
    slider = driver.find_element("css selector", ".sink-steps input")
    button.click()
    assert button.text == "stop" and slider.get_property("value") == "1"
    wait_for(lambda: slider.get_property("value") == "2", "the second step is shown")
    slider.send_keys(RIGHT)
    assert button.text == "play", "moving the slider stops it"


@in_a_browser
def test_search_finds(driver, site, address):
    for base in (site.as_uri(), address):
        driver.get(f"{base}/search.html?q=attention+sink")
        wait_for(
            lambda: "finished" in driver.find_element("id", "search-results").text, "an end of the search"
        )
        found = driver.find_elements("css selector", "#search-results li a")
        titles = [element.text for element in found]
        assert len(titles) > 5 and any("sinks" in title.lower() for title in titles)
        driver.get(found[0].get_attribute("href"))
        assert complaints(driver) == []
    driver.get(f"{address}/search.html?q=centroid")
    wait_for(lambda: driver.find_elements("css selector", "#search-results p.context"), "an excerpt")


@in_a_browser
def test_claims_are_sorted_and_filtered(driver, site):
    wide(driver, 1200)
    driver.get((site / "claims.html").as_uri())
    table = driver.find_element("css selector", "table.claims")

    def column(place: int) -> list[str]:
        return driver.execute_script(
            "return [...arguments[0].tBodies[0].rows].filter((row) => !row.hidden)"
            ".map((row) => row.cells[arguments[1]].textContent.trim())",
            table,
            place,
        )

    whole = column(1)
    table.find_elements("css selector", "th button")[1].click()
    names = [name for name, _ in itertools.groupby(column(1))]
    assert len(names) == len(set(whole)) > 2, "rows of one verdict stand together"
    margins = table.find_elements("css selector", "th button")[3]
    margins.click()
    numbers = [float(text.replace(",", "")) for text in column(3) if text[:1].isdigit()]
    assert numbers == sorted(numbers) and len(set(numbers)) > 2
    choice = driver.find_element("css selector", ".claims-controls select")
    choice.find_elements("css selector", "option")[1].click()
    assert set(column(1)) == {whole[0]} and len(column(1)) == whole.count(whole[0])
    word = driver.find_element("css selector", ".claims-controls input")
    word.send_keys("no such word")
    assert column(1) == []
    assert complaints(driver) == []


@in_a_browser
def test_formulas_are_drawn(driver, site):
    driver.get((site / "notebooks" / "01_sink_variance.html").as_uri())
    formulas = wait_for(lambda: driver.find_elements("css selector", "math"), "a formula")
    assert all(formula.size["width"] > 3 and formula.size["height"] > 3 for formula in formulas)
