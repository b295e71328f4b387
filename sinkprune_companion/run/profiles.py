"""A profile is the name of a run: of its parameters in workflow/config and of its folder in runs/."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sinkprune_companion import project_root
from sinkprune_core.spelling import suggestion


def run_folder(profile: str) -> Path:
    """Return `runs/<profile>`; raise ValueError for what is a path instead of a name."""
    if not re.fullmatch(r"[\w-]+", profile):
        raise ValueError(f"profile {profile!r} is no name: use letters, digits, - and _, as in quick")
    return project_root() / "runs" / profile


def jobs_by_notebook(profile: str) -> dict[str, int]:
    """Return how many jobs each notebook of a profile has: its own, and one per cell of its sweep.

    Raises ValueError for a profile that has no file in workflow/config.
    """
    files = {file.stem: file for file in sorted((project_root() / "workflow" / "config").glob("*.yml"))}
    if profile not in files:
        near = suggestion(profile, files)
        raise ValueError(f"profile {profile!r} is unknown{near or ';'} choose one of {', '.join(files)}")
    config = yaml.safe_load(files[profile].read_text(encoding="utf-8"))
    counts = dict.fromkeys(config["notebooks"], 1)
    for name, grid in (config.get("sweep") or {}).items():
        if name in counts:
            counts[name] += math.prod(len(values) for values in grid.values() if isinstance(values, list))
    return counts


@contextmanager
def lock_of_all_runs() -> Iterator[int]:
    """Hold the lock of all runs, and yield its descriptor.

    A process that inherits the descriptor holds the lock too: notebooks that run on after this process was
    killed are not joined by others. Raises RuntimeError where another run holds it.
    """
    import fcntl

    runs = project_root() / "runs"
    runs.mkdir(exist_ok=True)
    with (runs / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                "another `sinkprune reproduce` is running here: wait for it or stop it"
            ) from None
        yield stream.fileno()
