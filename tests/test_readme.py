"""README keeps its word: its example runs, and every preset is explained."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune_core.pruning.recipe import PRESETS

ROOT = Path(__file__).resolve().parents[1]


def test_every_preset_is_explained():
    page = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    table = page[page.index("| preset |") :]
    assert set(re.findall(r"`([\w-]+)`", table[: table.index("\n\n")])) == set(PRESETS)


@pytest.mark.slow
def test_the_example_runs_on_less_text(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert (code.count("[:8]"), code.count("128,")) == (2, 2)
    code = code.replace("[:8]", "[:1]").replace("128,", "32,")

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
    assert (tmp_path / "smol-dlm-pruned" / "model.safetensors").exists()
