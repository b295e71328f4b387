"""The notebooks of profile `quick`, one at a time, fit into Binder's 2 GB and are done in minutes: in float32
too, which a CPU without units for bfloat16 takes.
"""

import resource
import shutil
import sys
import threading
from contextlib import contextmanager

import jupytext
import papermill
import psutil
import pytest
import torch
import yaml

from sinkprune.files import write_json
from sinkprune.models.devices import choose_dtype
from sinkprune_companion import project_root
from sinkprune_companion.pages import sources

ROOT = project_root()
QUICK = ROOT / "workflow" / "config" / "quick.yml"
PROFILE = yaml.safe_load(QUICK.read_text(encoding="utf-8"))["notebooks"]
EVERY = 0.3  # seconds between two measurements


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


def cpu_seconds() -> float:
    """Return the processor time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
def test_a_notebook_of_profile_quick_takes_little_memory_and_minutes(name, tmp_path, monkeypatch, request):
    """With --record, what it took goes into docs/run_costs.json."""
    jupytext.write(jupytext.read(ROOT / "notebooks" / f"{name}.py"), tmp_path / "in.ipynb")
    profile = "peak-memory"  # of its own, so that nothing is computed already
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in the workflow
    shutil.rmtree(ROOT / "runs" / profile, ignore_errors=True)
    begun = cpu_seconds()
    try:
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
    cost = {"core_minutes": (cpu_seconds() - begun) / 60, "gigabytes": peak[0] / 1e9, "jobs": 1}
    print(f"\n{name}: {cost['core_minutes']:.1f} core-minutes, {cost['gigabytes']:.1f} GB")
    if request.config.getoption("--record"):
        write_json(ROOT / sources.COSTS, sources.with_costs("quick", {name: cost}))
    assert peak[0] > 2e8, "no kernel was seen"
    # in bfloat16 a model takes a quarter of a GB less than in float32, where Binder's 2 GB must do
    gigabytes, minutes = (1.75, 10) if choose_dtype("auto", "cpu") == torch.bfloat16 else (2.0, 20)
    assert cost["gigabytes"] < gigabytes
    assert cost["core_minutes"] < minutes
