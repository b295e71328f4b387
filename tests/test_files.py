"""Files: only ordinary ones are read, text is UTF-8, what is written is whole, and comes back or nothing."""

import json
import os
import threading
from pathlib import Path

import pytest

from sinkprune import corpus, files
from sinkprune.files import json_in, known_digest, locked, read_checked, read_text, write_checked, write_json
from sinkprune.models import devices
from sinkprune.models.loading import load

# what is read


@pytest.mark.parametrize("read", [read_text, json_in, files.file_digest, known_digest, files.check_ordinary])
def test_what_may_never_end_is_refused_without_being_read(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "link", "/dev/zero"):
        with pytest.raises(ValueError, match="is no ordinary file: copy"):
            read(place)


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


# what comes back


def test_what_was_written_comes_back_and_nothing_else(tmp_path):
    file = tmp_path / "cache" / "value.json"
    assert read_checked(file) is None

    value = {"gain": 1.25, "paragraphs": ["a", "ö"]}
    write_checked(file, value)
    assert read_checked(file) == value

    written = file.read_bytes()
    for place in range(len(written)):  # one letter after the other is another one
        changed = bytearray(written)
        changed[place] ^= 1
        file.write_bytes(changed)
        found = read_checked(file)
        assert found is None or found == value, bytes(changed)

    for damaged in (b"", written[:-9], b"[]", b"3", json.dumps(value).encode()):
        file.write_bytes(damaged)
        assert read_checked(file) is None


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


def test_a_home_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", "~nosuchuser/cache")
    with pytest.raises(ValueError, match=r"SINKPRUNE_CACHE=~nosuchuser/cache .* name a folder"):
        files.cache_dir()


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_a_name_that_is_not_utf8_is_refused_by_what_it_reads_as(tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ValueError, match=r"caf\\xe9.*holds bytes that are not UTF-8"):
        load(place)


# locks


def test_what_a_killed_process_left_of_a_lock_is_taken_over(tmp_path):
    (tmp_path / ".out.lock").touch()
    with locked(tmp_path / "out"), locked(tmp_path / "out"):
        assert (tmp_path / ".out.lock").exists()
    assert not list(tmp_path.iterdir())


def test_another_thread_is_refused_at_once_and_nothing_is_left(tmp_path):
    errors = []

    def enter():
        try:
            with locked(tmp_path / "out"):
                pass
        except RuntimeError as error:
            errors.append(error)

    with locked(tmp_path / "out"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()

    (error,) = errors
    assert f"{tmp_path / 'out'} is in use" in str(error) and "choose another place" in str(error)
    assert not list(tmp_path.iterdir())


# a small file


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
