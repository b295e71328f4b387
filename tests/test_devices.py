"""Most cases of device_cases.py and one of device_notebooks.py, which need a process of their own.

`make device-test` runs all of them.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

HERE = Path(__file__).parent
FEWER = (
    "test_pruning and not (disk or structured)",
    "test_training and autoregressive",
)
CASES = " and ".join(f"not ({case})" for case in FEWER)  # other cases do the same work
NOTEBOOKS = "06_real"  # loading, pruning and tasks; the cases have scoring, hiding and writing
CHOSEN = f"(device_cases and ({CASES})) or (device_notebooks and ({NOTEBOOKS}))"


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
    files = [str(HERE / name) for name in ("device_cases.py", "device_notebooks.py")]
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-k", CHOSEN]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
