"""What a run of the notebooks is doing, read from the notebooks that papermill saves at every cell."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

MINUTE = 60.0  # seconds


@dataclass(frozen=True)
class Job:
    """A notebook, or one cell of its sweep, as far as it has run."""

    notebook: str
    label: str  # of a cell of a sweep; empty for the notebook itself
    cells: int
    finished_cells: int
    seconds: float  # since it began, or what it took; 0 where an earlier run finished it
    is_finished: bool

    def __str__(self) -> str:
        name = f"{self.notebook} {self.label}".rstrip()
        return f"{name} cell {self.finished_cells + 1} of {self.cells}"


def jobs_begun(folder: Path, since: float) -> list[Job]:
    """Return the jobs of a run in `folder` that run or are finished; it began at `since`, in seconds."""
    files = [*sorted(folder.glob("notebooks/*.ipynb")), *sorted(folder.glob("cells/*/*/*.ipynb"))]
    jobs = []
    for file in files:
        job = _job(file)
        if job is None:
            continue
        if file.stat().st_mtime >= since:
            jobs.append(job)
        elif job.is_finished:
            jobs.append(replace(job, seconds=0.0))
    return jobs


def _job(file: Path) -> Job | None:
    """Return what a notebook's file says; None for one that is being written."""
    try:
        notebook = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    about = notebook["metadata"].get("papermill", {})
    states = [cell["metadata"].get("papermill", {}).get("status") for cell in notebook["cells"]]
    seconds = 0.0
    if about.get("start_time"):
        seconds = time.time() - datetime.fromisoformat(about["start_time"]).timestamp()
    return Job(
        notebook=file.stem,
        label="" if file.parent.name == "notebooks" else file.parent.name,
        cells=len(states),
        finished_cells=states.count("completed"),
        seconds=about.get("duration") or seconds,
        is_finished=bool(about.get("end_time")),
    )


def line(jobs: list[Job], counts: Mapping[str, int], minutes: Mapping[str, float], cores: int) -> str:
    """Return one line on a run: what is finished, what runs, and about how long the rest takes.

    `counts` is the number of jobs by notebook, `minutes` what one of its jobs takes on one core, as far as
    that was measured.
    """
    finished = [job for job in jobs if job.is_finished]
    running = [job for job in jobs if not job.is_finished]
    parts = [f"{len(finished)} of {sum(counts.values())} jobs finished", *map(str, running)]
    if all(name in minutes for name in counts):
        left = minutes_left(finished, running, counts, minutes, cores)
        parts.append(f"about {max(1, round(left))} min left")
    return "; ".join(parts)


def minutes_left(
    finished: list[Job],
    running: list[Job],
    counts: Mapping[str, int],
    minutes: Mapping[str, float],
    cores: int,
) -> float:
    """Return about how many minutes the rest of a run takes; finished jobs show the speed of this machine."""
    expected = sum(minutes[job.notebook] for job in finished if job.seconds)
    slowness = sum(job.seconds / MINUTE for job in finished) / expected if expected else 1.0
    rest = [max(0.0, slowness * minutes[job.notebook] - job.seconds / MINUTE) for job in running]
    for name, count in counts.items():
        begun = sum(job.notebook == name for job in [*finished, *running])
        rest += [slowness * minutes[name]] * max(0, count - begun)
    return max([sum(rest) / cores, *rest])
