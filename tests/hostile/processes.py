"""Commands in processes of their own, which are killed, lose power or find the disk full at a chosen moment.

A process that has imported everything is forked for every command, which then takes a fraction of a second.
Moments are counted in file events: a file opened for writing, written, flushed, allocated, linked, renamed or
removed, or a folder made or removed, below the folder of the command.
"""

import errno
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from notebook_cells import run_cells

from sinkprune.cli.main import main, sentence
from sinkprune_companion import project_in
from sinkprune_companion.training import lora

SECONDS = 300  # no command takes longer
AUDITED = ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir")
NEED_ROOM = ("open", "os.rename", "os.link", "os.mkdir", "write", "flush", "allocate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        __name__,
        "transformers.models.llama.modeling_llama",
        "sinkprune.cli.common",
        "sinkprune.evaluation.text_scores",
        "sinkprune.recovery.recover",
        "sinkprune.runs.pruning",
        "sinkprune_companion.training.lora",
        "sinkprune_companion.figures.figures",
        "sinkprune_companion.training.export",
    ]
)


@dataclass(frozen=True)
class Trouble:
    """What happens to a command."""

    kind: str = "none"
    """`kill`: it is killed before an event.

    `power`: so, and what was not flushed is lost.
    `full`: the disk is, from an event on.
    `limit`: no file grows beyond `at` bytes.
    """
    at: int = 0  # the number of an event, from 1, or bytes


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int  # exit status, -9 for SIGKILL
    said: str  # stdout and stderr
    events: int  # of files; 0 where it was killed

    @property
    def is_refused(self) -> bool:
        """Whether it ended with one line of error, and no traceback."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        is_last = self.said.splitlines()[-1:] == errors
        return self.status == 1 and is_last and "Traceback" not in self.said


class Command:
    """A command line of `sinkprune`, or `notebook NAME`, that has begun in a folder."""

    def __init__(self, folder: Path, arguments: list[str], trouble: Trouble | None = None):
        self.said = folder.with_name(f"{folder.name}.{id(self)}.said")
        self.counted = self.said.with_suffix(".events")
        given = (folder, arguments, trouble or Trouble(), self.said, self.counted)
        self.process = FORKS.Process(target=_run, args=given, daemon=True)
        self.process.start()

    def outcome(self) -> Outcome:
        """Wait until it has ended, and return how."""
        self.process.join(SECONDS)
        status = self.process.exitcode
        assert status is not None, "the command hangs"

        events = int(self.counted.read_text()) if self.counted.exists() else 0
        return Outcome(status, self.said.read_text(errors="replace"), events)


def run(folder: Path, arguments: list[str], trouble: Trouble | None = None) -> Outcome:
    """Run a command line in a folder, and return how it ended."""
    return Command(folder, arguments, trouble).outcome()


# in the process of the command


def _run(folder: Path, arguments: list[str], trouble: Trouble, said: Path, counted: Path) -> None:
    log = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)

    torch.set_num_threads(1)
    lora.train = partial(lora.train, check_every=1, save_every=1)  # a checkpoint and a row of the log a step

    events = _Events(folder, trouble)
    status = _run_notebook(arguments[1]) if arguments[0] == "notebook" else main(arguments)
    events.are_watched = False

    counted.write_text(str(events.count))
    sys.exit(status)


def _run_notebook(name: str) -> int:
    """Run the cells of a notebook in the working directory; return an exit status as a command would."""
    try:
        with project_in(Path.cwd()):  # results belong here and not to the clone
            run_cells(name, Path.cwd())
    except Exception as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


class _Events:
    """The file events of this process, and what happens at one of them."""

    def __init__(self, folder: Path, trouble: Trouble):
        self.folder = os.path.realpath(folder)
        self.trouble = trouble
        self.count = 0
        self.are_watched = True
        self.flushed: set[int] = set()  # inodes
        self.before = {file.stat().st_ino for file in _files(self.folder)}

        if trouble.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.at, trouble.at))
        sys.addaudithook(self._audit)
        os.fsync = self._around(os.fsync, "flush", after=self._note_flushed)
        os.posix_fallocate = self._around(os.posix_fallocate, "allocate")
        write = safetensors.torch.serialize_file
        safetensors.torch.serialize_file = self._around(write, "write", path_at=1, after=self._leave_half)

    def _around(self, function: Callable, name: str, path_at: int = 0, after: Callable | None = None):
        def call(*arguments, **named):
            self._happened(name, arguments[path_at])
            result = function(*arguments, **named)
            if after is not None:
                after(arguments[path_at])
            return result

        return call

    def _audit(self, event: str, arguments: tuple) -> None:
        if event not in AUDITED:
            return
        if event == "open" and not (arguments[2] or 0) & WRITES:
            return
        self._happened(event, arguments[0])

    def _happened(self, name: str, path: str | bytes | int | os.PathLike) -> None:
        """Count an event below the folder; kill or refuse where it is time."""
        if not self.are_watched or not self._is_inside(path):
            return

        self.count += 1
        if self.trouble.kind == "full" and self.count >= self.trouble.at and name in NEED_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if self.trouble.kind in ("kill", "power") and self.count == self.trouble.at:
            self.are_watched = False
            if self.trouble.kind == "power":
                self._lose_what_was_not_flushed()
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_inside(self, path: str | bytes | int | os.PathLike) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return os.path.realpath(os.fsdecode(path)).startswith(self.folder + os.sep)

    def _note_flushed(self, descriptor: int) -> None:
        self.flushed.add(os.fstat(descriptor).st_ino)

    def _leave_half(self, file: Path) -> None:
        """Count an event behind a file that is written: a kill there leaves half of it."""
        if self.trouble.kind in ("kill", "power") and self.count + 1 == self.trouble.at:
            _halve(file)
        self._happened("written", file)

    def _lose_what_was_not_flushed(self) -> None:
        """Cut every new file that was never flushed in half, as a power failure may."""
        for file in _files(self.folder):
            if file.stat().st_ino not in self.before | self.flushed:
                _halve(file)


def _files(folder: str) -> list[Path]:
    return [file for file in Path(folder).rglob("*") if file.is_file()]


def _halve(file: Path) -> None:
    os.truncate(file, os.path.getsize(file) // 2)
