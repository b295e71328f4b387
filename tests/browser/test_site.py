"""The site as a reader meets it: every link leads somewhere, and the explorer works in a real Chromium.

`make site-test` runs this: it builds the site first, in a minute. A browser means Chromium and its driver.
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

SITE = build_site.BUILD / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
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


def seen(driver) -> tuple[str, list[str]]:
    """Return the text and the heights of all bars of the first panel of steps."""
    return driver.execute_script(
        "const panel = document.querySelector('.sink-steps section');"
        "return [panel.querySelector('.text').textContent,"
        " [...panel.querySelectorAll('.bars i')].map((bar) => bar.style.height)]"
    )


@in_a_browser
def test_the_slider_of_the_explorer_moves_and_text_and_bars_change(driver, site):
    driver.get((site / "explorer.html").as_uri())
    slider = driver.find_element("css selector", ".sink-steps input[type=range]")
    last = int(slider.get_attribute("max"))

    states = [seen(driver)]
    for _ in range(last - 1):
        slider.send_keys(RIGHT)
        states.append(seen(driver))

    texts, bars = zip(*states, strict=True)
    masks = [text.count("□") for text in texts]
    assert masks == sorted(masks, reverse=True) and masks[0] > masks[-1], "later steps have fewer masks"
    assert len({tuple(heights) for heights in bars}) == last, "attention differs from step to step"

    slider.send_keys(LEFT)
    assert seen(driver) == list(states[-2])
    assert complaints(driver) == []


@in_a_browser
def test_the_explorer_shows_two_models_beside_each_other(driver, site):
    driver.get((site / "explorer.html").as_uri())
    titles = [one.text for one in driver.find_elements("css selector", ".sink-steps section h4")]
    assert len(titles) == 2
    assert titles[0].startswith("diffusion") and titles[1].startswith("autoregressive")


@in_a_browser
def test_the_claims_page_begins_with_the_paper_s_claims_and_shows_the_rest_when_asked(driver, site):
    driver.get((site / "claims.html").as_uri())
    rows = driver.find_elements("css selector", "table.claims tbody tr")

    def visible() -> int:
        return sum(row.is_displayed() for row in rows)

    assert visible() == 13
    kinds = driver.find_element("css selector", ".claims-controls select")
    counts = {}
    for option in kinds.find_elements("css selector", "option"):
        option.click()
        counts[option.text] = visible()
    assert counts.pop("every row") == len(rows) == sum(counts.values())
    assert all(counts.values())


@in_a_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_headings_of_the_claims_are_as_bright_as_their_cells(driver, site, theme):
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
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
