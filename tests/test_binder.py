"""What Binder would build: a dry run of repo2docker, which needs no Docker and no network."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def test_the_project_is_there_before_the_environment_that_installs_it():
    _, dockerfile = plan(ROOT)
    (copied,) = [number for number, line in enumerate(dockerfile) if " src/ " in line]
    (updated,) = [number for number, line in enumerate(dockerfile) if "env update" in line]
    assert copied < updated


@pytest.mark.parametrize("spoil", ["an empty .binder", "no Python line", "a requirements file alone"])
def test_the_dry_run_tells_a_wrong_set_up(spoil, tmp_path):
    """Negative controls: the same reading sees what would silently lead Binder elsewhere."""
    shutil.copy(ROOT / "environment.yml", tmp_path)
    if spoil == "an empty .binder":
        (tmp_path / ".binder").mkdir()
    elif spoil == "no Python line":
        file = tmp_path / "environment.yml"
        file.write_text(re.sub(r"(?m)^  - python=.*\n", "", file.read_text()))
    else:
        (tmp_path / "environment.yml").rename(tmp_path / "requirements.txt")
    said, dockerfile = plan(tmp_path)
    assert f"Building conda environment for python={PYTHON}\n" not in said or updates(dockerfile) != [
        "environment.yml"
    ]
