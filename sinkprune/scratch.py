"""Places for unfinished work, beside what the work is to become; those of killed processes are cleared away.

The name of such a place tells whose it is. The process that made a folder holds a lock in it, and the system
lets go of a lock when its process ends, however it ends: a folder whose lock is free belongs to nobody.
"""

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

HELD = ".held"  # the lock in a scratch folder
OF_SCRATCH = r"\d+\.\w+"  # process and letters: how names of scratch folders end
FORM = re.compile(rf"\.(.+)\.{OF_SCRATCH}")


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder `.NAME.PROCESS.RANDOM` beside `path`, and remove it whatever happens inside.

    What killed processes left for the same path is removed first. Raises OSError if it cannot be made.
    """
    remove_leftovers(path)
    prefix = f".{path.name}.{os.getpid()}."
    while True:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as name:
            folder = Path(name)
            with _held(folder) as is_ours:
                if is_ours:
                    yield folder
                    return


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock of a new scratch folder; yield whether it is still there.

    Before the lock is held, another process may take the folder for one that a killed process left.
    """
    try:
        lock = FileLock(folder / HELD).acquire()
    except FileNotFoundError:
        yield False
        return

    with lock:
        yield (folder / HELD).exists()


def remove_leftovers(path: Path) -> None:
    """Remove scratch folders beside `path` that no living process holds, each with a warning.

    A folder without a lock is empty: its process made it a moment ago, or ended before the lock was made or
    after it was removed. It goes, without a word, if no process of that number is alive.
    """
    if not path.parent.is_dir():
        return

    form = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\w+")
    found = [(place, form.fullmatch(place.name)) for place in path.parent.iterdir()]

    for place, match in found:
        if match is None or place.is_symlink():
            continue

        if (place / HELD).is_file():
            _remove_if_abandoned(place)
        elif not _is_alive(int(match[1])):
            with suppress(OSError):  # it is not empty, or a file: not ours
                place.rmdir()


def scratch_of(place: Path) -> str | None:
    """Return the name of what a scratch folder is to become; None for any other path."""
    match = FORM.fullmatch(place.name)
    is_folder = place.is_dir() and not place.is_symlink()
    return match[1] if match and is_folder else None


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where asking is killing
        return True

    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's, or no number of a process
        return True

    return True


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with FileLock(folder / HELD, timeout=0):
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            shutil.rmtree(folder)
    except (Timeout, OSError):  # a living process holds it, or another one was faster
        return

    warnings.warn(f"removed {folder} ({size:,} bytes), which a killed process left", stacklevel=2)


def give_ordinary_modes(path: Path) -> None:
    """Give a file, or a folder and all in it, the modes of files and folders that this process makes.

    Libraries write weights for the eyes of one user only.
    """
    probe = path.parent / ".mode"
    probe.touch()
    of_file = probe.stat().st_mode & 0o777
    probe.unlink()
    of_folder = of_file | (of_file & 0o444) >> 2  # who may read may enter

    below = path.rglob("*") if path.is_dir() else ()
    for place in (path, *below):
        place.chmod(of_folder if place.is_dir() else of_file)
