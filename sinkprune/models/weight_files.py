"""The safetensors files of a folder: which tensors they hold, of what shape and dtype, and one of them read.

Nothing is read before it is asked for. Files are memory-mapped. A file that is another on the disk than when
its header was read is an error: weights of two models would be mixed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from sinkprune.files import check_ordinary, file_status, json_in, known_digest
from sinkprune_core.values import in_short

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Checked = TypeVar("Checked", bound=BaseModel)
SHA256 = re.compile("[0-9a-f]{64}")
INDEX = "model.safetensors.index.json"  # which of several files holds which tensor
IDENTITY = ("file", "size", "modified")  # of a file's status: what is another where its bytes may be


class FormatError(ValueError):
    """A folder of weights that no native class here can hold as it is."""


def read_json(file: Path) -> dict:
    """Return the object in a JSON file, {} if there is no file.

    Raises FormatError for a file that is broken or holds something else than an object.
    """
    try:
        content = json_in(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (IsADirectoryError, ValueError) as error:
        raise FormatError(str(error)) from None

    if not isinstance(content, dict):
        raise FormatError(f"{file} holds a {type(content).__name__}: it must hold a JSON object")

    return content


def read_checked(cls: type[Checked], file: Path) -> Checked:
    """Return the object in a JSON file as a `cls`.

    Raises FormatError, which names the file, the field, its value and what is allowed.
    """
    raw = read_json(file)
    try:
        return cls(**raw)
    except ValidationError as error:
        raise FormatError(f"{file} has {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first field that pydantic found invalid, its value and what is allowed."""
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    return f"{name}={in_short(problem['input'])}: {problem['msg']}"


def check_files(folder: Path) -> None:
    """Raise FormatError where a folder that is to be read holds something else than files and folders."""
    try:
        for file in sorted(folder.iterdir()):
            if file.exists() and not file.is_dir():
                check_ordinary(file)
    except (OSError, ValueError) as error:
        raise FormatError(str(error)) from None


@contextmanager
def refused(what: str, fix: str) -> Iterator[None]:
    """Turn whatever a library raises inside into one FormatError: `what` (its reason): `fix`."""
    try:
        yield
    except (FormatError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if len(reason) > 300:
            reason = f"{reason[:297]}..."
        raise FormatError(f"{what} ({type(error).__name__}: {reason}): {fix}") from error


class WeightFiles:
    """The safetensors of a folder: one file, or shards with an index.

    Shapes and dtypes come from the headers alone. `only` is the one file to take from a folder of many.
    `expected` are the SHA-256 digests that files must have, by name, checked before a first tensor is read.
    Raises FormatError for a folder without safetensors, with several that no index joins, or with files that
    are broken, incomplete or quantised.
    """

    covered = STORED_DTYPES  # by their names in a header

    def __init__(self, folder: Path, only: str | None = None, expected: Mapping[str, str] | None = None):
        self.folder = folder
        self.expected = expected or {}
        self.unchecked = set(self.expected)  # names of files of which no tensor was read yet
        self.handles: dict[str, safe_open] = {}  # open files by their names
        self.status: dict[str, dict[str, int]] = {}  # of every file, from when it was first opened
        self.file_of: dict[str, str] = {}  # the file of every tensor
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}

        index = None if only else _index(folder)
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
            if stored not in self.covered:
                raise FormatError(
                    f"{key} in {self.folder / name} is stored as {stored}: "
                    f"quantised weights are not covered, take the {', '.join(DTYPES)} files"
                )

            if key in self.file_of:
                raise FormatError(
                    f"{key} is in two files of {self.folder}, {self.file_of[key]} and {name}: "
                    "keep one model per folder"
                )

            self.file_of[key] = name
            self.shapes[key] = tuple(header.get_shape())
            self.dtypes[key] = self.covered[stored]

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
        """Return an open file of the folder, opening it where it is not.

        Raises FormatError for one that cannot be read, or that is not the file any more that it was at first.
        """
        if name in self.handles:
            return self.handles[name]

        file = self.folder / name
        try:
            check_ordinary(file)
            status = file_status(file)
            handle = safe_open(file, framework="pt")
        except (OSError, SafetensorError, ValueError) as error:
            raise FormatError(
                f"{file} cannot be read ({error}): the download is incomplete or broken, fetch it again"
            ) from None

        self.status.setdefault(name, status)
        self._check_unchanged(name, status)
        self.handles[name] = handle
        return handle

    def check_unchanged(self) -> None:
        """Raise FormatError for a file that was written to, replaced or removed since its header was read."""
        for name in self.status:
            with suppress(FileNotFoundError):
                self._check_unchanged(name, file_status(self.folder / name))
                continue
            raise FormatError(_changed(self.folder / name))

    def _check_unchanged(self, name: str, status: dict[str, int]) -> None:
        """Raise FormatError for a file whose status is that of another one than was opened at first.

        Where something else of it has changed, its digest, if one is expected, is looked at once more.
        """
        former = self.status[name]
        if any(status[part] != former[part] for part in IDENTITY):
            raise FormatError(_changed(self.folder / name))

        if status != former:
            self.status[name] = status
            self.unchecked |= {name} & self.expected.keys()

    def close(self) -> None:
        """Close all files, so that pages read from them stop counting as this process's memory.

        They reopen when they are needed.
        """
        self.handles.clear()

    def tensor(self, stored: str) -> torch.Tensor:
        """Return a stored tensor, which shares its memory with the mapped file: not to be written to."""
        name = self.file_of[stored]
        if name in self.unchecked:
            check_digest(self.folder / name, self.expected[name])
            self.unchecked.remove(name)

        with refused(f"{stored} in {self.folder / name} cannot be read", "fetch the file again"):
            return self.handle(name).get_tensor(stored)


def _changed(file: Path) -> str:
    """Return what is said of a file that is not the one any more that was opened at first."""
    return f"{file} has changed while it was in use, so old and new weights would be mixed: run again"


def check_digest(file: Path, expected: str) -> None:
    """Raise FormatError for a file that is not the one that was written with a model, or fetched."""
    if not file.is_file():
        raise FormatError(
            f"{file} is missing, and was written with this model: fetch or save the model again"
        )

    digest = known_digest(file)
    if digest == expected:
        return

    fix = "copy it again; where you saved it anew, remove sinkprune.json, the card of the former weights"
    if file.is_symlink():  # into the hub's cache
        fix = f"remove {file.resolve()}, and it is fetched anew"

    raise FormatError(
        f"{file} is damaged, or was saved anew: its SHA-256 is {digest}, and {expected} was written; {fix}"
    )


def hub_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the weights in a folder of the hub's cache, by name; {} for another folder.

    The cache keeps a large file under its SHA-256, and links to it.
    """
    links = [file for file in folder.glob("*.safetensors") if file.is_symlink()]
    blobs = {file.name: file.resolve().name for file in links if file.resolve().parent.name == "blobs"}
    return {name: blob for name, blob in blobs.items() if SHA256.fullmatch(blob)}


def _index(folder: Path) -> dict[str, str] | None:
    """Return the file of every tensor as an index states it; None where there is none.

    Raises FormatError for an index of another form, and for one that names anything but a file of the folder.
    """
    file = folder / INDEX
    if not file.is_file():
        return None

    index = read_json(file).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise FormatError(f"{file} has weight_map={in_short(index)}: it must map tensors to names of files")

    for tensor, name in index.items():
        is_beside = isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
        if not is_beside:
            raise FormatError(
                f"{file} says that {tensor} is in {in_short(name)}: it must be the name of a safetensors "
                "file in the same folder"
            )

    return index


def _file_names(folder: Path, only: str | None, index: dict[str, str] | None) -> list[str]:
    """Return the names of the files that hold the model of a folder."""
    if only:
        return [only]
    if index:
        return sorted(set(index.values()))

    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        pickled = ", ".join(sorted(file.name for file in folder.glob("*.bin")))
        if pickled:
            raise FormatError(
                f"no safetensors in {folder}, only {pickled}: pickled weights are not loaded, convert them "
                "to safetensors"
            )
        raise FormatError(
            f"no safetensors in {folder}: put the weights there; config.json alone is enough for --dry-run"
        )

    if len(names) > 1:
        raise FormatError(
            f"{folder} holds {len(names)} safetensors files and no {INDEX}: "
            "which belong together? Keep one model per folder"
        )

    return names
