"""The cases of device_cases.py, which need a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).with_name("device_cases.py")


@pytest.mark.slow
def test_results_do_not_depend_on_the_device():
    if not torch.cuda.is_available() and subprocess.run([sys.executable, "-c", "import elsewhere"], cwd=CASES.parent, capture_output=True).returncode:
        pytest.skip(f"torch {torch.__version__} takes no device written in Python the way tests/elsewhere.py writes it, and there is no GPU")
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", str(CASES)], capture_output=True, text=True, cwd=CASES.parents[1], timeout=600)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
