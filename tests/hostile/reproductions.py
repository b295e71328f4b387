"""`sinkprune reproduce` on a small project, interrupted: the same command ends with the same results.

Everything ends at once, or the kernel of a notebook, or the command by Ctrl-C: each record, finding and
figure is there whole or not at all, and what was measured is not measured again.
"""

import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import small_project
from hostile.cases import contents
from hostile.tally import BROKE, HELD, Tally

GROUP = "interrupted reproductions"
KINDS = ("everything is killed", "Ctrl-C", "a kernel is killed")
KEPT = ("records", "findings", "figures")
NOTEBOOK = small_project.NOTEBOOK.replace("time.time()", "0.5")  # numbers that are the same in every run


def interrupted(tally: Tally, root: Path, cases: int, seed: int = 0) -> None:
    """Interrupt a run after a random time, by one way after another, and run the same command again."""
    project = small_project.make(root / "project", NOTEBOOK)
    small_project.configure(project, {"size": 2, "pause": 2.0}, {"size": 3, "pause": 2.0})
    started = time.perf_counter()
    done = small_project.reproduce(project)
    span = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    expected = results(project)
    rng = random.Random(seed)
    for number in range(cases):
        kind, after = KINDS[number % len(KINDS)], rng.uniform(0.2, 0.9) * span
        shutil.rmtree(project / "runs")
        shutil.rmtree(project / ".snakemake")
        found = _one(project, root / "said", kind, after, expected)
        if found is not None:
            tally.add(GROUP, f"{kind} after {after:.1f} s", *found)


def results(project: Path) -> dict[str, object]:
    """Return the contents of all records, findings and figures, by name."""
    found = contents(project / "runs" / "tiny")
    return {name: content for name, content in found.items() if Path(name).parts[0] in KEPT}


def _one(project: Path, said: Path, kind: str, after: float, expected: dict) -> tuple[str, str] | None:
    """Return the verdict on one interrupted run; None for one that had ended by then."""
    process = small_project.start(project, said)
    time.sleep(after)
    if not _interrupt(psutil.Process(process.pid), kind):
        process.wait()
        return None
    status = process.wait()
    words = said.read_text(errors="replace")
    if kind == "Ctrl-C" and (
        status != 130 or "interrupted: finished notebooks and records are kept" not in words
    ):
        return BROKE, f"status {status}: {words[-300:]}"
    if kind == "a kernel is killed" and "its kernel was killed" not in words:
        return BROKE, f"status {status}: {words[-300:]}"
    for name, content in results(project).items():
        if not _is_scratch(name) and content != expected.get(name):
            return BROKE, f"it left {name}, which is not whole"
    times = {file: file.stat().st_mtime_ns for file in (project / "runs").rglob("records/*/[!.]*.csv")}
    again = small_project.reproduce(project)
    if again.returncode != 0:
        return BROKE, f"again, status {again.returncode}: {again.stderr[-300:]}"
    if results(project) != expected:
        return BROKE, "another result"
    measured_again = [file.name for file, stamp in times.items() if file.stat().st_mtime_ns != stamp]
    return (BROKE, f"measured again: {measured_again}") if measured_again else (HELD, "")


def _interrupt(process: psutil.Process, kind: str) -> bool:
    """Interrupt a run and wait until what it started has ended; return whether it was still running."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        others = process.children(recursive=True)
        if kind == "everything is killed":
            small_project.kill_all([process, *others])
            return True
        if kind == "Ctrl-C":
            kernels = small_project.kernels(process)  # in sessions of their own
            for each in [process, *others]:
                if each not in kernels:
                    with suppress(psutil.NoSuchProcess):
                        each.send_signal(signal.SIGINT)
            _, left = psutil.wait_procs(others, timeout=60)
            left = [
                each.cmdline() for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
            ]
            assert not left, f"still running a minute after Ctrl-C: {left}"
            return True
        if kernels := small_project.kernels(process):
            small_project.kill_all(kernels)
            return True
        time.sleep(0.1)
    return False


def _is_scratch(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
