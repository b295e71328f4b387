"""The one door to files: only ordinary ones are read, text is UTF-8, what is kept is what was written."""

import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from sinkprune import corpus, files
from sinkprune.files import atomic, held, json_in, keep, kept, known_digest, read_text, write_json
from sinkprune.models import devices
from sinkprune.models.loading import load

# what is read


@pytest.fixture
def places(tmp_path):
    """Paths that are no ordinary files, by what an error calls them."""
    os.mkfifo(tmp_path / "pipe")
    own = socket.socket(socket.AF_UNIX)
    own.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "pipe")

    yield {
        "a pipe": tmp_path / "pipe",
        "a socket": tmp_path / "socket",
        "a device": Path("/dev/zero"),
        "a file of the kernel": Path("/proc/kmsg"),
        "is a pipe": tmp_path / "link",
    }

    own.close()


@pytest.mark.parametrize("read", [read_text, json_in, files.file_digest, known_digest, files.check_ordinary])
def test_what_may_never_end_is_refused_without_being_read(read, places):
    for what, place in places.items():
        with pytest.raises(ValueError, match=f"{what}: copy what it gives"):
            read(place)


def test_a_folder_with_a_pipe_in_it_is_not_read(places, tmp_path):
    with pytest.raises(ValueError, match="is a pipe"):
        files.check_folder(tmp_path)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "dangling").symlink_to(tmp_path / "nothing")
    files.check_folder(tmp_path / "plain")


TEXT = "Größe, 漢字 and\nmore\n"


def test_utf8_is_read_with_and_without_a_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        for ending in ("\n", "\r\n", "\r"):
            file = tmp_path / "text"
            file.write_bytes(TEXT.replace("\n", ending).encode(encoding))
            assert read_text(file) == TEXT


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["plain letters\n", TEXT])
def test_wide_text_is_never_taken_for_utf8(encoding, text, tmp_path):
    file = tmp_path / "text"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"text is not UTF-8 text \(.*\): save it as UTF-8"):
        read_text(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ('{"b": [{"a": 1, "c": 0, "a": 1}]}', "the key 'a' comes twice"),
        ("[" * 100_000, "nested too deep"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_two_readers_could_take_differently_is_refused(text, said, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json is not JSON .*{said}"):
        json_in(tmp_path / "config.json")


# what is kept


def test_what_is_kept_comes_back_and_nothing_else(tmp_path):
    file = tmp_path / "cache" / "kept.json"
    assert kept(file) is None

    value = {"gain": 1.25, "paragraphs": ["a", "ö"]}
    keep(file, value)
    assert kept(file) == value

    written = file.read_bytes()
    for place in range(len(written)):  # one letter after the other is another one
        changed = bytearray(written)
        changed[place] ^= 1
        file.write_bytes(changed)
        found = kept(file)
        assert found is None or found == value, bytes(changed)

    for damaged in (b"", written[:-9], b"[]", b"3", json.dumps(value).encode()):
        file.write_bytes(damaged)
        assert kept(file) is None


def test_a_cache_that_was_written_into_decides_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(devices, "_measured_gain", lambda: 1.5)
    devices._measured_once.cache_clear()
    assert devices.bfloat16_gain() == 1.5

    (file,) = tmp_path.glob("bfloat16-*.json")
    for gain in ("NaN", "Infinity", "1000000000.0"):
        file.write_text(file.read_text().replace("1.5", gain))
        devices._measured_once.cache_clear()
        assert devices.bfloat16_gain() == 1.5

    devices._measured_once.cache_clear()


def test_documentation_with_another_letter_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))

    (tmp_path / "stdlib").mkdir()
    words = " ".join(["Return the number of files in the folder which"] + ["the user has given"] * 4)
    (tmp_path / "stdlib" / "a.py").write_text(f'"""{words}."""\n')

    right = corpus.installed("stdlib")
    assert right == (f"{words}.",)

    (file,) = (tmp_path / "cache").glob("documentation-*.json")
    written = file.read_text()

    for damaged in (written.replace("number", "numbed"), written[:-20], "", "[]"):
        file.write_text(damaged)
        assert corpus.installed("stdlib") == right
        assert file.read_text() == written


def test_a_note_of_a_digest_that_was_changed_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "FRESH", -1.0)
    file = tmp_path / "weights"
    file.write_bytes(b"numbers")
    right = known_digest(file)
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text(note.read_text().replace(right, "0" * 64))
    assert known_digest(file) == right == files.file_digest(file)


def test_a_home_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", "~nosuchuser/cache")
    with pytest.raises(ValueError, match="~nosuchuser/cache lies in a home folder that does not exist: set"):
        files.cache_dir()


# names of helper files


@pytest.mark.parametrize("name", [".t.lock", ".t.holder", ".t.12.abcdefgh"])
def test_no_output_has_the_name_of_a_helper_file(name, tmp_path):
    with (
        pytest.raises(ValueError, match="has a name that this program gives to files of its own"),
        held(tmp_path / name),
    ):
        pytest.fail("held")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("helper", [".out.lock", ".out.holder"])
@pytest.mark.parametrize("kind", ["symlink", "hardlink", "pipe", "folder", "file"])
def test_what_stands_where_a_lock_goes_is_neither_followed_nor_opened(kind, helper, tmp_path):
    victim, place = tmp_path / "victim", tmp_path / helper
    victim.write_text("years of work")

    if kind == "symlink":
        place.symlink_to(victim)
    elif kind == "hardlink":
        place.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_text("years of work")

    said = f"{helper} is none of this program's, and the lock of .*out goes there"
    with pytest.raises(ValueError, match=said), held(tmp_path / "out"):
        pytest.fail("held")
    assert victim.read_text() == "years of work" and os.path.lexists(place)


def test_what_a_killed_process_left_of_a_lock_is_taken_over(tmp_path):
    (tmp_path / ".out.lock").touch()
    (tmp_path / ".out.holder").write_text('{"process": 1}')
    with held(tmp_path / "out"), held(tmp_path / "out"):
        assert json.loads((tmp_path / ".out.holder").read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


# a small file


# names and folders


def write_one(place):
    write_json(place, 1)


def hold(place):
    with held(place):
        pass


def make(place):
    with atomic(place) as partial:
        partial.mkdir()


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
@pytest.mark.parametrize("use", [write_one, hold, make, load], ids=lambda use: use.__name__)
def test_a_name_that_is_not_utf8_is_refused_by_what_it_reads_as(use, tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9") / "out"
    place.parent.mkdir()
    with pytest.raises(ValueError, match=r"caf\\xe9.*holds bytes that are not UTF-8: write it in UTF-8"):
        use(place)
    assert list(place.parent.iterdir()) == []


@pytest.fixture
def append_only(tmp_path):
    """A folder in which names can be made and none changed; whoever may not make one skips the test."""
    folder = tmp_path / "log"
    folder.mkdir()
    change = shutil.which("chattr")
    if change is None or subprocess.run([change, "+a", folder], capture_output=True).returncode != 0:
        pytest.skip("no folder can be made append-only here")
    yield folder
    subprocess.run(["chattr", "-a", folder], check=True)


@pytest.mark.parametrize("use", [write_one, hold, make], ids=lambda use: use.__name__)
def test_a_folder_that_is_append_only_is_named_and_nothing_is_left_in_it(use, append_only):
    with pytest.raises(PermissionError, match=r"/log is append-only, and what is written is renamed there"):
        use(append_only / "out")
    assert list(append_only.iterdir()) == []


def test_a_small_file_costs_one_flush_of_itself_and_one_of_its_name(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def note(descriptor):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_json(tmp_path / "a.json", {"a": 1})
    assert flushed == ["a.json", tmp_path.name]
    assert json_in(tmp_path / "a.json") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_small_file_is_always_whole_and_has_ordinary_modes(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, [0] * 1000)
    (tmp_path / "other").touch()
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(len(set(json.loads(file.read_text()))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        write_json(file, [number] * 1000)
    stop.set()
    reader.join()
    assert seen == {1}


def test_a_small_file_that_cannot_be_written_leaves_the_former_one(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(file, {"a": float("nan")})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"a.json cannot be written .* make room there"):
        write_json(file, {"a": 2})
    assert json_in(file) == {"a": 1} and len(list(tmp_path.iterdir())) == 1
