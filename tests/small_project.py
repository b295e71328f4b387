"""A project of two small notebooks, in which the real `sinkprune reproduce` runs."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]

NOTEBOOK = """
# %% tags=["parameters"]
profile: str = "manual"  # where
size: int = 1  # a number
pause: float = 0.0  # seconds before the second record
seeds: int = 1  # draws
first_seed: int = 0  # number of the first draw
# %%
import time
import pandas as pd
from sinkprune_core.companion.parameters import start
from sinkprune_core.evaluation.intervals import interval
run = start("NAME", globals())
# %%
first = run.record("first", lambda: pd.DataFrame({"x": [time.time()]}), size=size)
time.sleep(pause)
second = run.record("second", lambda: pd.DataFrame({"x": [1.0 / (size - 13), 2.0]}), size=size)
drawn = pd.concat(
    [
        run.record("draw", lambda: pd.DataFrame({"x": [seed + time.time()]}), seed=seed)
        for seed in range(first_seed, first_seed + seeds)
    ]
)
run.find({"mean": interval(second.x)})
"""
NOTEBOOKS = ("00_one", "01_two")
CLAIMS = {
    "claims": [
        {
            "id": "c",
            "says": "the mean is above zero",
            "quote": "q",
            "source": "s",
            "metric": "m",
            "falsifier": "f",
            "scale": "any",
            "finding": "00_one/mean",
            "side": "above",
            "against": -5.0,
            "family": "means",
            "margin": 0.1,
            "margin_reason": "a test",
        }
    ]
}


def make(folder: Path, notebook: str = NOTEBOOK) -> Path:
    """Make a clone in small, with the real package, Snakefile and profile, and return its folder."""
    shutil.copytree(
        ROOT / "sinkprune_core",
        folder / "sinkprune_core",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    (folder / "pyproject.toml").touch()
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        (folder / "notebooks" / f"{name}.py").write_text(notebook.replace("NAME", name))
    (folder / "sinkprune_core" / "data" / "claims.yml").write_text(yaml.safe_dump(CLAIMS))
    configure(folder)
    return folder


def configure(project: Path, one: dict | None = None, two: dict | None = None, **more: dict) -> None:
    """Give the project one profile, `tiny`, with parameters of its notebooks."""
    for config in (project / "workflow" / "config").glob("*.yml"):
        config.unlink()
    (project / "workflow" / "config" / "tiny.yml").write_text(
        yaml.safe_dump(
            {
                "profile": "tiny",
                "notebooks": {"00_one": one or {"size": 2}, "01_two": two or {"size": 3}},
                **more,
            }
        )
    )


def command(project: Path, *arguments: str) -> dict:
    """Return what `subprocess` needs to run `sinkprune` in a project."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return {
        "args": [sys.executable, "-m", "sinkprune_core.cli.main", *arguments],
        "cwd": project,
        "env": environment,
        "text": True,
    }


def reproduce(project: Path, *more: str) -> subprocess.CompletedProcess:
    """Run `sinkprune reproduce` to its end."""
    return subprocess.run(
        **command(project, "reproduce", "--profile", "tiny", *more), capture_output=True, timeout=240
    )


def start(project: Path, said: Path) -> subprocess.Popen:
    """Start `sinkprune reproduce` in a session of its own; what it says goes into a file."""
    with said.open("w") as log:
        options = command(project, "reproduce", "--profile", "tiny")
        return subprocess.Popen(**options, stdout=log, stderr=log, start_new_session=True)


def wait_for_record(project: Path, name: str) -> Path:
    """Return the file of a record as soon as it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in (project / "runs" / "tiny" / "records").rglob(f"{name}-*.csv"):
            if not file.parent.name.startswith("."):
                return file
        time.sleep(0.2)
    raise TimeoutError(f"no record {name} in {project}")


def kernels(process: psutil.Process) -> list[psutil.Process]:
    """Return the kernels of notebooks among the descendants of a process."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("ipykernel_launcher" in part for part in child.cmdline()):
                found.append(child)
    return found


def kill_all(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they have ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=60)
