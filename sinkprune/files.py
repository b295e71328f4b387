"""Where files live, and how they are written: the cache, the repository, atomic writes, digests, locks.

Nothing here depends on the working directory, so notebooks run the same by hand, papermill or the graph.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sinkprune.scratch import give_ordinary_modes, scratch_folder

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"  # models, adapters, tasks and texts that ship
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a full disk, or beyond a quota, ends with
DIGESTS = "digests.json"  # beside the files of a folder: the digest of each
PLANNED = Path("pruned")  # where a run that is only planned would write, if no place is named
FRESH = 2.0  # seconds in which a file may change without another time of modification


def cache_dir() -> Path:
    """Return the cache directory.

    It is `$SINKPRUNE_CACHE`, else `$XDG_CACHE_HOME/sinkprune`, else `~/.cache/sinkprune`.
    """
    folder = os.environ.get("SINKPRUNE_CACHE")
    if not folder:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches) / "sinkprune"
    return resolved(Path(folder).expanduser())


def free_disk_at(path: Path) -> int:
    """Return the free bytes of the disk that a path, which need not exist yet, lies on."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """Return a path, or the first folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def resolved(path: Path | str) -> Path:
    """Return where a path leads; raise ValueError where symbolic links lead round in a circle."""
    with suppress(RuntimeError):  # of a circle; from Python 3.13 on it comes back as it is
        place = Path(path).resolve()
        if not any(part.is_symlink() for part in (place, *place.parents)):
            return place
    raise ValueError(f"{path} leads to itself through symbolic links: choose another place")


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on any failure.

    Works for a file or for a directory that does not exist yet (the block decides which by what it creates).
    What replaces `path` has been flushed to disk. Raises OSError with a sentence where the disk is full.
    """
    path = Path(path)
    with room_needed(path):
        make_folder(path.parent)
        with scratch_folder(path) as scratch:
            partial = scratch / path.name
            yield partial
            give_ordinary_modes(partial)
            flush(partial)
            os.replace(partial, path)
            flush_one(path.parent)


@contextmanager
def room_needed(path: Path | str) -> Iterator[None]:
    """Turn the error of a full disk into an OSError that names `path` and says what to do."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number not in FULL:
            raise
        full = OSError(
            f"{path} cannot be written ({os.strerror(number)}): "
            "make room there or choose another place, then run the same again"
        )
        full.errno = number
        raise full from error


def _system_error(error: Exception) -> int | None:
    """Return the number of the system's error behind an exception, also where a library in Rust raised it."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return None if number is None else int(number[1])


def make_folder(path: Path) -> None:
    """Make a folder that need not exist, and those above it; each is on the disk then."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    flush_one(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            flush(child)
    flush_one(path)


def flush_one(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if os.name == "nt":
        if is_folder:
            return  # Windows cannot open a folder
        descriptor = os.open(path, os.O_RDWR)
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # some file systems do not flush folders
    finally:
        os.close(descriptor)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as readable JSON, atomically. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_digest(path: Path | str) -> str:
    """Return the SHA-256 of a large file that rarely changes; it is kept in the cache.

    The file is read again when its size, its identity on the disk or one of its times is another.
    """
    path = resolved(path)
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    note = cache_dir() / "digests" / f"{name}.json"
    status = _status(path)
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["status"] == status:
            return known["sha256"]
    digest = file_digest(path)
    is_settled = time.time_ns() - max(status["modified"], status["changed"]) > FRESH * 1e9
    if is_settled and _status(path) == status:
        with suppress(OSError):  # a cache that cannot be written only costs time
            write_json(note, {"path": str(path), "status": status, "sha256": digest})
    return digest


def _status(path: Path) -> dict[str, int]:
    """Return what is another when a file was written to, whatever its time of modification was set to."""
    status = path.stat()
    return {
        "size": status.st_size,
        "file": status.st_ino,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the digests of the files of a folder whose names fit one of some patterns, by name."""
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]
    return {file.name: file_digest(file) for file in files}


def write_digests(folder: Path) -> None:
    """Write the digest of every file of a folder into the folder, for `damaged_files`."""
    write_json(folder / DIGESTS, digests(folder, "[!.]*"))


def damaged_files(folder: Path) -> list[str]:
    """Return the names of the files of a folder that are not what `write_digests` saw.

    A file is read only where its size or one of its times differ. A folder without digests gets some: what it
    holds now is what later calls compare with.
    """
    try:
        known = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        files = {folder / name: digest for name, digest in known.items()}
        return [
            file.name
            for file, digest in files.items()
            if not (file.is_file() and known_digest(file) == digest)
        ]
    except FileNotFoundError:
        with suppress(OSError):  # of a cache that may be read only
            write_digests(folder)
        return []
    except (ValueError, AttributeError):
        return [DIGESTS]


@contextmanager
def held(path: Path | str) -> Iterator[None]:
    """Hold the one lock of an output or of a work folder, which need not exist yet.

    The lock is a file beside `path` that is gone afterwards; it frees itself when a process dies. A thread
    may hold a path several times. Raises RuntimeError at once, saying who holds it, where another process or
    thread does, and ValueError for symbolic links that lead round in a circle.
    """
    from filelock import FileLock, Timeout

    path = resolved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    holder = path.with_name(f".{path.name}.holder")
    lock = FileLock(file, is_singleton=True)  # it counts how often a thread holds it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"{path} is in use by {_described(holder)}: wait until that has ended, or choose another place"
        ) from None
    is_outermost = lock.lock_counter == 1
    try:
        if is_outermost:
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            known = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
            with room_needed(path):
                holder.write_text(json.dumps(known) + "\n", encoding="utf-8")
        yield
    finally:
        if is_outermost:
            holder.unlink(missing_ok=True)
            with suppress(OSError):  # Windows removes no open file
                file.unlink()  # while it is held: who waits for it looks whether it is still there
        lock.release()


def _described(holder: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        known = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {known['process']} on {known['machine']} since {known['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process that has just begun"


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files in a folder, 0 where there is none; what vanishes meanwhile is 0."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(parent, name))
    return total
