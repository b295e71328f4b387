"""Main memory: how much of it is free."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil

UNLIMITED = 1 << 62  # bytes


def release_freed_memory() -> None:
    """Give freed memory back to the system once, e.g. after loading a model that was converted."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int:
    """Return the bytes of main memory that can be allocated now.

    A container's limit counts, and so does that of the process (`ulimit -v`).
    """
    return min(psutil.virtual_memory().available, _free_in_groups(), _free_in_process())


def peak_memory() -> int:
    """Return the most bytes of main memory that this process has held since it began."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _free_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the free bytes of the control groups that this process is in; no limit without one.

    A group lies in others, whose limits count, too. `groups` is where they are mounted, `own` says which of
    them are this process's; in a container that may be a path outside it, and then what is mounted counts.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        lines = []

    folders = [groups]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, alone or beside version 1
            folders += [*_with_parents(groups, path), *_with_parents(groups / "unified", path)]

    return min(_free_in_group(folder) for folder in folders)


def _with_parents(root: Path, path: str) -> list[Path]:
    """Return the folders of a group and of all that it lies in."""
    inner = Path(path.strip("/"))
    return [root / group for group in (inner, *inner.parents) if ".." not in group.parts]


def _free_in_group(folder: Path) -> int:
    """Return the free bytes of one group; pages of files that nobody writes to are free."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(counts.get(name, 0)) for name in ("inactive_file", "active_file"))
    except (OSError, ValueError):  # no such group, or `max`
        return UNLIMITED

    return max(0, limit - max(0, used - files))


def _free_in_process() -> int:
    """Return the bytes that this process may still map under its own limits, or no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return UNLIMITED

    used = psutil.Process().memory_info()
    free = UNLIMITED

    for limit, used_bytes in (
        (resource.RLIMIT_AS, used.vms),
        (resource.RLIMIT_DATA, getattr(used, "data", 0)),
    ):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            free = min(free, max(0, most - used_bytes))

    return free
