"""What a diagnosis takes beside one pass of statistics: time and peak memory, on a block of LLaDA-8B's shape.

A pass is what pruning takes before its first block: the sinks and the statistics of the dense model, as a
streamed model has them, through files. Both are timed in turns, on one thread.
"""

import itertools
import statistics
from collections.abc import Callable

import pytest
import torch
from benchmarks.peaks import PEAK, peak_of
from benchmarks.timing import in_turns
from prune_large import LENGTH, LEVELS, SEQUENCES, Size, write_checkpoint

from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune.runs.diagnosing import diagnose
from sinkprune.runs.resume import DiskStore, ResumedPass, WorkFolder
from sinkprune_core import Calibration, Recipe
from sinkprune_core.calibration.dense_statistics import collect

ROUNDS = 3  # of half a minute each
SIZE = Size(blocks=1, vocabulary=2000)  # in narrower blocks the comparison of masks weighs more than products


@pytest.mark.skipif(not PEAK.exists(), reason="reads Linux's own account of peak memory")
def test_a_diagnosis_takes_at_most_a_fifth_more_than_one_pass_of_statistics(tmp_path, record):
    write_checkpoint(tmp_path / "source", SIZE)
    lm = stream(open_checkpoint(tmp_path / "source"), "streamed", torch.bfloat16)
    rng = torch.Generator().manual_seed(0)
    ids_NT = torch.randint(SIZE.vocabulary // 2, (SEQUENCES, LENGTH), generator=rng)
    text = Calibration(ids_NT, batch=16)
    key = Recipe(inputs="noised", propagation="dense", noise_levels=LEVELS, exclude="all").statistics_key

    numbers = itertools.count()
    peaks: dict[str, list[float]] = {"pass": [], "diagnosis": []}

    def one_pass() -> None:
        store = DiskStore(WorkFolder(tmp_path / f"pass-{next(numbers)}", {}), "passes")
        collect(lm, [key], text, progress=False, store=store, kind=ResumedPass)

    def diagnosis() -> None:
        diagnose(lm, text, noise_levels=LEVELS, progress=False, work=tmp_path / f"work-{next(numbers)}")

    def watched(name: str, run: Callable[[], None]) -> Callable[[], None]:
        return lambda: peaks[name].append(peak_of(run))

    one_pass(), diagnosis()
    ratio, after, before = in_turns(watched("diagnosis", diagnosis), watched("pass", one_pass), ROUNDS)

    tokens = SEQUENCES * LENGTH * LEVELS
    where = f"a streamed block of width {SIZE.width}, {tokens} tokens"
    names = ("one pass of statistics", "diagnosis")
    is_fast = record(f"time of a diagnosis, {where}", ratio, before, after, names, at_most=1.2)

    of_pass, of_diagnosis = (statistics.median(found) for found in peaks.values())
    what = f"peak memory of a diagnosis, {where}"
    is_small = record(what, of_diagnosis / of_pass, of_pass, of_diagnosis, names, "GB", at_most=1.1)
    assert is_fast and is_small
