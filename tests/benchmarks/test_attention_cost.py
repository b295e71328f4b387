"""Time and memory of sink tracking against plain SDPA on the embedded pair, as ratios measured in one run."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sinkprune_core.models.loading import load
from sinkprune_core.sinks import attention

LENGTH = 1024
PEAK = """
import sys, torch
from contextlib import nullcontext
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.loading import load
from sinkprune_core.sinks import attention
lm = load(sys.argv[1])
release_freed_memory()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew: what loading needed does not count
ids = torch.arange(1024)[None] % 40000 + 20
tracking = attention.track(lm.model) if sys.argv[2] == "tracked" else nullcontext()
with torch.inference_mode(), tracking as tracker:
    lm.hidden(ids)
    if tracker:
        tracker.take()
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
def test_tracking_costs_at_most_twice_the_time_of_plain_sdpa(name, record):
    lm = load(name)
    ids_BT = torch.arange(LENGTH)[None] % 40000 + 20

    def seconds() -> float:
        begun = time.perf_counter()
        lm.hidden(ids_BT)
        return time.perf_counter() - begun

    def tracked() -> float:
        begun = time.perf_counter()
        with attention.track(lm.model) as tracker:
            lm.hidden(ids_BT)
            tracker.take()
        return time.perf_counter() - begun

    with torch.inference_mode():
        seconds(), tracked()
        pairs = [(seconds(), tracked()) for _ in range(7)]
    ratio = statistics.median(after / before for before, after in pairs)
    before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert record(
        f"time of a forward with sink tracking, {name}, {LENGTH} tokens",
        ratio,
        before,
        after,
        ("plain", "tracked"),
        at_most=2,
    )


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of peak memory"
)
@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
def test_tracking_needs_at_most_a_tenth_more_peak_memory(name, record):
    peaks = {}
    for how in ("plain", "tracked"):
        command = [sys.executable, "-W", "ignore", "-c", PEAK, name, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[how] = int(done.stdout.split()[-1])
    ratio = peaks["tracked"] / peaks["plain"]
    assert record(
        f"peak memory of a forward with sink tracking, {name}, 1024 tokens",
        ratio,
        peaks["plain"] / 1e6,
        peaks["tracked"] / 1e6,
        ("plain", "tracked"),
        "GB",
        at_most=1.1,
    )
