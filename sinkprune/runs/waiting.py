"""What waits, mostly on disk, while text goes through the blocks one by one.

Hidden states before a block and after it lie in two files that take turns. Inputs of linears, until the last
block has shown which tokens are sinks, lie in a file each.

Dimensions: R calibration rows, B batch, T position, D hidden width, I input features.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sinkprune.files import file_digest, flush, free_disk_at, room_needed
from sinkprune.scratch import scratch_folder
from sinkprune_core.blocks import Hold, Rows
from sinkprune_core.language_model import LanguageModel

CHUNK = 1 << 20  # bytes that are written at a time
WAITING_SHARE_OF_DISK = 0.5  # of the free room on the disk that inputs may take
INPUTS = "inputs"  # the scratch folder of the inputs that wait


@dataclass(frozen=True)
class HiddenFiles:
    """The hidden states (R, T, D) before every block, memory-mapped; only two blocks' exist at a time."""

    folder: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    def __call__(self, layer: int) -> torch.Tensor:
        """Return the tensor for the hidden states before a block, in a file that is made where it is not.

        Raises OSError where the disk has no room for it.
        """
        file = self.file(layer)
        if not self.has_size(layer):
            allocate(file, self.bytes)
        numbers = self.bytes // self.dtype.itemsize
        return torch.from_file(str(file), shared=True, size=numbers, dtype=self.dtype).view(self.shape)

    @property
    def bytes(self) -> int:
        """Size of a file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def file(self, layer: int) -> Path:
        """Return the file of the hidden states before a block."""
        return self.folder / f"hidden-{layer % 2}.bin"

    def has_size(self, layer: int) -> bool:
        """Return whether the file of a block is there in its full size."""
        file = self.file(layer)
        return file.is_file() and file.stat().st_size == self.bytes

    def sealed(self, layer: int) -> str:
        """Return the SHA-256 of the hidden states before a block, after they have reached the disk."""
        flush(self.file(layer))
        return file_digest(self.file(layer))

    def holds(self, layer: int, digest: str | None) -> bool:
        """Return whether the file of a block holds what `sealed` returned the digest of."""
        return digest is not None and self.has_size(layer) and file_digest(self.file(layer)) == digest


@dataclass(frozen=True)
class OnDisk:
    """The store of what waits in files of a folder (`sinkprune_core.blocks.Store`)."""

    folder: Path
    reads_blocks: bool = False  # whether the model's blocks come from disk one at a time

    def hidden(self, lm: LanguageModel, rows: Rows) -> HiddenFiles:
        """Return the files of the hidden states of some rows."""
        count, length = rows.ids_RT.shape
        return HiddenFiles(self.folder, (count, length, lm.model.config.hidden_size), lm.model.dtype)

    def inputs(self) -> AbstractContextManager[Hold]:
        """Return a context that gives what holds inputs in files; they go at its end."""
        return on_disk(self.folder)

    def room_for_inputs(self) -> int:
        """Return half of the free room of the folder's disk, in bytes."""
        return int(WAITING_SHARE_OF_DISK * free_disk_at(self.folder))


@contextmanager
def on_disk(folder: Path) -> Iterator[Hold]:
    """Yield what holds inputs in files in `folder`, or raises OSError without room; they go at the end."""
    with scratch_folder(folder / INPUTS) as scratch:
        numbers = count()

        def hold(input_BTI: torch.Tensor) -> Callable[[], torch.Tensor]:
            file = scratch / f"{next(numbers)}.safetensors"
            with room_needed(f"inputs in {folder}"):
                save_file({"input": input_BTI.contiguous()}, file)
            return lambda: load_file(file, backend="pread")["input"]

        yield hold


def allocate(file: Path, size: int) -> None:
    """Make a file of `size` bytes whose space is really its own: a mapped hole would kill the process.

    Raises OSError, and leaves no file, where the disk has no room.
    """
    file.unlink(missing_ok=True)  # never cut short: the former file may still be mapped
    try:
        with room_needed(f"{size / 1e9:.3g} GB of hidden states in {file}"), file.open("wb") as handle:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, size)
                return

            zeros = bytes(CHUNK)
            for start in range(0, size, CHUNK):
                handle.write(zeros[: size - start])
    except OSError:
        file.unlink(missing_ok=True)
        raise
