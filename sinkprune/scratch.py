"""Scratch folders for unfinished work, beside what the work is to become; those of killed processes go.

A process holds a lock in its scratch folder, and the system releases it however the process ends.
"""

import glob
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # in a scratch folder
SUFFIX = ".tmp"


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder `.NAME.RANDOM.tmp` beside `path`, and remove it whatever happens inside.

    What killed processes left for the same path is removed first. Raises OSError if it cannot be made.
    """
    remove_leftovers(path)
    folder = Path(tempfile.mkdtemp(SUFFIX, f".{path.name}.", path.parent))
    try:
        with FileLock(folder / LOCK):  # makes the folder again where another process took it for a leftover
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove the scratch folders beside `path` whose process has ended, each with a warning."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{SUFFIX}"):
        try:
            if not (folder / LOCK).exists():
                folder.rmdir()  # of a process that was killed before it had a lock
                continue

            with FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder)
        except (Timeout, OSError):  # it is in use, it holds other files, or another process was faster
            continue

        warnings.warn(f"removed {folder}, which a killed process left", stacklevel=2)
