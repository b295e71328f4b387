"""The site as a reader meets it: every link leads somewhere, and the explorer works in a real Chromium.

`make site-test` runs this: it builds the site first, in a minute. A browser means Chromium and its driver.
axe, which looks for what keeps people out, comes from npm.
"""

import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "site"))
pytest.importorskip("sphinx", reason="the extra `site` is not installed")

import build_site  # noqa: E402 (it needs the path above)

from sinkprune_companion.ledger import claims  # noqa: E402

SITE = build_site.BUILD / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = build_site.BUILD / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
LEFT = "\ue012"  # arrow keys
RIGHT = "\ue014"
HOME = "\ue011"


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


in_a_browser = pytest.mark.skipif(
    not CHROMIUM or not shutil.which("chromedriver"), reason="chromium or chromedriver is not installed"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})

    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield browser
    browser.quit()


def complaints(driver) -> list[str]:
    """Return what the console says."""
    return [entry["message"] for entry in driver.get_log("browser")]


def seen(driver) -> tuple[int, list[str]]:
    """Return how many masks are in the first panel of steps, and the heights of its bars."""
    return driver.execute_script(
        "const panel = document.querySelector('.sink-steps section');"
        "return [panel.querySelectorAll('.text .mask').length,"
        " [...panel.querySelectorAll('.bars i')].map((bar) => bar.style.height)]"
    )


@in_a_browser
def test_the_explorer_opens_where_text_stands_and_nothing_moves_when_its_slider_does(driver, site):
    driver.get((site / "explorer.html").as_uri())
    slider = driver.find_element("css selector", ".sink-steps input[type=range]")
    last = int(slider.get_attribute("max"))
    places = (
        "return [...document.querySelectorAll('.sink-steps .text span, .sink-steps .map')]"
        ".map((one) => { const box = one.getBoundingClientRect(); return [box.left, box.top, box.width] })"
    )

    opened_with, _ = seen(driver)
    slider.send_keys(HOME)
    where = driver.execute_script(places)
    states = [seen(driver)]
    for _ in range(last - 1):
        slider.send_keys(RIGHT)
        states.append(seen(driver))
        assert driver.execute_script(places) == where

    masks, bars = zip(*states, strict=True)
    assert list(masks) == sorted(masks, reverse=True)
    assert masks[0] > opened_with > masks[-1], "neither the emptiest step nor the last one"
    assert len({tuple(heights) for heights in bars}) == last, "attention differs from step to step"

    slider.send_keys(LEFT)
    assert seen(driver) == list(states[-2])
    assert complaints(driver) == []


@in_a_browser
def test_a_sink_that_is_a_space_is_seen_and_its_frame_lies_around_it(driver, site):
    driver.get((site / "explorer.html").as_uri())
    driver.find_element("css selector", ".sink-steps input[type=range]").send_keys(HOME)
    framed = driver.find_element("css selector", ".sink-steps .text .sink")
    assert framed.text == "␣"

    around = driver.execute_script(
        "const letters = document.createRange(); letters.selectNodeContents(arguments[0]);"
        "const [inner, outer] = [letters, arguments[0]].map((one) => one.getBoundingClientRect());"
        "return [inner.left - outer.left, outer.right - inner.right]",
        framed,
    )
    assert min(around) >= 2, "as wide as the frame is"


@in_a_browser
def test_the_explorer_shows_two_models_beside_each_other(driver, site):
    driver.get((site / "explorer.html").as_uri())
    titles = [one.text for one in driver.find_elements("css selector", ".sink-steps section .title")]
    assert len(titles) == 2
    assert titles[0].startswith("diffusion") and titles[1].startswith("autoregressive")


@in_a_browser
def test_the_claims_page_begins_with_the_paper_s_claims_and_shows_the_rest_when_asked(driver, site):
    driver.get((site / "claims.html").as_uri())
    rows = driver.find_elements("css selector", "table.claims tbody tr")

    def visible() -> int:
        return sum(row.is_displayed() for row in rows)

    assert visible() == sum(row.kind == "claim" for row in claims.ledger())
    kinds = driver.find_element("css selector", ".claims-controls select")
    counts = {}
    for option in kinds.find_elements("css selector", "option"):
        option.click()
        counts[option.text] = visible()
    assert counts.pop("every row") == len(rows) == sum(counts.values())
    assert all(counts.values())


def in_theme(driver, theme: str) -> None:
    """Let the browser ask for pages of a theme."""
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


@in_a_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_headings_of_the_claims_are_as_bright_as_their_cells(driver, site, theme):
    in_theme(driver, theme)
    driver.get((site / "claims.html").as_uri())
    colour = "return getComputedStyle(document.querySelector(arguments[0])).color"
    heading = driver.execute_script(colour, "table.claims th button")
    assert heading == driver.execute_script(colour, "article")


@in_a_browser
@pytest.mark.parametrize("page", ["index", "claims", "figures", "explorer", "notebooks/03_leaving_sinks_out"])
def test_no_page_is_wider_than_a_phone(driver, site, page):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        driver.get((site / f"{page}.html").as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@in_a_browser
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed; `make site-test` does that")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "page", ["index", "claims", "explorer", "docs/results", "notebooks/01_do_sinks_move"]
)
def test_axe_finds_nothing_that_keeps_people_out(driver, site, page, theme):
    in_theme(driver, theme)
    driver.get((site / f"{page}.html").as_uri())
    driver.execute_script(AXE.read_text(encoding="utf-8"))

    found = driver.execute_async_script("axe.run().then(arguments[0])")
    assert found["passes"]
    violations = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
    assert violations == []


@in_a_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_front_page_shows_its_picture_in_the_theme_of_the_page(driver, site, theme):
    in_theme(driver, theme)
    driver.get((site / "index.html").as_uri())
    pictures = driver.execute_script(
        "return [...document.querySelectorAll('article picture')]"
        ".map((one) => [getComputedStyle(one).display !== 'none', one.querySelector('img').src])"
    )
    shown = [file.endswith("_dark.png") for is_shown, file in pictures if is_shown]
    assert shown == [theme == "dark"] * (len(pictures) // 2)
    assert shown


@in_a_browser
def test_contents_of_a_page_stand_beside_it_on_a_laptop(driver, site):
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        driver.get((site / "docs" / "results.html").as_uri())
        contents, text = (driver.find_element("css selector", name).rect for name in (".toc-tree", "article"))
        assert text["x"] + text["width"] <= contents["x"] <= 1280 - contents["width"]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@in_a_browser
def test_search_finds_pages_first_and_ends(driver, site):
    from selenium.webdriver.support.wait import WebDriverWait

    driver.get(f"{(site / 'search.html').as_uri()}?q=sink")
    WebDriverWait(driver, 10).until(
        lambda _: driver.find_element("css selector", ".search-summary").text != ""
    )

    links = driver.find_elements("css selector", "#search-results li a")
    is_library = ["/api/" in link.get_attribute("href") for link in links]
    assert is_library == sorted(is_library)
    assert is_library.count(False) >= 10 and any(is_library)
