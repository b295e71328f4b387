"""Time and memory of forwards with sink tracking and of shrunk models, as ratios of one run; and loading."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.timing import in_turns

from sinkprune.models.loading import load
from sinkprune.models.shrinking import shrink
from sinkprune_core.pruning.criteria import unit_magnitude
from sinkprune_core.pruning.structured import choose, scores, unit_counts
from sinkprune_core.sinks import attention

LENGTH = 1024
PEAK = """
import sys, torch
from contextlib import nullcontext
from sinkprune.memory import release_freed_memory
from sinkprune.models.loading import load
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

    def plain() -> None:
        lm.hidden(ids_BT)

    def tracked() -> None:
        with attention.track(lm.model) as tracker:
            lm.hidden(ids_BT)
            tracker.take()

    with torch.inference_mode():
        plain(), tracked()
        ratio, after, before = in_turns(tracked, plain, 7, time.perf_counter)
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


# shrunk by structured pruning


RATIO, BATCH, SHORT, PAIRS = 0.5, 8, 128, 7


@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
def test_half_of_the_weights_needs_at_most_three_fifths_of_the_time(name, record):
    lm = load(name)
    planned = unit_counts(lm, RATIO)
    kept = []
    for block in lm.blocks:
        unit_scores = scores(lm, block, unit_magnitude)
        kept.append({kind: choose(score_U, planned.removed[kind]) for kind, score_U in unit_scores.items()})
    smaller = shrink(lm, kept)
    ids_BT = torch.arange(BATCH * SHORT).view(BATCH, SHORT) % 40000 + 20

    with torch.inference_mode():
        lm.hidden(ids_BT), smaller.hidden(ids_BT)
        ratio, shrunk, dense = in_turns(lambda: smaller.hidden(ids_BT), lambda: lm.hidden(ids_BT), PAIRS)
    assert record(
        f"time of a forward of {name} with {planned.reached:.2%} of its block weights gone as whole units, "
        f"{BATCH} x {SHORT} tokens",
        ratio,
        dense,
        shrunk,
        ("dense", "shrunk"),
        at_most=0.6,
    )


# loading


@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_from_the_cache_takes_less_than_ten_seconds(name, dtype, record):
    load(name, dtype)
    begun = time.perf_counter()
    load(name, dtype)
    seconds = time.perf_counter() - begun
    assert record(
        f"seconds to load {name} in {dtype} from the cache", seconds, None, seconds, ("", "here"), at_most=10
    )
