"""The notebooks of profile `quick` fit into Binder's memory and into five minutes, one kernel at a time."""

import shutil
import sys
import threading
import time
from contextlib import contextmanager

import jupytext
import papermill
import psutil
import pytest
import yaml

from sinkprune_core.files import project_root

ROOT = project_root()
QUICK = ROOT / "workflow" / "config" / "quick.yml"
PROFILE = yaml.safe_load(QUICK.read_text(encoding="utf-8"))["notebooks"]
EVERY = 0.1  # seconds between two measurements


def kernel_bytes() -> int:
    """Return the proportional set size of the kernels that this process started.

    That is their own memory and their part in shared libraries.
    """
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "ipykernel_launcher" in process.cmdline():
                total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            pass
    return total


@contextmanager
def watched():
    """Yield a list whose one entry is the largest `kernel_bytes` while the block runs."""
    peak = [0]
    ended = threading.Event()

    def measure():
        while not ended.wait(EVERY):
            peak[0] = max(peak[0], kernel_bytes())

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's part in shared memory")
@pytest.mark.parametrize("name", PROFILE)
def test_a_notebook_of_profile_quick_stays_below_one_and_a_half_gigabytes_and_five_minutes(
    name, tmp_path, record
):
    jupytext.write(jupytext.read(ROOT / "notebooks" / f"{name}.py"), tmp_path / "in.ipynb")
    profile = "peak-memory"  # of its own, so that nothing is computed already
    shutil.rmtree(ROOT / "runs" / profile, ignore_errors=True)
    try:
        begun = time.perf_counter()
        with watched() as peak:
            papermill.execute_notebook(
                tmp_path / "in.ipynb",
                tmp_path / "out.ipynb",
                {**(PROFILE[name] or {}), "profile": profile},
                kernel_name="python3",
                progress_bar=False,
            )
    finally:
        shutil.rmtree(ROOT / "runs" / profile, ignore_errors=True)
    minutes = (time.perf_counter() - begun) / 60
    assert peak[0] > 2e8, "no kernel was seen"
    assert record(f"time of {name}, profile quick", minutes, None, minutes, ("", "here"), "min", at_most=5)
    assert record(
        f"peak memory of the kernel of {name}, profile quick",
        peak[0] / 1e9,
        None,
        peak[0] / 1e9,
        ("", "here"),
        "GB",
        at_most=1.5,
    )
