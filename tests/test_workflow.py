"""`sinkprune reproduce` on a small project of two notebooks: order, second runs, changed parameters, kills and failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and shell of POSIX")]

NOTEBOOK = """
# %% tags=["parameters"]
profile: str = "manual"  # where
size: int = 1  # a number
pause: float = 0.0  # seconds before the second record
# %%
import time
import pandas as pd
from sinkprune_core.notebook import start
from sinkprune_core.results import interval
run = start("NAME", globals())
# %%
first = run.record("first", lambda: pd.DataFrame({"x": [time.time()]}), size=size)
time.sleep(pause)
second = run.record("second", lambda: pd.DataFrame({"x": [1.0 / (size - 13), 2.0]}), size=size)
run.find({"mean": interval(second.x)})
"""
CLAIMS = {"claims": [{"id": "c", "says": "the mean is above zero", "quote": "q", "source": "s", "metric": "m", "falsifier": "f", "scale": "any", "finding": "00_one/mean", "side": "above", "against": -5.0}]}


@pytest.fixture
def project(tmp_path) -> Path:
    """A clone in small: the real package, Snakefile and profile, two tiny notebooks."""
    shutil.copytree(ROOT / "sinkprune_core", tmp_path / "sinkprune_core", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    for name in ("00_one", "01_two"):
        (tmp_path / "notebooks" / f"{name}.py").write_text(NOTEBOOK.replace("NAME", name))
    (tmp_path / "notebooks" / "claims.yml").write_text(yaml.safe_dump(CLAIMS))
    configure(tmp_path)
    return tmp_path


def configure(project: Path, one: dict | None = None, two: dict | None = None) -> None:
    for config in (project / "workflow" / "config").glob("*.yml"):
        config.unlink()
    (project / "workflow" / "config" / "tiny.yml").write_text(yaml.safe_dump({"profile": "tiny", "notebooks": {"00_one": one or {"size": 2}, "01_two": two or {"size": 3}}}))


def command(project: Path, *arguments: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(project), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return {"args": [sys.executable, "-m", "sinkprune_core.cli", *arguments], "cwd": project, "env": environment, "text": True}


def reproduce(project: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(**command(project, "reproduce", "--profile", "tiny", *more), capture_output=True, timeout=240)


def stamps(project: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (project / "runs" / "tiny").rglob("*.json") if path.parent.name == "findings"}


def test_a_run_ends_with_the_claims_and_a_second_one_has_nothing_to_do_until_a_parameter_changes(project):
    done = reproduce(project)
    assert done.returncode == 0, done.stderr
    assert "reproduced" in done.stdout and "the mean is above zero" in done.stdout
    assert "runs/tiny/figures" in done.stdout
    for suffix in ("png", "pdf", "csv", "json", "md"):
        assert (project / "runs" / "tiny" / "figures" / f"claims.{suffix}").exists()
    before = stamps(project)

    again = reproduce(project)
    assert again.returncode == 0 and "Nothing to be done" in again.stderr + again.stdout
    assert stamps(project) == before

    configure(project, two={"size": 4})
    assert reproduce(project).returncode == 0
    changed = {name for name, stamp in stamps(project).items() if stamp != before[name]}
    assert changed == {"01_two.json"}
    provenance = json.loads((project / "runs" / "tiny" / "findings" / "01_two.json").read_text())["provenance"]
    assert provenance["parameters"]["size"] == 4 and provenance["versions"]["torch"]


def test_a_killed_run_goes_on_from_its_records(project):
    configure(project, one={"size": 2, "pause": 120.0})
    process = subprocess.Popen(**command(project, "reproduce", "--profile", "tiny"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    records = project / "runs" / "tiny" / "records"
    deadline = time.time() + 120
    while not list(records.rglob("first-*.csv")) and time.time() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (kept,) = (records / "00_one").glob("first-*.csv")
    text, stamp = kept.read_text(), kept.stat().st_mtime_ns
    assert not list((records / "00_one").glob("second-*.csv"))

    configure(project, one={"size": 2})  # the pause is no part of the record's key
    done = reproduce(project)
    assert done.returncode == 0, done.stderr
    assert (kept.read_text(), kept.stat().st_mtime_ns) == (text, stamp)


def test_a_failure_names_its_notebook_and_keeps_the_rest(project):
    configure(project, two={"size": 13})
    failed = reproduce(project)
    assert failed.returncode != 0
    assert "error in 01_two: ZeroDivisionError" in failed.stderr
    assert "goes on from here" in failed.stderr
    assert (project / "runs" / "tiny" / "findings" / "00_one.json").exists()
    assert (project / "runs" / "tiny" / "notebooks" / "01_two.ipynb").exists()


def test_an_unknown_profile_gives_one_clear_error(project):
    refused = subprocess.run(**command(project, "reproduce", "--profile", "huge"), capture_output=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr == "error: profile 'huge' is unknown; choose one of tiny\n"


def test_every_profile_names_every_notebook():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.py")}
    for config in (ROOT / "workflow" / "config").glob("*.yml"):
        stated = yaml.safe_load(config.read_text())
        assert stated["profile"] == config.stem
        assert set(stated["notebooks"]) == names
    assert all(jupytext.read(ROOT / "notebooks" / f"{name}.py").cells for name in names)
