"""By hand, as a reader works: a notebook opened, restarted and run in a real JupyterLab in a real Chromium.

Takes minutes, so it runs only when asked for: `SINKPRUNE_BROWSER=1 pytest tests/test_browser.py`.
It needs Chromium, its
driver and selenium. With `SINKPRUNE_SCREENSHOTS=FOLDER` it leaves a picture of what it saw.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --window-size=1280,1400"
)
SMALL = {
    "00_start_here": {"sequences": 4, "draws": 1, "calibration": 2, "length": 32, "items": 24},
    "01_sink_variance": {"prompts": 2, "prompt_length": 12, "length": 36, "steps": 12},
}

if not os.environ.get("SINKPRUNE_BROWSER"):
    pytest.skip("takes minutes: set SINKPRUNE_BROWSER=1 to run it", allow_module_level=True)
if not CHROMIUM or not shutil.which("chromedriver"):
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)
pytest.importorskip("selenium", reason="selenium is not installed")


def wait_for(ready, seconds: float, what: str, every: float = 0.5):
    """Return what `ready` returns once that is true; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        time.sleep(every)
    return found


def small_copy(folder: Path) -> Path:
    """Copy the project with notebooks that take little and have no outputs; 01 ends after its slider."""
    for package in ("sinkprune_core", "sinkprune_companion"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "notebooks").mkdir()
    for name, values in SMALL.items():
        notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
        (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        for parameter, value in values.items():
            parameters.source, count = re.subn(
                rf"(?m)^({parameter}: \w+ = )\S+", rf"\g<1>{value}", parameters.source
            )
            assert count == 1, parameter
        last = [number for number, cell in enumerate(notebook.cells) if "save_slider" in cell.source]
        notebook.cells = notebook.cells[: last[0] + 1 if last else None]
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on a free port: its address (with `{}` for a notebook) and its notebooks."""
    folder = small_copy(tmp_path_factory.mktemp("project"))
    places = {
        name: str(tmp_path_factory.mktemp("jupyter") / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "IPYTHONDIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
        )
    }
    settings = (
        Path(places["JUPYTERLAB_SETTINGS_DIR"])
        / "@jupyterlab"
        / "notebook-extension"
        / "tracker.jupyterlab-settings"
    )
    settings.parent.mkdir(parents=True)
    settings.write_text(
        json.dumps({"windowingMode": "none"})
    )  # all cells are on the page, also those out of sight
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **places,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
    }
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=t0ken",
        f"--ServerApp.root_dir={folder / 'notebooks'}",
    ]
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                *options,
                "--LabApp.news_url=None",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )

    def answers() -> bool:
        assert server.poll() is None, (folder / "lab.log").read_text()
        try:
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=t0ken", timeout=5).status
                == 200
            )
        except urllib.error.URLError:
            return False

    try:
        wait_for(answers, 60, "JupyterLab answers")
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}.ipynb?token=t0ken&reset", folder / "notebooks"
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def browser(profile: Path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def choose(driver, menu: str, entry: str) -> None:
    """Choose an entry of JupyterLab's menu bar by the words it begins with."""

    def click(selector: str, words: str):
        def tried() -> bool:
            for element in driver.find_elements("css selector", selector):
                if element.is_displayed() and element.text.startswith(words):
                    element.click()
                    return True
            return False

        wait_for(tried, 30, f"{words!r} can be clicked")

    click(".lm-MenuBar-itemLabel", menu)
    click(".lm-Menu-itemLabel", entry)


def run_all(driver, address: str, notebook: Path) -> list:
    """Open a notebook, restart its kernel and run all cells, by the menu; return its code cells as saved."""
    driver.get(address.format(notebook.stem))

    def prompts():
        return [
            element.get_attribute("textContent").strip()
            for element in driver.find_elements(
                "css selector", ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt"
            )
        ]

    count = sum(cell.cell_type == "code" for cell in nbformat.read(notebook, 4).cells)
    wait_for(lambda: len(prompts()) == count, 90, f"{count} code cells are on the page")
    wait_for(
        lambda: driver.find_elements("css selector", ".jp-Notebook-ExecutionIndicator[data-status='idle']"),
        90,
        "the kernel is idle",
    )
    choose(driver, "Run", "Restart Kernel and Run All Cells")
    wait_for(
        lambda: driver.find_elements("css selector", ".jp-Dialog button.jp-mod-accept"),
        30,
        "it asks whether to restart",
    )[0].click()
    wait_for(lambda: any("*" in prompt for prompt in prompts()), 60, "a cell is running")
    wait_for(lambda: not any("*" in prompt for prompt in prompts()), 540, "all cells have run")
    before = notebook.stat().st_mtime_ns
    choose(driver, "File", "Save Notebook")
    wait_for(lambda: notebook.stat().st_mtime_ns != before, 30, "the notebook is saved")
    saved = [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    assert [
        f"{output.ename}: {output.evalue}"
        for cell in saved
        for output in cell.outputs
        if output.output_type == "error"
    ] == []
    assert prompts() == [f"[{number}]:" for number in range(1, count + 1)]
    return saved


def pictures(driver, selector: str) -> list[str]:
    """Return the sources of the pictures below `selector` that are loaded and wider than nothing."""
    return [
        image.get_attribute("src")
        for image in driver.find_elements("css selector", f"{selector} img")
        if int(image.get_property("naturalWidth")) > 0
    ]


def keep(driver, name: str) -> None:
    if folder := os.environ.get("SINKPRUNE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_the_first_notebook_runs_from_top_to_bottom_and_shows_its_figures(lab, tmp_path):
    address, notebooks = lab
    with browser(tmp_path / "profile") as driver:
        cells = run_all(driver, address, notebooks / "00_start_here.ipynb")
        figures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
        shown = pictures(driver, ".jp-OutputArea-output")
        assert figures == len(shown) == sum(cell.source.count("figures.save_figure(") for cell in cells) > 0
        driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'})",
            driver.find_elements("css selector", ".jp-OutputArea-output img")[1],
        )
        time.sleep(1)
        keep(driver, "00_start_here")
    assert list((notebooks.parent / "runs" / "manual" / "figures" / "00_start_here").glob("*.png")), (
        "results lie where the set-up cell says"
    )


def test_the_slider_of_the_second_notebook_shows_another_step_when_it_is_moved(lab, tmp_path):
    address, notebooks = lab
    with browser(tmp_path / "profile") as driver:
        run_all(driver, address, notebooks / "01_sink_variance.ipynb")

        def shown() -> list[str]:
            texts = driver.find_elements("css selector", ".sink-steps .text")
            return [text.get_attribute("textContent") for text in texts]

        before = wait_for(shown, 30, "the text is shown")
        slider = driver.find_element("css selector", ".sink-steps input[type=range]")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        slider.send_keys("\ue012")  # arrow to the left
        wait_for(lambda: shown() != before, 10, "another step is shown")
        assert len(before) == 2 and shown()[0].count("□") > before[0].count("□")
        keep(driver, "01_sink_variance")
