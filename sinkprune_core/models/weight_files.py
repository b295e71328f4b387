"""The safetensors files of a folder: which tensors they hold, of what shape and dtype, and one of them read.

Nothing is read before it is asked for. Files are memory-mapped.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INDEX = "model.safetensors.index.json"  # which of several files holds which tensor


class FormatError(ValueError):
    """A folder of weights that no native class here can hold as it is."""


def read_json(file: Path) -> dict:
    """Return the content of a JSON file, {} if there is none; raise FormatError for one that is broken."""
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{file} is not JSON ({error}): fetch it again") from None


class WeightFiles:
    """The safetensors of a folder: one file, or shards with an index.

    Shapes and dtypes come from the headers alone. `only` is the one file to take from a folder of many.
    Raises FormatError for a folder without safetensors, with several that no index joins, or with files that
    are broken, incomplete or quantised.
    """

    def __init__(self, folder: Path, only: str | None = None):
        self.folder = folder
        self.handles: dict[str, safe_open] = {}  # open files by their names
        self.file_of: dict[str, str] = {}  # the file of every tensor
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        index = None if only else read_json(folder / INDEX).get("weight_map")
        for name in _file_names(folder, only, index):
            self._read_header(name)
        lost = sorted(set(index or {}) - set(self.file_of))
        if lost:
            raise FormatError(
                f"the index of {folder} names tensors that no file holds: {', '.join(lost[:5])}; "
                "fetch the folder again"
            )

    def _read_header(self, name: str) -> None:
        """Note what a file holds."""
        handle = self.handle(name)
        keys = handle.keys()
        for key in keys:
            header = handle.get_slice(key)
            stored = header.get_dtype()
            if stored not in STORED_DTYPES:
                raise FormatError(
                    f"{key} in {self.folder / name} is stored as {stored}: "
                    f"quantised weights are not covered, take the {', '.join(DTYPES)} files"
                )
            self.file_of[key] = name
            self.shapes[key] = tuple(header.get_shape())
            self.dtypes[key] = STORED_DTYPES[stored]

    def size(self, key: str) -> int:
        """Return the size of a stored tensor in bytes."""
        return torch.Size(self.shapes[key]).numel() * self.dtypes[key].itemsize

    @property
    def bytes(self) -> int:
        """Size of all stored tensors."""
        return sum(self.size(key) for key in self.shapes)

    @property
    def parameters(self) -> int:
        """How many numbers are stored."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def handle(self, name: str) -> safe_open:
        """Return an open file of the folder, opening it where it is not."""
        if name not in self.handles:
            try:
                self.handles[name] = safe_open(self.folder / name, framework="pt")
            except (OSError, SafetensorError) as error:
                raise FormatError(
                    f"{self.folder / name} cannot be read ({error}): "
                    "the download is incomplete or broken, fetch it again"
                ) from None
        return self.handles[name]

    def close(self) -> None:
        """Close all files, so that pages read from them stop counting as this process's memory.

        They reopen when they are needed.
        """
        self.handles.clear()

    def tensor(self, stored: str) -> torch.Tensor:
        """Return a stored tensor, which shares its memory with the mapped file: not to be written to."""
        return self.handle(self.file_of[stored]).get_tensor(stored)


def _file_names(folder: Path, only: str | None, index: dict[str, str] | None) -> list[str]:
    """Return the names of the files that hold the model of a folder."""
    if only:
        return [only]
    if index:
        return sorted(set(index.values()))
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        message = f"no safetensors in {folder}"
        pickled = ", ".join(sorted(file.name for file in folder.glob("*.bin")))
        if pickled:
            message += f", only {pickled}: pickled weights are not loaded, convert them to safetensors"
        raise FormatError(message)
    if len(names) > 1:
        raise FormatError(
            f"{folder} holds {len(names)} safetensors files and no {INDEX}: "
            "which belong together? Keep one model per folder"
        )
    return names
