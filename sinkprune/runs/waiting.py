"""Hidden states that wait on disk while text goes through the blocks one by one.

Those before a block and after it lie in two files that take turns. A pass that is to go on from a block puts
the file of that block aside, under a name of its own.

Dimensions: R calibration rows, T position, D hidden width.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from sinkprune.files import file_digest, flush, room_needed

CHUNK = 1 << 20  # bytes that are written at a time


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
        """Return the file of the hidden states before a block, which may lie aside."""
        aside = self._aside(layer)
        return aside if aside.exists() else self.folder / f"hidden-{layer % 2}.bin"

    def _aside(self, layer: int) -> Path:
        return self.folder / f"hidden-at-{layer}.bin"

    def put_aside(self, layer: int) -> str:
        """Let no other block's hidden states take the place of these; return their SHA-256.

        What is mapped stays so under the new name.
        """
        self.file(layer).replace(self._aside(layer))
        return self.sealed(layer)

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
