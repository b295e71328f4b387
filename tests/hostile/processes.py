"""Commands in processes of their own, which are killed or find the disk full at a chosen moment.

A server imports everything once and forks a process per command, which then takes a fraction of a second.
Moments are counted in file events: a file opened for writing, written, flushed, allocated, linked, renamed or
removed, or a folder made or removed, below the folder of the case.
"""

import atexit
import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

INTERRUPTED = 130  # exit status after Ctrl-C
TESTS = Path(__file__).resolve().parents[1]
OWN = {  # what a process of its own needs of its environment
    "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent))),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",  # what is said stays in order
    "MPLBACKEND": "agg",
}
KILLED = 77  # exit status of a process that ended at its event
SECONDS = 300  # no command takes longer
AUDITED = ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir")
ROOM = ("open", "os.rename", "os.link", "os.mkdir", "write", "flush", "allocate")  # what a full disk refuses
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Trouble:
    """What happens to a command."""

    kind: str = "count"
    """`count`: nothing; `kill`: it ends before an event; `power`: so, and what was not flushed is lost;
    `full`: the disk is, from an event on; `limit`: no file exceeds `at` bytes; `memory`: `at` bytes more."""
    at: int = 0  # number of the event, or bytes
    is_flushed: bool = True  # False: a defect put in on purpose, which the harness must find


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int  # exit status, -9 for SIGKILL
    said: str  # stdout and stderr
    events: int


class Server:
    """A process that forks commands, one at a time. `prefix` is a command line to start it with."""

    def __init__(self, prefix: tuple[str, ...] = ()):
        self.notes = tempfile.TemporaryDirectory()  # no case may fill this disk
        command = [*prefix, sys.executable, "-m", "hostile.processes", self.notes.name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | OWN
        )
        self.lock = threading.Lock()

    def run(
        self,
        folder: Path,
        arguments: list[object],
        trouble: Trouble | None = None,
        signal_after: tuple[float, int] | None = None,
    ) -> Outcome:
        """Run a command in `folder`; `signal_after` are seconds and the signal it gets then."""
        order = {
            "folder": str(folder),
            "arguments": [str(argument) for argument in arguments],
            "trouble": asdict(trouble or Trouble()),
        }
        with self.lock:
            self._send(order)
            child = os.pidfd_open(self._receive()["pid"])  # a number may come to mean another process
            self._send({})
            timer = None
            if signal_after is not None:
                timer = threading.Timer(signal_after[0], _send_signal, (child, signal_after[1]))
                timer.start()
            answer = self._receive()
            if timer is not None:
                timer.cancel()
                timer.join()
            os.close(child)
        return Outcome(**answer)

    def _send(self, order: dict) -> None:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def _receive(self) -> dict:
        line = self.process.stdout.readline()
        assert line, "the server of commands has died"
        return json.loads(line)

    def close(self) -> None:
        """End the server."""
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.notes.cleanup()


def _send_signal(child: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        signal.pidfd_send_signal(child, number)


# in the server


def serve(notes: Path) -> None:
    """Fork a process per line of stdin, and say how it ended; `notes` is a folder for what it says."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may answer
    _import_everything()
    said = notes / "said"
    counted = notes / "events"
    while line := sys.stdin.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _in_child(order, said, counted)
        answers.write(json.dumps({"pid": pid}) + "\n")
        answers.flush()
        sys.stdin.readline()  # until it is known there, a number must not be free
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        words = {file: file.read_text(errors="replace") if file.exists() else "" for file in (said, counted)}
        events = int(words[counted] or 0)  # a process that was killed early has left no count
        answer = {"status": code, "said": words[said], "events": events}
        for file in (said, counted):
            file.unlink(missing_ok=True)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _import_everything() -> None:
    import torch
    import transformers.models.llama.modeling_llama
    from hostile import notebook

    from sinkprune.cli import common, compare, evaluate, prune, trace
    from sinkprune.models import shrinking
    from sinkprune.runs import pruning_cost as cost
    from sinkprune_companion.cli import train
    from sinkprune_companion.experiments import variants
    from sinkprune_companion.figures import figures
    from sinkprune_companion.run import parameters
    from sinkprune_companion.training import export, lora
    from sinkprune_core.pruning import engine

    torch.set_num_threads(1)
    lora.train = partial(lora.train, check_every=1, save_every=1)  # a checkpoint and a row of the log a step
    cost.PROBE_SECONDS = 0.001  # nobody waits for a plan here
    cost.free_disk_at = lambda folder: 1 << 60  # others fill the disk after the plan
    del transformers, common, prune, engine, shrinking
    del compare, evaluate, trace, train, variants, export, notebook, figures, parameters


def _in_child(order: dict, said: Path, counted: Path) -> None:
    """Run the command with its trouble, and end the process."""
    status = 1
    has_begun = False
    try:
        ctypes.CDLL(None).prctl(1, 9)  # dies with the server
        os.setsid()
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(order["folder"])
        trouble = Trouble(**order["trouble"])
        if not trouble.is_flushed:
            from sinkprune import files

            files.flush_one = lambda path: None
        with _Events(Path(order["folder"]), trouble).counted(counted):
            has_begun = True
            status = _run(order["arguments"])

        atexit._run_exitfuncs()  # as at the end of a process of its own: os._exit leaves them out
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not has_begun:
            status = INTERRUPTED  # the signal was faster than the command

        os.write(2, f"Traceback: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command line of `sinkprune`, or `notebook FILE`, and return its exit status."""
    from hostile import notebook

    from sinkprune.cli.main import main

    if arguments[0] == "notebook":
        return notebook.run(Path(arguments[1]))
    return main(arguments)


class _Events:
    """The file events of this process, and what happens at one of them."""

    def __init__(self, folder: Path, trouble: Trouble):
        self.folder = os.path.realpath(folder)
        self.trouble = trouble
        self.count = 0
        self.active = True
        self.flushed: set[int] = set()  # inodes
        self.before = _inodes(self.folder)

    @contextmanager
    def counted(self, note: Path):
        """Watch events inside, then write their number."""
        import safetensors.torch

        if self.trouble.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.trouble.at, self.trouble.at))
        sys.addaudithook(self._audit)
        os.fsync = self._around(os.fsync, "flush", after=self._note_flushed)
        os.posix_fallocate = self._around(os.posix_fallocate, "allocate")
        safetensors.torch.serialize_file = self._around(
            safetensors.torch.serialize_file, "write", path_at=1, after=self._half
        )
        if self.trouble.kind == "memory":
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (mapped + self.trouble.at,) * 2)
        yield
        self.active = False
        note.write_text(str(self.count))

    def _around(self, function, name: str, path_at: int = 0, after=None):
        def call(*arguments, **named):
            self.happened(name, arguments[path_at])
            result = function(*arguments, **named)
            if after is not None:
                after(arguments[path_at])
            return result

        return call

    def _note_flushed(self, descriptor: int) -> None:
        self.flushed.add(os.fstat(descriptor).st_ino)

    def _half(self, path) -> None:
        """A file is written: a kill here leaves half of it."""
        if self.trouble.kind in ("kill", "power") and self.count + 1 == self.trouble.at:
            os.truncate(path, os.path.getsize(path) // 2)
        self.happened("written", path)

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self.active or event not in AUDITED:
            return
        if event == "open" and not (arguments[2] or 0) & WRITES:
            return
        self.happened(event, arguments[0])

    def happened(self, name: str, path) -> None:
        """Count an event below the folder; kill or refuse where it is time."""
        if not self.active or not self._is_inside(path):
            return
        self.count += 1
        if self.trouble.kind == "full" and self.count >= self.trouble.at and name in ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.trouble.kind in ("kill", "power") and self.count == self.trouble.at:
            self.active = False
            if self.trouble.kind == "power":
                self._lose_what_was_not_flushed()
            os._exit(KILLED)

    def _is_inside(self, path) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        found = os.path.realpath(os.fsdecode(path))
        return found.startswith(self.folder + os.sep)

    def _lose_what_was_not_flushed(self) -> None:
        """Cut every new file that was never flushed in half, as a power failure may."""
        for file in _files(self.folder):
            inode = os.stat(file).st_ino
            if inode not in self.before and inode not in self.flushed:
                os.truncate(file, os.path.getsize(file) // 2)


def _files(folder: str) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.join(parent, name) for name in names]
    return found


def _inodes(folder: str) -> set[int]:
    found = set()
    for file in _files(folder):
        with suppress(FileNotFoundError):  # another process has removed it since it was listed
            found.add(os.stat(file).st_ino)
    return found


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
