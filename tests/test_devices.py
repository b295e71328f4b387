"""Most cases of device_cases.py, which need a process of their own.

`make device-test` runs all of them, and the notebooks.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

HERE = Path(__file__).parent
FEWER = ("test_pruning and memory", "test_training and autoregressive")
CHOSEN = " and ".join(f"not ({case})" for case in FEWER)  # other cases do the same work


@pytest.mark.slow
def test_results_do_not_depend_on_the_device():
    needed = [(backend_registration, "_setup_privateuseone_for_python_backend")]
    needed += [(torch._C, "_set_only_lift_cpu_tensors")]
    if not torch.cuda.is_available() and not all(hasattr(*part) for part in needed):
        pytest.skip(f"torch {torch.__version__} takes no device written in Python, and there is no GPU")
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-k", CHOSEN]
    command = [sys.executable, "-m", "pytest", *options, str(HERE / "device_cases.py")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=900)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
