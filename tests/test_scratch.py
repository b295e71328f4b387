"""Scratch folders: what a killed process leaves goes with the next write, what a living one holds stays."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sinkprune_core.files import atomic, write_json
from sinkprune_core.scratch import remove_leftovers

HOLD = """
import sys, time
from pathlib import Path
from sinkprune_core.files import atomic
with atomic(Path(sys.argv[1])) as partial:
    partial.write_bytes(bytes(5000))
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is in the middle of an atomic write."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "file.json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()


def test_what_a_killed_process_left_is_removed_and_said(holder, tmp_path):
    holder.kill()
    holder.wait()
    (left,) = tmp_path.iterdir()
    assert str(holder.pid) in left.name
    with pytest.warns(UserWarning, match=r"removed .*file.json.* bytes\), which a killed process left"):
        write_json(tmp_path / "file.json", {})
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_what_a_living_process_holds_stays(holder, tmp_path):
    write_json(tmp_path / "file.json", {})
    assert len(list(tmp_path.iterdir())) == 2


def test_what_this_process_holds_stays(tmp_path):
    with atomic(tmp_path / "file.json") as partial:
        partial.write_text("mine")
        write_json(tmp_path / "file.json", {})
        assert partial.read_text() == "mine"
    assert (tmp_path / "file.json").read_text() == "mine"


@pytest.mark.parametrize(
    "name", [".file.json.12.abc", ".file.json.x.abc", "file.json.12.abc", ".other.12.abc"]
)
def test_a_folder_of_somebody_else_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "theirs").touch()
    if name.startswith(".other"):
        (tmp_path / name / ".held").touch()
    remove_leftovers(tmp_path / "file.json")
    assert (tmp_path / name / "theirs").exists()


@pytest.mark.parametrize("when", ["before the lock", "after it was made"])
def test_a_folder_that_is_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch, when):
    """Another process may remove it before this one holds the lock."""
    acquire, removed = FileLock.acquire, []

    def late(lock, *arguments, **options):
        if when == "before the lock" and not removed:
            removed.append(Path(lock.lock_file).parent.rmdir())
            raise FileNotFoundError(lock.lock_file)  # as where it goes while the lock is opened
        held = acquire(lock, *arguments, **options)
        if when == "after it was made" and not removed:
            removed.append(shutil.rmtree(Path(lock.lock_file).parent))
        return held

    monkeypatch.setattr(FileLock, "acquire", late)
    with atomic(tmp_path / "file.json") as partial:
        partial.write_text("whole")
    assert len(removed) == 1 and [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_an_empty_folder_goes_with_its_process(holder, tmp_path):
    """A process may be killed before it has made its lock, or after it has removed it."""
    mine, other = tmp_path / f".file.json.{os.getpid()}.abc", tmp_path / f".file.json.{holder.pid}.abc"
    holder.kill()
    holder.wait()
    for folder in (mine, other):
        folder.mkdir()
    with pytest.warns(UserWarning, match="which a killed process left"):  # of the holder's own
        remove_leftovers(tmp_path / "file.json")
    assert list(tmp_path.iterdir()) == [mine]


def test_a_write_is_not_slow_beside_many_others(tmp_path):
    for number in range(300):
        (tmp_path / f".{number}").mkdir()
    started = time.perf_counter()
    write_json(tmp_path / "file.json", {})
    assert time.perf_counter() - started < 2
