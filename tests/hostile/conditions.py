"""Conditions of a machine under which commands run: a memory limit, places read only.

Under a memory limit and where all is read only, a command works or ends in one sentence, and later well.
"""

import shutil
import signal
from pathlib import Path

from hostile.cases import Bench, command, contents, ends_well, half_output
from hostile.full_disk import mounted_disk
from hostile.processes import Outcome, Trouble
from hostile.tally import BROKE, HELD, REFUSED, Tally, is_one_sentence

MEMORY = "memory limits"
READ_ONLY = "places read only"
GROUPS = (MEMORY, READ_ONLY)


def under_memory_limits(bench: Bench, tally: Tally, ways: list[str], sizes: list[int]) -> None:
    """Let each way map some bytes more than the libraries have, for each of the sizes."""
    cases = [(way, size) for way in ways for size in sizes]

    def one(case: tuple[str, int]) -> tuple[str, str]:
        way, size = case
        expected, _ = bench.straight(way)
        with bench.server() as server, bench.folder() as folder:
            outcome = server.run(folder, command(way), Trouble("memory", size))
            is_fault = outcome.status == -signal.SIGSEGV  # of oneDNN, which uses memory that it did not get
            wrong = half_output(folder, expected) if is_fault else _wrong(outcome, folder, expected)
            if wrong:
                return BROKE, wrong
            if outcome.status == 0:
                return HELD, ""
            verdict, how = ends_well(server, folder, way, expected)
            return (REFUSED, "") if verdict == HELD else (BROKE, f"without a limit: {how or 'refused'}")

    for (way, size), (verdict, how) in zip(cases, bench.pool.map(one, cases), strict=True):
        tally.add(MEMORY, f"{way}, {size} bytes more", verdict, how)


def _wrong(outcome: Outcome, folder: Path, expected: dict) -> str:
    """Return what is wrong with a run that may work or be refused."""
    if outcome.status == 0:
        return "" if contents(folder / "out") == expected else "another result"
    is_aborted = outcome.status == -signal.SIGABRT and "memory allocation of" in outcome.said  # in Rust
    said, *_ = outcome.said.split("Exception ignored in atexit callback")  # of torch, for want of memory
    if not is_aborted and (outcome.status != 1 or not is_one_sentence(said)):
        return f"status {outcome.status}: {outcome.said[-300:]}"
    return half_output(folder, expected)


def in_places_read_only(bench: Bench, tally: Tally, ways: list[str]) -> None:
    """Run each way where its output cannot be written, and where only its output can be."""
    with mounted_disk(bench.root / "read-only") as (place, seen, remount, server):
        for way in ways:
            expected, _ = bench.straight(way)
            remount("rw")
            for path in seen.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            bench.fill(seen)
            remount("ro")
            outcome = server.run(place, command(way))
            wrong = _wrong(outcome, seen, expected)
            if not wrong and outcome.status == 0:
                wrong = "it says that it wrote what cannot be written"
            remount("rw")
            verdict, how = (BROKE, wrong) if wrong else ends_well(server, place, way, expected, seen=seen)
            verdict = REFUSED if verdict == HELD else BROKE
            tally.add(READ_ONLY, f"{way}, all of it", verdict, how)

            remount("ro")
            with bench.folder() as folder:
                for name in ("llada", "base", "text.txt", "learn.txt"):
                    there = folder / name
                    shutil.rmtree(there) if there.is_dir() else there.unlink()
                    there.symlink_to(place / name)
                outcome = server.run(folder, command(way))
                wrong = _wrong(outcome, folder, expected)
                if not wrong and outcome.status != 0:
                    wrong = f"refused: {outcome.said[-300:]}"
            tally.add(READ_ONLY, f"{way}, its inputs", BROKE if wrong else HELD, wrong)
