"""The work folder of pruning runs: whose it is, which of its files are whole, and what may be removed.

A work folder belongs to one model and one calibration text. Its marker (MARKER) says so, and without that
file nothing in a folder is touched. This module imports no torch, so a command looks here first.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune.files import atomic, file_digest, read_checked, write_checked, write_json

if TYPE_CHECKING:
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.language_model import LanguageModel

FORMAT = 1  # of everything in a work folder
MARKER = "work.json"
PROGRESS = "progress.json"
DIGEST = ".sha256"  # what is added to the name of a file that has its digest beside it
LISTED = 3  # names of files that an error lists
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")  # of a configuration: no setting
OF_ROOT = re.compile(r"work\.json|(statistics-[0-9a-f]{12}|norms-[a-z]+-\d+)\.safetensors(\.sha256)?")
JOB = re.compile(r"job-[0-9a-f]{12}")
OF_JOB = re.compile(
    r"progress\.json|rows\.safetensors(\.sha256)?|hidden-([01]|at-\d+)\.bin|pass-[0-9a-f]{12}\.safetensors"
)
OF_INPUTS = re.compile(r"\d+\.safetensors")
OF_BLOCKS = re.compile(r"\d{5}\.safetensors")


def identity(lm: LanguageModel, calibration: Calibration | None) -> dict[str, str | bool | None]:
    """Return what a work folder and a pruned model are made from, by name: digests and versions, and whether
    the model was streamed: digests of a streamed and of a loaded model differ.
    """
    settings = lm.model.config.to_dict()
    for name in VOLATILE:
        settings.pop(name, None)

    settings |= {"kind": lm.kind, "mask_token_id": lm.mask_token_id, "logits_shifted": lm.logits_shifted}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        "model": lm.fingerprint(),
        "streamed": not lm.has_blocks_in_memory,
        "settings": hashlib.sha256(text.encode()).hexdigest()[:16],
        "calibration": calibration and calibration.fingerprint,
        "sinkprune": version("sinkprune"),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def marker(root: Path) -> dict | None:
    """Return what the marker of a work folder says; None for a folder that is empty or not there.

    Raises ValueError for a folder with other files, and for a marker that is broken or of another format.
    """
    if not has_marker(root, MARKER, OF_ROOT):
        return None

    file = root / MARKER
    known = _read(file)
    if known is None:
        raise ValueError(f"{file} is broken: remove the work folder {root} to start anew")

    if known.get("format") != FORMAT:
        raise ValueError(
            f"the work folder {root} is of format {known.get('format')}, and this version reads {FORMAT}: "
            "use another folder, or remove it to start anew"
        )

    return known


def was_streamed(root: Path) -> bool | None:
    """Return whether the run of a work folder streams its model; None where none was begun, or none says.

    Raises what `marker` raises.
    """
    known = marker(root)
    return None if known is None else known.get("streamed")


def has_marker(root: Path, name: str, ours: re.Pattern) -> bool:
    """Return whether a work folder holds the marker of that name; one without is empty or not there.

    What a killed write has left of one of `ours`, a form of names, counts as nothing. Raises ValueError for a
    file, and for a folder with other files and no marker.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        raise ValueError(f"the work folder {root} is a file: choose another folder")
    if (root / name).exists():
        return True

    others = sorted(path.name for path in root.iterdir() if not _is_scratch(path, ours))
    if others:
        listed = ", ".join(others[:LISTED]) + (" and more" if len(others) > LISTED else "")
        raise ValueError(
            f"{root} is not a work folder of this command, it holds {listed}: nothing in it was touched; "
            "choose another work folder"
        )
    return False


def claim(root: Path, mine: dict[str, str | bool | None]) -> None:
    """Make the work folder of a model and its text, or check that the one that is there is theirs.

    One that does not say whether its model was streamed is told by the model's digest alone.
    """
    there = marker(root)
    if there is None:
        write_json(root / MARKER, {"format": FORMAT, **mine})
        return

    there.setdefault("streamed", mine.get("streamed"))
    differing = [
        f"{name} ({there.get(name)} there, {value} here)"
        for name, value in mine.items()
        if there.get(name) != value
    ]

    if differing:
        same = "load the model again if it was changed since, " if len(differing) == 1 else ""
        raise ValueError(
            f"the work folder {root} belongs to another run; it differs in {', '.join(differing)}: "
            f"{same}use another folder, or remove it to start anew"
        )


def is_run_of(root: Path, mine: dict[str, str | bool | None]) -> bool:
    """Return whether a work folder is that of a model and its text; raise what `marker` raises."""
    there = marker(root)
    return there is not None and all(there.get(name) == value for name, value in mine.items())


def written_once(file: Path, write: Callable[[Path], object]) -> Path:
    """Return a file that `write` makes once; where it is not what was written, it is made again."""
    note = file.with_name(file.name + DIGEST)
    if file.exists() and note.exists():
        if note.read_bytes() == _line(file).encode():
            return file
        warnings.warn(f"{file} is damaged: it is made again", stacklevel=2)

    with atomic(file) as partial:
        write(partial)

    with atomic(note) as partial:
        partial.write_text(_line(file), encoding="utf-8")

    return file


def _line(file: Path) -> str:
    """Return what `sha256sum` says of a file."""
    return f"{file_digest(file)}  {file.name}\n"


def write_progress(folder: Path, state: dict) -> None:
    """Write how far a job has come, with a digest of it."""
    write_checked(folder / PROGRESS, state)


def read_progress(folder: Path) -> dict | None:
    """Return how far a job has come; None where nothing counts yet, or what counts is damaged."""
    file = folder / PROGRESS
    if not file.exists():
        return None

    state = read_checked(file)
    if state is None:
        warnings.warn(f"{file} is damaged: the job begins anew", stacklevel=2)
    return state


def _read(file: Path) -> dict | None:
    """Return the object in a JSON file, None where it holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_scratch(path: Path, ours: re.Pattern) -> bool:
    """Return whether a path is what a killed write has left of one of our files."""
    name = path.name.removeprefix(".").removesuffix(".tmp").rpartition(".")[0]
    return path.is_dir() and path.name.endswith(".tmp") and ours.fullmatch(name) is not None


def remove_job(job: Path) -> None:
    """Remove the files of a job, progress first; a file that is not one of them stays, with its folder."""
    if not job.is_dir():
        return

    (job / PROGRESS).unlink(missing_ok=True)
    if (job / "blocks").is_dir():
        remove_own(job / "blocks", OF_BLOCKS)
    if (job / "inputs").is_dir():
        remove_own(job / "inputs", OF_INPUTS)
    remove_own(job, OF_JOB)


def remove_root(root: Path) -> bool:
    """Remove a work folder without jobs; return whether it is gone: jobs and files of others stay."""
    if any(JOB.fullmatch(path.name) for path in root.iterdir()):
        return False
    return remove_own(root, OF_ROOT)


def remove_own(folder: Path, ours: re.Pattern, marker_name: str = MARKER) -> bool:
    """Remove our files of a folder, and the folder where it is empty then; return whether it is.

    The marker of a work folder goes last, so that what a kill leaves is still known as ours.
    """
    for path in folder.iterdir():
        if _is_scratch(path, ours):
            shutil.rmtree(path)

    known = [path for path in folder.iterdir() if path.is_file() and ours.fullmatch(path.name)]
    for path in sorted(known, key=lambda path: path.name == marker_name):
        path.unlink()

    if any(folder.iterdir()):
        return False

    folder.rmdir()

    return True
