"""The one door to files: where they live, and how they are read, written, compared and held.

What is read is an ordinary file of text, or says in one sentence why it is not. What is written appears whole
or not at all. Nothing here depends on the working directory, so notebooks run the same by hand, papermill or
the graph.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
import time
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from sinkprune.scratch import OF_SCRATCH, give_ordinary_modes, scratch_folder

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"  # models, adapters, tasks and texts that ship
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a full disk, or beyond a quota, ends with
DIGESTS = "digests.json"  # beside the files of a folder: the digest of each
PLANNED = Path("pruned")  # where a run that is only planned would write, if no place is named
FRESH = 2.0  # seconds in which a file may change without another time of modification
WIDE_MARKS = (BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_LE, BOM_UTF32_BE)  # what text of 2 or 4 bytes begins with
GET_FLAGS = 0x80086601  # Linux's request FS_IOC_GETFLAGS, of a file or folder
APPEND_ONLY = 0x20  # and the flag FS_APPEND_FL of its answer
CHECK = "check"  # the field of a kept JSON file with the digest of its other fields

HELPERS = re.compile(
    rf"\..+\.(lock|holder|{OF_SCRATCH})"
)  # names of what stands beside an output for a while
HOLDER = b'{"process":'  # what the file that says who holds a lock begins with
NOT_ORDINARY = {"p": "a pipe", "c": "a device", "b": "a disk", "s": "a socket"}
"""What may be found where a file is expected, by its letter in a listing of files."""

# places


def cache_dir() -> Path:
    """Return the cache directory.

    It is `$SINKPRUNE_CACHE`, else `$XDG_CACHE_HOME/sinkprune`, else `~/.cache/sinkprune`. Raises ValueError
    where it would lie in the home of a user who has none, and for a name that is not UTF-8.
    """
    asked = os.environ.get("SINKPRUNE_CACHE")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(asked) if asked else Path(caches) / "sinkprune"
    check_decodable(folder)
    try:
        return resolved(folder.expanduser())
    except RuntimeError:  # of a home that is not known
        raise ValueError(
            f"the cache {folder} lies in a home folder that does not exist: "
            "set SINKPRUNE_CACHE to the path of a folder that can be written"
        ) from None


def check_decodable(path: os.PathLike[str] | str) -> None:
    """Raise ValueError for a path with bytes that are no UTF-8: no page, card or library could name it."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        words = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(f"{words} holds bytes that are not UTF-8: write it in UTF-8") from None


def check_replaceable(path: Path | str) -> None:
    """Raise an error for a place where nothing can be written as it is written here: beside it, then renamed.

    That is ValueError for a name that is not UTF-8, and PermissionError where files of the folder, the first
    that is there, can be made and not renamed or removed, as it is append-only (`chattr +a`).
    """
    check_decodable(Path(path).absolute())
    folder = existing(Path(path).parent)
    if _is_append_only(folder):
        raise PermissionError(
            f"{path} cannot be written: {folder} is append-only, and what is written is renamed there at the "
            "end; choose another place, or take the attribute away (chattr -a)"
        )


def check_new_folder(path: Path) -> None:
    """Raise FileExistsError for the folder of an output that is there: nothing is ever overwritten."""
    if path.exists():
        raise FileExistsError(f"output folder {path} exists: choose another name or remove it first")


def _is_append_only(folder: Path) -> bool:
    """Return whether the file system lets names be made in a folder, and none be changed."""
    if not sys.platform.startswith("linux"):
        return False
    from fcntl import ioctl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        flags = ioctl(descriptor, GET_FLAGS, bytes(8))
    except OSError:  # of a file system without flags
        return False
    finally:
        os.close(descriptor)
    return bool(int.from_bytes(flags[:4], sys.byteorder) & APPEND_ONLY)


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


# reading


def check_ordinary(path: Path | str) -> None:
    """Raise an error unless a path leads to an ordinary file: reading anything else may never end.

    That is ValueError for a pipe, a device, a socket or a file of the kernel, IsADirectoryError for a folder
    and FileNotFoundError where there is nothing. The file is not opened.
    """
    _check_ordinary(path, os.stat(path))


def _check_ordinary(path: Path | str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder: give a file")

    what = NOT_ORDINARY.get(stat.filemode(status.st_mode)[0])
    if what is not None:
        raise ValueError(f"{path} is {what}: copy what it gives into a file, and give that")

    if status.st_size == 0 and os.name != "nt" and os.statvfs(path).f_blocks == 0:
        raise ValueError(f"{path} is a file of the kernel: copy what it gives into a file, and give that")


def check_folder(folder: Path | str) -> None:
    """Raise ValueError where a folder holds something else than ordinary files and folders.

    Libraries that read a folder file by file would wait for a pipe for ever. Links to nothing are left alone.
    """
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries if not entry.is_dir()]

    for path in sorted(paths):
        with suppress(FileNotFoundError):
            check_ordinary(path)


@contextmanager
def opened(path: Path | str) -> Iterator[BufferedReader]:
    """Yield an ordinary file for reading bytes; raise what `check_ordinary` raises for anything else."""
    check_ordinary(path)
    without_waiting = getattr(os, "O_NONBLOCK", 0)  # should it have become a pipe since
    descriptor = os.open(path, os.O_RDONLY | without_waiting)
    with open(descriptor, "rb") as file:
        _check_ordinary(path, os.fstat(descriptor))
        yield file


def read_text(path: Path | str) -> str:
    """Return a text of UTF-8, with or without a mark of byte order, lines ended by a newline.

    Raises ValueError, naming the file, for other bytes, among them UTF-16 and UTF-32, which a NUL betrays
    where no mark does, and what `check_ordinary` raises.
    """
    with opened(path) as file:
        data = file.read()

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        if data.startswith(WIDE_MARKS):
            reason = "it begins as UTF-16 or UTF-32 does"
        raise ValueError(f"{path} is not UTF-8 text ({reason}): save it as UTF-8, or fetch it anew") from None

    place = text.find("\0")
    if place >= 0:
        raise ValueError(
            f"{path} is not UTF-8 text (a NUL at character {place}, as in UTF-16 without a mark): "
            "save it as UTF-8, or fetch it anew"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def json_in(path: Path | str) -> Any:
    """Return what a JSON file holds.

    Raises ValueError, naming the file, for other text and for an object that has a key twice, of which
    readers take one or the other, and what `read_text` raises.
    """
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
    """Return an object of JSON; raise ValueError for a key that comes twice."""
    value = dict(pairs)
    if len(value) == len(pairs):
        return value

    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:60]!r} comes twice")
        seen.add(key)
    return value


# writing


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on any failure.

    Works for a file or for a directory that does not exist yet (the block decides which by what it creates).
    What replaces `path` has been flushed to disk. Raises OSError with a sentence where the disk is full,
    FileExistsError for a folder that another call has made meanwhile, and what `check_replaceable` raises.
    """
    path = Path(path)
    check_replaceable(path)
    with room_needed(path):
        make_folder(path.parent)
        with scratch_folder(path) as scratch:
            partial = scratch / path.name
            yield partial
            give_ordinary_modes(partial)
            flush(partial)
            _put_in_place(partial, path)
            flush_one(path.parent)


def _put_in_place(partial: Path, path: Path) -> None:
    """Give what is finished its name; raise FileExistsError where a folder has it meanwhile."""
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise FileExistsError(
            f"{path} exists: another call has made it meanwhile; choose another name or remove it first"
        ) from None


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
    """Write `value` as readable JSON, as `atomic` does; raise ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


# what can be made again


def keep(path: Path, value: dict[str, object]) -> None:
    """Write an object of JSON into the cache, with a digest of it; where that cannot be, nothing happens."""
    with suppress(OSError):  # a cache that cannot be written only costs time
        write_checked(path, value)


def write_checked(path: Path, value: dict[str, object]) -> None:
    """Write an object of JSON with a digest of it, as `write_json` does."""
    write_json(path, {**value, CHECK: _json_digest(value)})


def kept(path: Path) -> dict[str, Any] | None:
    """Return what `keep` or `write_checked` wrote; None where there is nothing, or not what was written."""
    try:
        value = json_in(path)
    except (OSError, ValueError):
        return None

    if not isinstance(value, dict):
        return None
    is_whole = value.pop(CHECK, None) == _json_digest(value)
    return value if is_whole else None


def _json_digest(value: Mapping[str, object]) -> str:
    """Return the SHA-256 of an object of JSON, whatever the order of its names, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# digests


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of an ordinary file, 64 hexadecimal digits; raise what `check_ordinary` raises."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_digest(path: Path | str) -> str:
    """Return the SHA-256 of a large file that rarely changes; it is kept in the cache.

    The file is read again when its size, its identity on the disk or one of its times is another.
    """
    path = resolved(path)
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    note = cache_dir() / "digests" / f"{name}.json"

    status = file_status(path)
    known = kept(note)
    if known is not None and known.get("status") == status:
        return known["sha256"]

    digest = file_digest(path)
    is_settled = time.time_ns() - max(status["modified"], status["changed"]) > FRESH * 1e9
    if is_settled and file_status(path) == status:
        keep(note, {"path": str(path), "status": status, "sha256": digest})
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
    """Return the names of the files of a folder that are not what `write_digests` saw.

    A file is read only where its size or one of its times differ. A folder without digests gets some: what it
    holds now is what later calls compare with.
    """
    try:
        known = json_in(folder / DIGESTS)
    except FileNotFoundError:
        with suppress(OSError):  # of a cache that may be read only
            write_digests(folder)
        return []
    except (OSError, ValueError):
        return [DIGESTS]

    if not isinstance(known, dict):
        return [DIGESTS]
    return [
        name
        for name, digest in known.items()
        if not ((folder / name).is_file() and known_digest(folder / name) == digest)
    ]


# locks


@contextmanager
def held(path: Path | str) -> Iterator[None]:
    """Hold the one lock of an output or of a work folder, which need not exist yet.

    The lock is a file beside `path` that is gone afterwards; it frees itself when a process dies. A thread
    may hold a path several times. Raises RuntimeError at once, saying who holds it, where another process or
    thread does, ValueError for symbolic links that lead round in a circle, and what `check_replaceable` does.
    """
    from filelock import FileLock, Timeout

    path = resolved(path)
    check_replaceable(path)
    if HELPERS.fullmatch(path.name):
        raise ValueError(
            f"{path} has a name that this program gives to files of its own, beside what it writes "
            "(.NAME.lock, .NAME.holder, .NAME.NUMBER.LETTERS): choose another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    holder = path.with_name(f".{path.name}.holder")
    for helper in (file, holder):
        _check_helper(helper, path)

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
            with room_needed(path):
                _write_holder(holder)
        yield
    finally:
        if is_outermost:
            holder.unlink(missing_ok=True)
            with suppress(OSError):  # Windows removes no open file
                file.unlink()  # while it is held: who waits for it looks whether it is still there
        lock.release()


def _check_helper(helper: Path, path: Path) -> None:
    """Raise ValueError where a stranger has the name of a lock of `path`; it stays as it is."""
    try:
        status = helper.lstat()
        is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and _is_of_lock(helper)
    except FileNotFoundError:  # or it was removed a moment ago
        return

    if not is_ours:
        raise ValueError(
            f"{helper} is none of this program's, and the lock of {path} goes there: move it away, or choose "
            "another name for the output"
        )


def _is_of_lock(helper: Path) -> bool:
    """Return whether a file holds what this program writes: nothing, or who holds the lock.

    After a power failure it may hold a part of that, or zeros.
    """
    with opened(helper) as file:
        beginning = file.read(len(HOLDER)).strip(b"\0")
    return HOLDER.startswith(beginning) if helper.suffix == ".holder" else not beginning


def _write_holder(holder: Path) -> None:
    """Say in a new file who holds a lock; what is there is replaced, never followed."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    known = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
    holder.unlink(missing_ok=True)  # what a killed process has left
    with holder.open("x", encoding="utf-8") as file:
        file.write(json.dumps(known) + "\n")


def _described(holder: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        known = json_in(holder)
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
