"""What a diagnosis takes beside one pass of statistics: time and peak memory, on a small streamed model.

Each is measured in a process of its own, on one thread, in turns. A pass is what pruning takes before its
first block: the sinks and the statistics of the dense model, as a streamed model has them, through files.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from prune_large import LENGTH, LEVELS, SEQUENCES, Size, write_checkpoint

ROUNDS = 2
SIZE = Size(blocks=2, width=1024, mlp=3072, heads=8, vocabulary=2000)

MEASURE = f"""
import json, sys, time
from pathlib import Path
import torch
from sinkprune.models.devices import choose_dtype
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune.runs.diagnosing import diagnose
from sinkprune.runs.on_disk import OnDisk
from sinkprune_core import Calibration, Recipe
from sinkprune_core.calibration.dense_statistics import collect

torch.set_num_threads(1)
what, source, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
work.mkdir()
lm = stream(open_checkpoint(source), "streamed", torch.bfloat16)
lm.fingerprint()  # reads every file once, and is kept
rng = torch.Generator().manual_seed(0)
text = Calibration(torch.randint(1600, ({SEQUENCES}, {LENGTH}), generator=rng), batch=16)
recipe = Recipe(inputs="noised", propagation="dense", noise_levels={LEVELS}, exclude="all")

Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
begun = time.process_time()
if what == "diagnosis":
    diagnose(lm, text, noise_levels={LEVELS}, progress=False, work=work)
else:
    collect(lm, [recipe.statistics_key], text, progress=False, store=OnDisk(work, True))
seconds = time.process_time() - begun

status = Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps([seconds, peak / 1e6]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of peak memory"
)
def test_a_diagnosis_takes_at_most_a_fifth_more_than_one_pass_of_statistics(tmp_path, record):
    write_checkpoint(tmp_path / "source", SIZE)

    def measured(what: str, number: int) -> tuple[float, float]:
        work = tmp_path / f"{what}-{number}"
        command = [sys.executable, "-W", "ignore", "-c", MEASURE, what, str(tmp_path / "source"), str(work)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, gigabytes = json.loads(done.stdout.splitlines()[-1])
        return seconds, gigabytes

    rounds = [(measured("statistics", number), measured("diagnosis", number)) for number in range(ROUNDS)]

    tokens = SEQUENCES * LENGTH * LEVELS
    where = f"a streamed model of {SIZE.blocks} blocks of width {SIZE.width}, {tokens} tokens"
    names = ("one pass of statistics", "diagnosis")
    reached = []
    for place, (kind, unit, goal) in enumerate((("time", "s", 1.2), ("peak memory", "GB", 1.1))):
        before = statistics.median(one[place] for one, _ in rounds)
        after = statistics.median(other[place] for _, other in rounds)
        ratio = statistics.median(other[place] / one[place] for one, other in rounds)
        what = f"{kind} of a diagnosis, {where}"
        reached.append(record(what, ratio, before, after, names, unit, at_most=goal))

    assert all(reached)
