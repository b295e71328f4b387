"""The peak of this process's memory while a piece of work runs, as Linux counts it."""

from collections.abc import Callable
from pathlib import Path

from sinkprune.memory import release_freed_memory

PEAK = Path("/proc/self/clear_refs")  # to which Linux is told that the peak starts anew


def resident_gigabytes(field: str = "VmRSS") -> float:
    """Return the gigabytes of main memory that this process holds; as `VmHWM` the most it has held."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e9


def peak_of(run: Callable[[], object]) -> float:
    """Return the gigabytes of this process at the peak of a run."""
    release_freed_memory()
    PEAK.write_text("5")
    run()
    return resident_gigabytes("VmHWM")
