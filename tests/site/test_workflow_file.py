"""The workflow that publishes the site does so from the stated repository alone."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import address
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = "https://github.com/someone/sinkprune"


@pytest.mark.parametrize(
    ("stated", "runs_in", "published"),
    [(OURS, OURS, True), (OURS, f"{OURS}-copy", False), ("", OURS, False), ("", "", False)],
)
def test_only_the_stated_repository_publishes(stated, runs_in, published, tmp_path):
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    address.write(stated, tmp_path)
    server, _, name = runs_in.rpartition("/someone/")
    output = tmp_path / "output"
    output.touch()
    (step,) = [step for step in WORKFLOW["jobs"]["address"]["steps"] if step.get("id") == "compare"]
    environment = {
        **os.environ,
        "GITHUB_SERVER_URL": server,
        "GITHUB_REPOSITORY": f"someone/{name}",
        "GITHUB_OUTPUT": str(output),
    }
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, check=True)
    assert (output.read_text() == "is_ours=true\n") == published
    assert WORKFLOW["jobs"]["build"]["if"] == "needs.address.outputs.is_ours == 'true'"
    assert WORKFLOW["jobs"]["deploy"]["needs"] == "build"


def test_it_builds_with_the_oldest_python_that_is_supported():
    (version,) = [
        step["with"]["python-version"]
        for step in WORKFLOW["jobs"]["build"]["steps"]
        if "python-version" in step.get("with", {})
    ]
    assert PROJECT["requires-python"] == f">={version}"
