"""The types of the core and the toolkit are those that an editor sees: pyright has nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYRIGHT = Path(sys.executable).parent / "basedpyright"


@pytest.mark.slow
@pytest.mark.skipif(not PYRIGHT.exists(), reason="basedpyright is not installed")
def test_pyright_has_nothing_to_say():
    """It takes half a minute on one core, so it runs beside other tests."""
    command = [str(PYRIGHT), "--pythonpath", sys.executable]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert checked.returncode == 0, checked.stdout[-4000:] + checked.stderr[-2000:]
