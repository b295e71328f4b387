"""What a run of the notebooks is doing, read from the notebooks that papermill saves at every cell."""

import json
import time
from pathlib import Path


def notebook_files(folder: Path) -> dict[Path, str]:
    """Return the executed notebooks of a run, each with the name of the cell of a sweep, or an empty text."""
    labels = dict.fromkeys(sorted(folder.glob("notebooks/*.ipynb")), "")
    return labels | {file: file.parent.name for file in sorted(folder.glob("cells/*/*/*.ipynb"))}


def line(folder: Path, since: float, total: int) -> str:
    """Return one line on a run that began at `since`, in seconds: what is finished, what runs, and about how
    long the rest of its `total` jobs takes, at the speed of those that it has finished.
    """
    finished, finished_now, running = 0, 0, []
    for file, label in notebook_files(folder).items():
        try:
            notebook = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # it is being written
            continue
        is_of_now = file.stat().st_mtime >= since
        if notebook["metadata"].get("papermill", {}).get("end_time"):
            finished += 1
            finished_now += is_of_now
        elif is_of_now:  # others were killed
            states = [cell["metadata"].get("papermill", {}).get("status") for cell in notebook["cells"]]
            name = f"{file.stem} {label}".rstrip()
            cell = min(states.count("completed") + 1, len(states))
            running.append(f"{name} cell {cell} of {len(states)}")
    parts = [f"{finished} of {total} jobs finished", *running]
    if finished_now:
        minutes = (time.time() - since) / 60 * (total - finished) / finished_now
        parts.append(f"about {max(1, round(minutes))} min left")
    return "; ".join(parts)
