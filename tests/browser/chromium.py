"""A headless Chromium as tests use it, and what they ask of a page."""

import base64
import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
in_a_browser = pytest.mark.skipif(
    not CHROMIUM or not shutil.which("chromedriver"), reason="chromium or chromedriver is not installed"
)


def complaints(driver) -> list[str]:
    """Return what the console says, but for a missing icon of the page."""
    return [entry["message"] for entry in driver.get_log("browser") if "favicon.ico" not in entry["message"]]


def wide(driver, pixels: int) -> None:
    """Make the window so many pixels wide, and that of a phone where these are few."""
    size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def keep(driver, name: str) -> None:
    if folder := os.environ.get("SINKPRUNE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        size = driver.execute_script(
            "return [innerWidth, Math.min(9000, document.documentElement.scrollHeight)]"
        )
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        taken = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))
