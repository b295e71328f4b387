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
FEWER = ("test_pruning and memory and not rollout", "test_training and autoregressive")
CHOSEN = " and ".join(f"not ({case})" for case in FEWER)  # other cases do the same work


@pytest.mark.slow
def test_results_do_not_depend_on_the_device():
    takes_python_devices = hasattr(
        backend_registration, "_setup_privateuseone_for_python_backend"
    ) and hasattr(torch._C, "_set_only_lift_cpu_tensors")
    if not torch.cuda.is_available() and not takes_python_devices:
        pytest.skip(
            f"torch {torch.__version__} takes no device written in Python, as tests/fake_device.py is, "
            "and there is no GPU"
        )
    files = [str(HERE / "device_cases.py")]
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-k", CHOSEN]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
