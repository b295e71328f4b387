"""README keeps its word: its example runs, and its links and those of docs lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune_companion.run.parameters import declared
from sinkprune_core.pruning.recipe import PRESETS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {
    language: re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) for language in ("bash", "python")
}


def test_papermill_commands_name_parameters_that_exist():
    import jupytext

    for line in "\n".join(BLOCKS["bash"]).splitlines():
        if line.startswith("papermill") and " -p " in line:
            name = re.search(r"notebooks/(\w+)\.ipynb", line).group(1)
            (cell,) = [
                cell
                for cell in jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
                if "parameters" in cell.metadata.get("tags", [])
            ]
            assert set(re.findall(r"-p (\w+)", line)) <= set(declared([cell.source]))


def test_every_link_and_picture_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_preset_is_explained():
    page = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    table = page[page.index("| preset |") :]
    assert set(re.findall(r"`([\w-]+)`", table[: table.index("\n\n")])) == set(PRESETS)


def test_every_link_of_docs_is_there():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.slow
def test_the_example_runs_on_less_text(tmp_path):
    (code,) = BLOCKS["python"]
    assert code.count("[:8]") == 2
    code = code.replace("[:8]", "[:1]")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    sparsity, nelbo = map(float, ran.stdout.split())
    assert sparsity == 0.5 and 1 < nelbo < 11
    assert (tmp_path / "smol-dlm-pruned-too" / "model.safetensors").exists()
