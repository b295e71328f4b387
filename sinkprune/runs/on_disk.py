"""The store in a work folder: what waits while text goes through the blocks, and where a killed pass goes on.

A point of a pass is one file: what was summed until then, and the digests of what must lie beside it, the
hidden states before the next block and the inputs of linears that wait. It takes the former point's place at
once, so there is always one that is whole.

Dimensions: B batch, T position, I input features.
"""

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sinkprune.files import atomic, bytes_below, file_digest, free_disk_at, make_folder, room_needed
from sinkprune.runs.observed import see_again, seen
from sinkprune.runs.recipe_identity import settings_digest
from sinkprune.runs.waiting import HiddenFiles
from sinkprune_core.blocks import Rows
from sinkprune_core.calibration.token_weights import StatisticsKey
from sinkprune_core.calibration.waiting_store import Hidden, PassState
from sinkprune_core.language_model import LanguageModel

POINT = "pass-*.safetensors"
ASIDE = "hidden-at-*.bin"  # hidden states of a point
INPUTS = "inputs"  # the folder of the inputs that wait
WAITING_SHARE_OF_DISK = 0.5  # of the free room on the disk that inputs may take
EVERY = 10.0  # seconds from one point to the next

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class OnDisk:
    """The store of what waits in files of a folder (`sinkprune_core.calibration.waiting_store.Store`)."""

    folder: Path

    def hidden(self, lm: LanguageModel, rows: Rows) -> HiddenFiles:
        """Return the files of the hidden states of some rows."""
        count, length = rows.ids_RT.shape
        return HiddenFiles(self.folder, (count, length, lm.model.config.hidden_size), lm.model.dtype)

    def steps(self, steps: range, state: PassState) -> "KeptSteps":
        """Return the steps from the last point of a pass on."""
        return KeptSteps(self.points(state.about), steps, state)

    def points(self, about: tuple) -> "KeptPoints":
        """Return the points of a pass, whose file is named after what tells it from others."""
        name = hashlib.sha256(_spelled(about).encode()).hexdigest()[:12]
        return KeptPoints(self.folder / f"pass-{name}.safetensors", self.folder / INPUTS)

    def room_for_inputs(self) -> int:
        """Return half of the room on the folder's disk that is free, or taken by inputs here, in bytes."""
        there = free_disk_at(self.folder) + bytes_below(self.folder / INPUTS)
        return int(WAITING_SHARE_OF_DISK * there)

    def forget(self) -> None:
        """Remove all points, and then what waits beside them."""
        for pattern in (POINT, ASIDE):
            for file in self.folder.glob(pattern):
                file.unlink()

        shutil.rmtree(self.folder / INPUTS, ignore_errors=True)

    def forget_hidden(self) -> None:
        """Remove the hidden states."""
        for file in self.folder.glob("hidden-*.bin"):
            file.unlink()


def _spelled(about: object) -> str:
    """Return what tells a pass from others as a text that is the same in every process."""
    if isinstance(about, torch.Tensor):
        return hashlib.sha256(about.numpy().tobytes()).hexdigest()
    if isinstance(about, StatisticsKey):
        return settings_digest(about)
    if isinstance(about, (tuple, list)):
        return " ".join(_spelled(part) for part in about)
    return str(about)


class KeptSteps:
    """The steps of a pass from its last point on; another point follows each of them."""

    def __init__(self, points: "KeptPoints", steps: range, state: PassState):
        self.points = points
        self.state = state
        self.start = steps.start
        self.stop = steps.stop
        self.step = steps.step

        points.read(state.hidden)
        if points.done:
            self.start = points.done
            for name, total in state.sums.items():
                total.copy_(points.tensors[name])
            if state.observer is not None:
                see_again(state.observer, points.tensors)

    def __iter__(self) -> Iterator[int]:
        """Yield the steps, and keep a point after each."""
        for step in range(self.start, self.stop, self.step):
            yield step
            done = step + self.step
            is_last = done >= self.stop
            hidden = None if is_last else self.state.hidden
            self.points.keep(done, self._summed, hidden, is_last)

    def _summed(self) -> Tensors:
        observer = self.state.observer
        return self.state.sums if observer is None else self.state.sums | seen(observer)


class KeptPoints:
    """The points of a pass in a file, and the inputs that wait in a folder.

    A point counts if its file, its hidden states and its inputs are what was written; else the pass begins
    anew.
    """

    def __init__(self, file: Path, inputs: Path):
        self.file = file
        self.inputs = inputs
        self.done = 0  # of what the pass counts: blocks, rows, inputs
        self.tensors: Tensors = {}  # of the last point that was read
        self.waiting = 0  # inputs
        self.digests: list[str] = []  # of their files, by their numbers, as far as a point has them
        self.kept_at = time.monotonic()

    # inputs that wait

    def __setitem__(self, number: int, input_BTI: torch.Tensor, /) -> None:
        """Write an input into a file; raises OSError where the disk has no room."""
        file = self._input_file(number)
        make_folder(self.inputs)
        with room_needed(f"inputs in {self.inputs}"):
            save_file({"input": input_BTI.contiguous()}, file)
        self.waiting = number + 1

    def pop(self, number: int, /) -> torch.Tensor:
        """Read an input; its file stays until the whole pass is forgotten."""
        return load_file(self._input_file(number), backend="pread")["input"]

    def _input_file(self, number: int) -> Path:
        return self.inputs / f"{number}.safetensors"

    # points

    def read(self, hidden: Hidden | None = None) -> None:
        """Read the last point, where there is one; warn of one that no longer counts.

        `hidden` is where hidden states lie.
        """
        self.kept_at = time.monotonic()
        if not self.file.exists():
            return

        notes, tensors = _read(self.file)
        damaged = self.file if notes is None else self._damaged_beside(notes, hidden)
        if notes is None or damaged is not None:
            warnings.warn(f"{damaged} is damaged: the pass over the text begins anew", stacklevel=2)
            self.file.unlink()
            return

        self.digests = notes["inputs"]
        self.waiting = len(self.digests)
        self.done = notes["done"]
        self.tensors = tensors

    def _damaged_beside(self, notes: dict, hidden: Hidden | None) -> Path | None:
        """Return the first file beside a point that is not what was written."""
        if notes["hidden"] is not None:
            assert isinstance(hidden, HiddenFiles)
            if not hidden.holds(notes["done"], notes["hidden"]):
                return hidden.file(notes["done"])

        for number, digest in enumerate(notes["inputs"]):
            file = self._input_file(number)
            if not file.is_file() or file_digest(file) != digest:
                return file

        return None

    def keep(
        self,
        done: int,
        tensors: Callable[[], Tensors],
        hidden: Hidden | None = None,
        is_last: bool = False,
    ) -> None:
        """Keep a point, with the hidden states before block `done` where the next block needs them.

        It is written where the one before is EVERY seconds old, or where this one `is_last` of several.
        """
        self.done = done
        is_recent = time.monotonic() - self.kept_at < EVERY
        if is_recent and not (is_last and self.file.exists()):
            return

        digest = hidden.put_aside(done) if isinstance(hidden, HiddenFiles) else None
        new = range(len(self.digests), self.waiting)
        self.digests += [file_digest(self._input_file(number)) for number in new]

        notes = json.dumps({"done": done, "hidden": digest, "inputs": self.digests})
        found = {name: value.contiguous() for name, value in tensors().items()}
        with atomic(self.file) as partial:
            save_file(found, partial, metadata={"notes": notes, "sha256": _digest(notes, found)})

        self._remove_aside_but(done)
        self.kept_at = time.monotonic()

    def _remove_aside_but(self, done: int) -> None:
        """Remove the hidden states of former points."""
        for file in self.file.parent.glob(ASIDE):
            if file.name != ASIDE.replace("*", str(done)):
                file.unlink()


def _read(file: Path) -> tuple[dict | None, Tensors]:
    """Return what is noted in the file of a point, and its tensors; None where the file is damaged."""
    try:
        with safe_open(file, "pt") as handle:
            notes = handle.metadata()["notes"]
            digest = handle.metadata()["sha256"]
        tensors = load_file(file, backend="pread")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None, {}

    if digest != _digest(notes, tensors):
        return None, {}
    return json.loads(notes), tensors


def _digest(notes: str, tensors: Tensors) -> str:
    """Return a SHA-256 of a point: its notes, and names and bytes of its tensors."""
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
