"""Files: where they live, and how they are read, written, compared and locked.

What is written appears whole or not at all. Nothing here depends on the working directory, so notebooks run
the same by hand, papermill or the graph.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sinkprune.scratch import scratch_folder

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"  # models, adapters, tasks and texts that ship
PLANNED = Path("pruned")  # where a run that is only planned would write, if no place is named
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a full disk, or beyond a quota, ends with
DIGESTS = "digests.json"  # beside the files of a folder: the digest of each
CHECK = "check"  # the field of a checked JSON file with the digest of its other fields
FRESH = 2.0  # seconds in which a file may change without another time of modification

# places


def cache_dir() -> Path:
    """Return the cache: `$SINKPRUNE_CACHE`, else `$XDG_CACHE_HOME/sinkprune`, else `~/.cache/sinkprune`.

    Raises ValueError for a name that is not UTF-8, in no known home, or that leads to itself.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("SINKPRUNE_CACHE") or Path(caches) / "sinkprune")
    check_decodable(folder)
    try:
        return folder.expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(f"SINKPRUNE_CACHE={folder} leads nowhere ({error}): name a folder for it") from None


def check_decodable(path: os.PathLike[str] | str) -> None:
    """Raise ValueError for a path with bytes that are no UTF-8: no page, card or library could name it."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        words = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(f"{words} holds bytes that are not UTF-8: write it in UTF-8") from None


def check_new_folder(path: Path) -> None:
    """Raise FileExistsError for the folder of an output that is there: nothing is ever overwritten."""
    if path.exists():
        raise FileExistsError(f"output folder {path} exists: choose another name or remove it first")


def existing(path: Path) -> Path:
    """Return a path, or the first folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def free_disk_at(path: Path) -> int:
    """Return the free bytes of the disk that a path, which need not exist yet, lies on."""
    return shutil.disk_usage(existing(path)).free


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files in a folder, 0 where there is none; what vanishes meanwhile is 0."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


# reading


def check_ordinary(path: Path | str) -> None:
    """Raise ValueError for a pipe, a socket or a device, of which reading may never end.

    Raises IsADirectoryError for a folder, FileNotFoundError where there is nothing.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no ordinary file: copy what it gives into a file, and give that")
    path.stat()


def read_text(path: Path | str) -> str:
    """Return a text of UTF-8, with or without a mark of byte order, lines ended by a newline.

    Raises ValueError for other bytes, among them UTF-16, which a NUL betrays, and what `check_ordinary` does.
    """
    check_ordinary(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from None

    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text (it has a NUL, as UTF-16 has): save it as UTF-8")
    return text


def json_in(path: Path | str) -> Any:
    """Return what a JSON file holds; raise ValueError for other text, and what `read_text` raises."""
    text = read_text(path)
    try:
        return json_of(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): fetch it again") from None


def json_of(text: str) -> Any:
    """Return what a text of JSON holds; raise ValueError for other text, and for a key that comes twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key[:60]!r} comes twice")
        value[key] = item
    return value


# writing


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on any failure.

    Works for a file or for a folder that does not exist yet (the block decides which by what it creates).
    What replaces `path` has been flushed to disk. Raises OSError with a sentence where the disk is full, and
    FileExistsError for a folder that another call has made meanwhile.
    """
    path = Path(path)
    with room_needed(path):
        make_folder(path.parent)
        with scratch_folder(path) as scratch:
            partial = scratch / path.name
            yield partial

            if partial.is_dir() and path.exists():
                raise FileExistsError(f"{path} exists: choose another name or remove it first")
            _give_ordinary_modes(partial)
            flush(partial)
            os.replace(partial, path)
            flush_one(path.parent)


@contextmanager
def room_needed(path: Path | str) -> Iterator[None]:
    """Turn the error of a full disk into an OSError that names `path` and says what to do."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if in_rust := re.search(r"\(os error (\d+)\)", str(error)):  # of safetensors
            number = int(in_rust[1])
        if number not in FULL:
            raise

        full = OSError(
            f"{path} cannot be written ({os.strerror(number)}): "
            "make room there or choose another place, then run the same again"
        )
        full.errno = number
        raise full from error


def _give_ordinary_modes(path: Path) -> None:
    """Give a file, or a folder and all in it, the modes of new files and folders; safetensors writes 0600."""
    probe = path.parent / "mode"
    probe.touch()
    of_file = probe.stat().st_mode & 0o777
    of_folder = of_file | (of_file & 0o444) >> 2  # who may read may enter

    for place in (path, *path.rglob("*")):
        place.chmod(of_folder if place.is_dir() else of_file)


def make_folder(path: Path) -> None:
    """Make a folder that need not exist, and those above it; each is on the disk then."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        flush_one(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    for place in (*path.rglob("*"), path):
        flush_one(place)


def flush_one(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # some file systems do not flush folders
    finally:
        os.close(descriptor)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as readable JSON, as `atomic` does; raise ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_checked(path: Path, value: Mapping[str, object]) -> None:
    """Write an object of JSON with a digest of it, as `write_json` does."""
    write_json(path, {**value, CHECK: json_digest(value)})


def read_checked(path: Path) -> dict[str, Any] | None:
    """Return what `write_checked` wrote; None where there is nothing, or not what was written."""
    try:
        value = json_in(path)
        is_whole = value.pop(CHECK) == json_digest(value)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return None
    return value if is_whole else None


# digests


def json_digest(value: object) -> str:
    """Return the SHA-256 of a value of JSON, whatever the order of its names, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of an ordinary file, 64 hexadecimal digits; raise what `check_ordinary` raises."""
    check_ordinary(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_digest(path: Path | str) -> str:
    """Return the SHA-256 of a large file that rarely changes; it is kept in the cache.

    The file is read again when its size, its identity on the disk or one of its times is another.
    """
    path = Path(path).resolve()
    note = cache_dir() / "digests" / f"{json_digest(str(path))[:32]}.json"

    status = file_status(path)
    known = read_checked(note)
    if known is not None and known["status"] == status:
        return known["sha256"]

    digest = file_digest(path)
    is_settled = time.time_ns() - max(status["modified"], status["changed"]) > FRESH * 1e9
    if is_settled and file_status(path) == status:
        with suppress(OSError):  # a cache that cannot be written only costs time
            write_checked(note, {"path": str(path), "status": status, "sha256": digest})
    return digest


def file_status(path: Path) -> dict[str, int]:
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
    """Return the names of the files of a folder that are not what `write_digests` saw; [] without digests."""
    try:
        known = json_in(folder / DIGESTS)
    except FileNotFoundError:
        return []
    except ValueError:
        return [DIGESTS]

    files = {name: folder / name for name in known}
    return [name for name, file in files.items() if not file.is_file() or known_digest(file) != known[name]]


# locks


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the lock of an output or of a work folder, which need not exist yet: the file `.NAME.lock` beside.

    It is released when the process ends, however it ends. A thread may hold it several times. Raises
    RuntimeError at once where another process or thread holds it.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)  # it counts how often it is held

    with room_needed(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"{path} is in use by another process: wait until that has ended, or choose another place"
            ) from None

    try:
        yield
    finally:
        if lock.lock_counter == 1:
            Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it makes it anew
        lock.release()
