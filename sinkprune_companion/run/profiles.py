"""A profile is the name of a run: of its parameters in workflow/config, of its folder in runs/, and of an
archive of its tables, so that anyone can draw and analyse anew, or go on, without measuring.
"""

import json
import math
import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sinkprune.files import atomic, file_digest, make_folder
from sinkprune.scratch import scratch_folder
from sinkprune.spelling import suggestion
from sinkprune_companion import project_root

PUBLISHED = ("full", "evidence")  # whose results the written sentences of notebooks speak of
TOO_SMALL_FOR_VERDICTS = ("quick",)  # it shows in minutes that everything runs
COSTS = "docs/run_costs.json"  # by profile: `costs` by notebook, `platform` and `torch`
MARK = "from-archive"  # in a folder of records of which some come from an archive: no job measured them


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
            raise RuntimeError("another `sinkprune reproduce` is running here: wait or stop it") from None
        yield stream.fileno()


def notebook_files(folder: Path) -> dict[Path, str]:
    """Return the executed notebooks of a run, each with the name of the cell of a sweep, or an empty text."""
    labels = dict.fromkeys(sorted(folder.glob("notebooks/*.ipynb")), "")
    return labels | {file: file.parent.name for file in sorted(folder.glob("cells/*/*/*.ipynb"))}


def progress(folder: Path, since: float, jobs: dict[str, int]) -> str:
    """Return one line on a run that began at `since`, in seconds: how many of its `jobs` are finished, what
    runs, and about how long the rest takes, by what jobs of each notebook once took and this run's speed.
    """
    file = project_root() / COSTS
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    costs = (known.get(folder.name) or known.get("hour", {})).get("costs", {})
    minutes = {name: cost["core_minutes"] / cost["jobs"] for name, cost in costs.items()}  # of a job
    left = sum(minutes.get(name, 1) * count for name, count in jobs.items())
    finished, done, running = 0, 0.0, []

    for file, label in notebook_files(folder).items():  # which papermill saves at every cell
        try:
            notebook = json.loads(file.read_text(encoding="utf-8"))
            written = file.stat().st_mtime
        except (FileNotFoundError, ValueError):  # its job begins anew, or it is being written
            continue

        states = [cell["metadata"].get("papermill", {}).get("status") for cell in notebook["cells"]]
        cell = min(states.count("completed") + 1, len(states))
        is_finished = bool(notebook["metadata"].get("papermill", {}).get("end_time"))
        finished += is_finished

        if written >= since:  # others were killed, or finished in another run
            done += minutes.get(file.stem, 1) * cell / len(states)
            if not is_finished:
                running.append(" ".join([file.stem, *label.split(), f"cell {cell} of {len(states)}"]))
        elif is_finished:
            left -= minutes.get(file.stem, 1)

    parts = [f"{finished} of {sum(jobs.values())} jobs finished", *running]
    if done and finished < sum(jobs.values()):
        parts.append(f"about {max(1, round((time.time() - since) / 60 * (left - done) / done))} min left")

    return "; ".join(parts)


# the archive of a profile's tables


def archive_file(profile: str) -> Path:
    """Return where the archive of a profile lies."""
    return project_root() / "figures" / f"records-{profile}.tar.xz"


def pack(profile: str, files: Iterable[Path], target: Path) -> None:
    """Write the tables among some records of `runs/<profile>`, each with its key, to an archive, and beside
    it its digest, as `sha256sum --check` reads it. Two archives of the same records are the same to the byte.

    Traces of attention, hundreds of megabytes, stay out. Raises FileNotFoundError where there are no tables.
    """
    folder = run_folder(profile) / "records"
    tables = sorted(file for file in files if file.suffix == ".csv")
    if not tables:
        raise FileNotFoundError(f"no records in runs/{profile}: run `sinkprune reproduce` first")

    with atomic(target) as partial, tarfile.open(partial, "w:xz", preset=9) as archive:
        for file in tables:
            for part in (file, file.with_suffix(".json")):
                entry = tarfile.TarInfo(part.relative_to(folder).as_posix())
                entry.size = part.stat().st_size
                with part.open("rb") as content:
                    archive.addfile(entry, content)

    with atomic(Path(f"{target}.sha256")) as partial:
        partial.write_text(f"{file_digest(target)}  {target.name}\n", encoding="utf-8")


def unpack(profile: str) -> int:
    """Put the archived records of a profile into `runs/<profile>` and return how many files were missing.

    Files that are there already stay. Errors are those of `put_missing`.
    """
    folder = run_folder(profile) / "records"
    missing = put_missing(profile, folder)
    if missing:
        (folder / MARK).touch()

    return missing


def put_missing(archive: str, folder: Path, below: str = "") -> int:
    """Put the files of `figures/records-<archive>.tar.xz` that a folder lacks into it; return their number.

    `below` is how the names of the files begin that are wanted. Each appears whole, so a process that reads
    or unpacks the same folder meanwhile finds no part of one. Raises, before a file is written,
    FileNotFoundError where the project keeps no such archive, and ValueError for one that is not what its
    digest says.
    """
    source = archive_file(archive)
    digest = Path(f"{source}.sha256")
    for file in (source, digest):
        if not file.exists():
            raise FileNotFoundError(
                f"figures/{file.name} is missing: the project keeps no records of profile {archive}"
            )

    if file_digest(source) != digest.read_text(encoding="utf-8").partition(" ")[0]:
        raise ValueError(
            f"figures/{source.name} is damaged (its SHA-256 is not that of {digest.name}): fetch both again"
        )

    make_folder(folder)
    with tarfile.open(source) as opened, scratch_folder(folder / "unpacked") as scratch:
        wanted = [member for member in opened if member.isfile() and member.name.startswith(below)]
        missing = [member for member in wanted if not (folder / member.name).exists()]
        opened.extractall(scratch, missing, filter="data")

        for member in missing:
            place = folder / member.name
            make_folder(place.parent)
            os.replace(scratch / member.name, place)

    return len(missing)


def published_files(profile: str) -> list[Path]:
    """Return the files in `runs/<profile>` of the records that the project keeps."""
    with tarfile.open(archive_file(profile)) as archive:
        return [run_folder(profile) / "records" / name for name in archive.getnames()]
