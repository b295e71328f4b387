"""From a name to a folder: download what is needed of a hub repository."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import DryRunFileInfo
from huggingface_hub.utils import TensorInfo
from tqdm import tqdm

from sinkprune.files import check_decodable
from sinkprune.memory import free_memory
from sinkprune.models.adapters import base_of, is_adapter
from sinkprune.models.catalog import EMBEDDED, MODELS, REFUSED, KnownModel
from sinkprune.models.embedded import FetchError, announce
from sinkprune.models.weight_files import FormatError, WeightFiles
from sinkprune.spelling import suggestion
from sinkprune_core.values import in_short

# configuration and tokenizer, the weights, and the model card for its licence: never code, never pickles
SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]
WANTED = ["*.safetensors", *SMALL]
ANNOUNCED = 1_000_000  # bytes from which a download is announced
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name


class Name(NamedTuple):
    """What the name of a model means: a row of the table, a folder, or else a hub id without a row."""

    row: KnownModel | None = None
    revision: str | None = None  # of a hub id, after its `@`
    folder: Path | None = None


def parse(name: str | os.PathLike[str]) -> Name:
    """Return what a name means: an embedded model, else a folder that is here, else a hub id.

    A folder goes before a hub id of the same spelling, as in `from_pretrained` of transformers. Raises
    ValueError for a model that is known and not covered, saying why, for a folder without a model, and for
    what is no name at all; TypeError for what is neither a text nor a path.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(
            f"{in_short(name)} is no model: give the name of one, such as 'smol-dlm', or a folder"
        )

    check_decodable(name)
    text = os.fspath(name)
    plain, _, revision = text.partition("@")

    if text in EMBEDDED:
        return Name(row=MODELS[text])

    folder = Path(text)
    files = ("config.json", "adapter_config.json")
    if any((folder / file).is_file() for file in files) or any(folder.glob("*.safetensors")):
        return Name(folder=folder)

    is_hub_id = HUB_ID.fullmatch(plain) is not None
    if is_hub_id and not folder.exists():
        if plain in REFUSED:
            raise ValueError(f"{plain} is not covered: {REFUSED[plain]}")
        return Name(row=MODELS.get(plain), revision=revision or None)

    if is_hub_id and plain in MODELS:
        raise ValueError(
            f"{text} is a folder here, without config.json and safetensors, and folders go before the hub: "
            "remove it or run elsewhere to take the model of the hub, or give another folder"
        )

    near = suggestion(plain, MODELS)
    raise ValueError(
        f"unknown model {text!r}{near or ';'} known names: {', '.join(EMBEDDED)}, and hub ids "
        "(owner/name), these also with @revision; or give a folder with config.json and safetensors"
    )


def fetch(repository: str, revision: str | None = None, local: bool = False) -> Path:
    """Return the folder of a repository of the hub, downloading what the cache lacks.

    `local`: in the cache only. Raises FetchError with what to do: no network, access, revision or file.
    """
    folder = _snapshot(repository, revision, local)
    if not any(folder.glob("*.safetensors")):
        raise _no_safetensors(repository, revision, f"where the cache has lost them, remove {folder} and run")
    return folder


def _no_safetensors(repository: str, revision: str | None, else_do: str) -> FetchError:
    """Return the error for a repository whose weights are in no format that is read."""
    at = f" at {revision}" if revision else ""
    return FetchError(
        f"{repository} publishes no safetensors{at}: "
        "pickled weights can run code and are not fetched; take another revision (name@revision), "
        f"or convert them and load that folder; {else_do} again"
    )


def folder_of(name: str | os.PathLike, local: bool = False, weights: bool = True) -> Path:
    """Return where the files of a name without a row lie: the folder it is, or that of a hub id, fetched.

    Without `weights` a hub id is fetched without them. Raises what `fetch` raises.
    """
    if Path(name).exists():
        return Path(name)
    repository, revision = _of_hub(name)
    try:
        if not weights:
            return _snapshot(repository, revision, local, SMALL)
        return fetch(repository, revision, local)
    except FetchError as error:
        near = suggestion(repository, MODELS)
        raise FetchError(f"{error}; there is no folder {repository} here either{near}") from None


def _of_hub(name: str | os.PathLike) -> tuple[str, str | None]:
    """Return the repository and the revision of a hub id."""
    repository, _, revision = os.fspath(name).partition("@")
    return repository, revision or None


def adapter_base(name: str | os.PathLike) -> str | None:
    """Return the model that an adapter belongs to, as `load` takes its name; None for what is no adapter.

    Raises FormatError for an adapter whose base is none, or is an adapter itself.
    """
    row = parse(name).row
    if row is not None:
        return None
    folder = folder_of(name, weights=False)
    if not is_adapter(folder):
        return None

    base = base_of(folder)
    try:
        of_base = parse(base).row
        if of_base is None and is_adapter(folder_of(base, weights=False)):
            raise FormatError(f"its base is an adapter, too: {save_whole(base)}")
    except (ValueError, FetchError) as error:
        raise FormatError(
            f"{os.fspath(name)} is an adapter of {base!r}, which cannot be loaded: {error}"
        ) from None

    return base


def save_whole(adapter: str | os.PathLike) -> str:
    """Return how a model of its own is made of an adapter and its base."""
    name = shlex.quote(os.fspath(adapter))
    return f"make one model of it, `sinkprune ship {name} --out FOLDER`, and give that folder"


def _snapshot(repository: str, revision: str | None, local: bool, wanted: list[str] = WANTED) -> Path:
    """Return the folder of a repository in the hub's cache, with the files that are wanted.

    What is large is announced with its size before it is downloaded.
    """
    from huggingface_hub import snapshot_download

    fetch_files = partial(
        snapshot_download, repository, revision=revision, allow_patterns=wanted, local_files_only=local
    )
    with _errors_of_hub(repository, revision):
        size = 0 if local else _missing_bytes(fetch_files)
        if size >= ANNOUNCED:
            announce(f"{repository} from the hub", size)
        return Path(fetch_files())


def _missing_bytes(fetch_files: Callable[..., list[DryRunFileInfo]]) -> int:
    """Return how many bytes a download will bring; 0 where the hub does not answer, and the cache may do."""
    from huggingface_hub.errors import DryRunError

    try:
        files = fetch_files(dry_run=True, tqdm_class=partial(tqdm, disable=True))
    except DryRunError:
        return 0
    return sum(file.file_size or 0 for file in files if file.will_download)


@cache
def headers_on_hub(repository: str, revision: str | None) -> dict[str, TensorInfo]:
    """Return what the headers of a repository's weights say, by stored name; no weights are downloaded.

    Raises FetchError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    with _errors_of_hub(repository, revision):
        try:
            found = HfApi().get_safetensors_metadata(repository, revision=revision)
        except (NotASafetensorsRepoError, SafetensorsParsingError):
            raise _no_safetensors(repository, revision, "once they are there, run") from None

    files = found.files_metadata.values()
    return {name: tensor for file in files for name, tensor in file.tensors.items()}


def shapes_of_files(name: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors behind a name without a row, from headers alone.

    There are none for a folder with a configuration and no weights.
    """
    if Path(name).exists():
        folder = Path(name)
        return WeightFiles(folder).shapes if any(folder.glob("*.safetensors")) else {}
    try:
        return WeightFiles(fetch(*_of_hub(name), local=True)).shapes
    except (FetchError, FormatError):
        headers = headers_on_hub(*_of_hub(name))
        return {stored: tuple(header.shape) for stored, header in headers.items()}


@contextmanager
def _errors_of_hub(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into a FetchError that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # of the library behind the hub's client, for a connection that breaks off
    kinds = HfHubHTTPError.__mro__
    http_error: type[Exception] = next(kind for kind in kinds if kind.__name__ == "HTTPError")
    page = f"https://huggingface.co/{repository}"
    try:
        yield
        return
    except FetchError:
        raise
    except GatedRepoError:
        reason = f"it is gated: accept its licence at {page} and log in with `hf auth login`, or set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = (
            f"the hub has no such repository or does not show it to you: look at {page}; "
            "private ones need HF_TOKEN"
        )
    except RevisionNotFoundError:
        reason = f"it has no revision {revision!r}: see {page}/commits"
    except (OSError, ValueError, http_error) as error:
        first_sentence = re.split(r"\. |\n", str(error) or type(error).__name__, maxsplit=1)[0].rstrip(".")
        reason = (
            f"the hub cannot be reached or broke off, and its cache does not hold it ({first_sentence}): run "
            "again with a network, files that arrived whole are kept; or copy a folder of it here and load "
            "that folder; HF_HOME says where the cache is"
        )
    raise FetchError(f"{repository} could not be fetched: {reason}")


def available_memory(device: str | torch.device = "cpu") -> int:
    """Return the bytes that can be allocated on a device now; a container's limit counts."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    return free_memory()
