"""The cases of device_cases.py, which need a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

CASES = Path(__file__).with_name("device_cases.py")


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
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", str(CASES)],
        capture_output=True,
        text=True,
        cwd=CASES.parents[1],
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
