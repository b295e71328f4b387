"""Scratch folders: what a killed process leaves goes with the next write, what a living one holds stays."""

import subprocess
import sys

import pytest

from sinkprune.files import atomic, write_json
from sinkprune.scratch import remove_leftovers

HOLD = """
import sys, time
from pathlib import Path
from sinkprune.files import atomic
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
    with pytest.warns(UserWarning, match=f"removed {left}, which a killed process left"):
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


def test_a_process_that_was_killed_before_it_had_a_lock_leaves_nothing_either(tmp_path):
    (tmp_path / ".file.json.abcdefgh.tmp").mkdir()
    remove_leftovers(tmp_path / "file.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", [".file.json.abc.tmp", ".file.json.abc", "file.json.abc.tmp", ".other.abc.tmp"]
)
def test_a_folder_of_somebody_else_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "theirs").touch()
    if name.startswith(".other"):
        (tmp_path / name / ".lock").touch()
    remove_leftovers(tmp_path / "file.json")
    assert (tmp_path / name / "theirs").exists()
