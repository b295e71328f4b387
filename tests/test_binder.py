"""What Binder would build: a dry run of repo2docker, which needs no Docker and no network."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip(
    "repo2docker", reason="jupyter-repo2docker is not installed (it comes with the extra `dev`)"
)

ROOT = Path(__file__).resolve().parents[1]
PYTHON = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "requires-python"
].removeprefix(">=")


def plan(folder: Path) -> tuple[str, list[str]]:
    """Return what repo2docker says about a folder, and its Dockerfile without comments."""
    command = [
        sys.executable,
        "-m",
        "repo2docker",
        "--no-build",
        "--debug",
        "--user-id",
        "1000",
        "--user-name",
        "jovyan",
        str(folder),
    ]
    planned = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout + planned.stderr
    return said, [
        line
        for line in said[said.index("\nFROM ") :].splitlines()
        if line.strip() and not line.startswith("#")
    ]


def updates(dockerfile: list[str]) -> list[str]:
    """Return the environment files that the lines of a Dockerfile install."""
    return re.findall(r'env update -p \S+ --file "([^"]+)"', "\n".join(dockerfile))


def test_binder_builds_the_environment_of_the_root_and_nothing_besides():
    said, dockerfile = plan(ROOT)
    assert f"Building conda environment for python={PYTHON}\n" in said
    assert updates(dockerfile) == ["environment.yml"]
    text = "\n".join(dockerfile)
    for surprise in ("postBuild", "requirements.txt", "apt.txt", "pip install", "runtime.txt", "binder/"):
        assert surprise not in text, surprise
    assert not [line for line in dockerfile if line.startswith("FROM ")][1:], "one stage"
