"""The cases of device_cases.py, which need a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

CASES = Path(__file__).with_name("device_cases.py")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available() and not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="this torch takes no device written in Python")
def test_results_do_not_depend_on_the_device():
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", str(CASES)], capture_output=True, text=True, cwd=CASES.parents[1], timeout=600)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
