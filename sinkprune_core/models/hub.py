"""From a name to a folder: download what is needed of a hub repository, and say beforehand what that takes."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sinkprune_core.files import cache_dir
from sinkprune_core.memory import free_memory
from sinkprune_core.models.catalog import EMBEDDED, MODELS, REFUSED, KnownModel
from sinkprune_core.models.embedded import BASE, FetchError
from sinkprune_core.models.formats import FormatError
from sinkprune_core.models.reader import DTYPES, Files

WANTED = [
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
]  # weights, configuration, tokenizer: never code, never pickles


@dataclass(frozen=True)
class Requirements:
    """What loading a model takes, in bytes: `download` over the network, `disk` where weights are kept, `memory` for the
    parameters and the largest tensor in flight (activations come on top). `missing`: what this machine lacks, in sentences.
    """

    name: str
    dtype: str
    device: str
    parameters: int
    download: int
    disk: int
    memory: int
    missing: tuple[str, ...]


def parse(name: str | os.PathLike) -> tuple[KnownModel | None, str | None]:
    """Return the row of a name and the revision after its `@`; (None, None) for a folder.

    Raises ValueError for a model that is known and not covered, saying why, and for a name that means nothing.
    """
    text = os.fspath(name)
    plain, _, revision = text.partition("@")
    if plain in MODELS and not (revision and plain in EMBEDDED):
        return MODELS[plain], revision or None
    if plain in REFUSED:
        raise ValueError(f"{plain} is not covered: {REFUSED[plain]}")
    folder = Path(text)
    if (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
        return None, None
    others = ", ".join(row for row in MODELS if row not in EMBEDDED)
    raise ValueError(
        f"unknown model {text!r}; known names: {', '.join(EMBEDDED)}; hub ids, also with @revision: {others}; or give a folder with config.json and safetensors"
    )


def fetch(row: KnownModel, revision: str | None = None, local: bool = False) -> tuple[Path, Path]:
    """Return the folder of a model's weights and that of its tokenizer, downloading what the hub's cache lacks.

    `local`: look into the cache only. Raises FetchError with what to do: no network, no access, no such revision or file.
    """
    folder = _snapshot(row.repository, revision, [row.file] if row.file else WANTED, local)
    if row.file and not (folder / row.file).is_file():
        raise FetchError(
            f"{row.repository} has no file {row.file} (that name is {row.certainty}): look at https://huggingface.co/{row.repository}/tree/main"
        )
    if not row.file and not any(folder.glob("*.safetensors")):
        raise FetchError(
            f"{row.repository} publishes no safetensors{f' at {revision}' if revision else ''}: pickled weights can run code and are not fetched; take another revision (name@revision), or convert them and load that folder"
        )
    return folder, _snapshot(
        row.tokenizer, None, [name for name in WANTED if name != "*.safetensors"], local
    ) if row.tokenizer else folder


def _snapshot(repository: str, revision: str | None, patterns: list[str], local: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{repository}"
    broken = next(
        kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"
    )  # of the library behind the hub's client, for what is no OSError
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=local)
        )
    except GatedRepoError:
        reason = f"it is gated: accept its licence at {page} and log in with `hf auth login`, or set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = f"the hub has no such repository or does not show it to you: look at {page}; private ones need HF_TOKEN"
    except RevisionNotFoundError:
        reason = f"it has no revision {revision!r}: see {page}/commits"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, broken) as error:
        said = re.split(r"\. |\n", str(error) or type(error).__name__, maxsplit=1)[0].rstrip(".")
        if isinstance(error, broken) and not isinstance(error, HfHubHTTPError):
            raise FetchError(
                f"{repository} could not be fetched: the connection broke off ({said}): run the same again, files that arrived whole are kept"
            ) from None
        reason = f"the hub cannot be reached and its cache does not hold it ({said}): run once with a network, or copy a folder of it here and load that folder; HF_HOME says where the cache is"
    raise FetchError(f"{repository} could not be fetched: {reason}")


def requirements(
    name: str | os.PathLike, dtype: str | torch.dtype = "float32", device: str = "cpu"
) -> Requirements:
    """Say what loading `name` takes, from the table or the headers of its files; nothing is downloaded or loaded.

    Raises ValueError for a name or dtype that is not known.
    """
    dtype = choose_dtype(dtype, device)
    row, revision = parse(name)
    try:
        files = _files_here(name, row, revision)
    except (FetchError, FormatError):
        if row is None:
            raise
        files = None
    if files is None:
        parameters, disk, download, largest = (
            row.parameters,
            row.bytes,
            BASE.wheel_bytes if row.id in EMBEDDED else row.bytes,
            0,
        )
    else:
        parameters, disk, download = (
            sum(torch.Size(shape).numel() for shape in files.shapes.values()),
            files.bytes,
            0,
        )
        largest = max(
            torch.Size(shape).numel() * files.dtypes[key].itemsize for key, shape in files.shapes.items()
        )
    memory = parameters * dtype.itemsize + largest
    missing = []
    if download and (free := shutil.disk_usage(_existing(_hub_cache())).free) < download:
        missing.append(
            f"{download / 1e9:.1f} GB of disk in {_hub_cache()}, which has {free / 1e9:.1f} GB free: make room, or set HF_HOME to a larger disk"
        )
    if memory > (free := available_memory(device)):
        missing.append(
            f"{memory / 1e9:.1f} GB of memory for {parameters / 1e9:.2f} billion parameters in {_name(dtype)}, and {device} has {free / 1e9:.1f} GB available: take a smaller dtype or model, or a larger machine"
        )
    return Requirements(
        os.fspath(name), _name(dtype), str(device), parameters, download, disk, memory, tuple(missing)
    )


def _files_here(name: str | os.PathLike, row: KnownModel | None, revision: str | None) -> Files:
    """Open what this machine already has of a model; raise FetchError or FormatError where it is not all there."""
    if row is None:
        return Files(Path(name))
    if row.id in EMBEDDED:
        folder = next(cache_dir().glob("smollm2-135m-instruct-*"), None)
        if folder is None:
            raise FetchError("the embedded base is not fetched yet")
        return Files(folder)
    return Files(fetch(row, revision, local=True)[0], row.file)


def choose_dtype(dtype: str | torch.dtype, device: str = "cpu") -> torch.dtype:
    """Return the dtype of a name; `auto` is bfloat16 on a GPU that has it, float16 on other GPUs, float32 on a CPU."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        if torch.device(device).type == "cpu":
            return torch.float32
        return (
            torch.bfloat16
            if torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}, auto")
    return DTYPES[dtype]


def available_memory(device: str = "cpu") -> int:
    """Return the bytes that can be allocated on a device now; a container's limit counts."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    return free_memory()


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
