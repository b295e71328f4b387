"""What a run of the notebooks is doing, read from the notebooks that papermill saves at every cell."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
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


def notebook_files(folder: Path) -> dict[Path, str]:
    """Return the executed notebooks of a run, each with the name of the cell of a sweep, or an empty text."""
    labels = dict.fromkeys(sorted(folder.glob("notebooks/*.ipynb")), "")
    return labels | {file: file.parent.name for file in sorted(folder.glob("cells/*/*/*.ipynb"))}


def jobs_begun(folder: Path, since: float) -> list[Job]:
    """Return the jobs of a run in `folder` that run or are finished; it began at `since`, in seconds."""
    jobs = []
    for file, label in notebook_files(folder).items():
        try:
            notebook = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # it is being written
            continue
        about = notebook["metadata"].get("papermill", {})
        states = [cell["metadata"].get("papermill", {}).get("status") for cell in notebook["cells"]]
        is_finished = bool(about.get("end_time"))
        is_earlier = file.stat().st_mtime < since
        if is_earlier and not is_finished:  # it was killed then
            continue
        seconds = about.get("duration") or 0.0
        if about.get("start_time") and not seconds:
            seconds = time.time() - datetime.fromisoformat(about["start_time"]).timestamp()
        finished_cells = states.count("completed")
        seconds = 0.0 if is_earlier else seconds
        jobs.append(Job(file.stem, label, len(states), finished_cells, seconds, is_finished))
    return jobs


def line(jobs: list[Job], counts: Mapping[str, int], minutes: Mapping[str, float], cores: int) -> str:
    """Return one line on a run: what is finished, what runs, and about how long the rest takes.

    `counts` is the number of jobs by notebook, `minutes` what one of its jobs takes on one core, as far as
    that was measured; finished jobs show the speed of this machine.
    """
    finished = [job for job in jobs if job.is_finished]
    running = [job for job in jobs if not job.is_finished]
    parts = [f"{len(finished)} of {sum(counts.values())} jobs finished", *map(str, running)]
    if all(name in minutes for name in counts):
        expected = sum(minutes[job.notebook] for job in finished if job.seconds)
        slowness = sum(job.seconds / MINUTE for job in finished) / expected if expected else 1.0
        rest = [max(0.0, slowness * minutes[job.notebook] - job.seconds / MINUTE) for job in running]
        for name, count in counts.items():
            begun = sum(job.notebook == name for job in jobs)
            rest += [slowness * minutes[name]] * max(0, count - begun)
        left = max([sum(rest) / cores, *rest])
        parts.append(f"about {max(1, round(left))} min left")
    return "; ".join(parts)
