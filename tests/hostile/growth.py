"""Many small jobs in one process: the memory that it holds does not grow from one to the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hostile.processes import OWN
from hostile.tally import BROKE, HELD, Tally

WARM = 0.3  # share of all jobs after which everything is imported and cached
SLACK = 8 << 20  # bytes by which the rest may differ: what the allocator and the interpreter keep
GROUP = "jobs in one process, without growth of memory"


def many_jobs(tally: Tally, jobs: int) -> None:
    """Run some jobs one after the other, and count those after which it holds no more than before."""
    command = [sys.executable, "-W", "ignore", "-m", "hostile.growth", str(jobs)]
    done = subprocess.run(command, env=os.environ | OWN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    held = json.loads(done.stdout.splitlines()[-1])
    first = int(WARM * jobs)
    base = max(held[:first])
    for number, size in enumerate(held[first:], first):
        verdict = HELD if size <= base + SLACK else BROKE
        tally.add(GROUP, f"job {number}", verdict, f"{size - base:,} bytes more")


def main(jobs: int) -> None:
    """Run the jobs, and print the bytes that this process holds after each."""
    import gc
    import shutil
    import tempfile
    from contextlib import redirect_stderr, redirect_stdout

    import psutil
    import torch
    from hostile.cases import ALL_WAYS, LEARN, OTHERS, TEXT, command
    from random_models.cases import CASES
    from random_models.writing import write

    from sinkprune.cli.main import main as run
    from sinkprune.memory import release_freed_memory
    from sinkprune.runs import pruning_cost as cost

    cost.PROBE_SECONDS = 0.001
    torch.set_num_threads(1)
    ways = [*ALL_WAYS, *OTHERS]
    held = []
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as nowhere:
        folder = Path(name)
        write(CASES["llada"], folder / "llada")
        write(CASES["llama"], folder / "base")
        (folder / "text.txt").write_text(TEXT)
        (folder / "learn.txt").write_text(LEARN)
        os.chdir(folder)
        for number in range(jobs):
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                status = run([str(part) for part in command(ways[number % len(ways)])])
            assert status == 0, ways[number % len(ways)]
            for made in ("out", "run"):
                path = folder / made
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            gc.collect()
            release_freed_memory()
            held.append(psutil.Process().memory_info().rss)
        os.chdir("/")
    print(json.dumps(held))


if __name__ == "__main__":
    main(int(sys.argv[1]))
