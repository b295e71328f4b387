"""The archive gives a run's records back byte for byte, and refuses what is not whole before it writes."""

import json
import random
import shutil
import tarfile
import time
from pathlib import Path

import pandas as pd
import pytest
from damage import damaged_bytes

from sinkprune.evaluation.intervals import interval
from sinkprune_companion.run import profiles, records
from sinkprune_companion.run.records import Run


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in (profiles, records):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    return tmp_path


def measure(calls: list) -> Run:
    run = Run("00_test", "p", {})

    def compute():
        calls.append(1)
        return pd.DataFrame({"value": [0.1, 0.25, 1 / 3]})

    run.record("measured", compute, seed=0)
    run.find({"mean": interval([0.1, 0.2, 0.4])})
    return run


def packed(run: Run) -> Path:
    """Return the archive of all records of a run."""
    file = profiles.archive_file("p")
    profiles.pack("p", run.records.rglob("*"), file)
    return file


def files(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_records_come_back_byte_for_byte_and_nothing_is_measured_again(root):
    calls = []
    run = measure(calls)

    before = files(run.records)
    first = packed(run).read_bytes()
    assert packed(run).read_bytes() == first  # the same to the byte

    shutil.rmtree(run.records)
    assert profiles.unpack("p") == len(before) == 2
    (run.records / profiles.MARK).unlink()
    assert files(run.records) == before

    assert profiles.unpack("p") == 0 and not (run.records / profiles.MARK).exists()
    measure(calls)
    assert len(calls) == 1


def test_a_damaged_archive_is_refused_before_a_file_is_written(root):
    run = measure([])
    file = packed(run)
    shutil.rmtree(run.records)
    for done, damaged in damaged_bytes(file.read_bytes(), random.Random(0), flips=20, cuts=10):
        file.write_bytes(damaged)
        with pytest.raises((ValueError, OSError), match=file.name):
            profiles.unpack("p")
        assert not run.records.exists(), done


def test_what_is_no_archive_of_records_is_refused_before_a_file_is_written(root):
    with pytest.raises(FileNotFoundError, match="keeps no records of profile p"):
        profiles.unpack("p")
    with pytest.raises(FileNotFoundError, match="sinkprune reproduce"):
        profiles.pack("p", [], root / "p.tar.xz")

    with pytest.raises(ValueError, match="is no name"):
        profiles.pack("../p", [], root / "p.tar.xz")

    run = measure([])
    file = packed(run)

    shutil.rmtree(run.records)
    with tarfile.open(file, "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("measured/0123456789ab.json"))

    with pytest.raises(ValueError, match="is damaged"):
        profiles.unpack("p")
    assert not run.records.exists()


def test_what_is_left_of_a_run_is_weighed_by_what_jobs_of_each_notebook_took(root):
    costs = {"long": {"core_minutes": 8.0, "jobs": 1}, "short": {"core_minutes": 2.0, "jobs": 2}}
    cells = [{"metadata": {"papermill": {"status": status}}} for status in ("completed", *["pending"] * 3)]
    ended = {"papermill": {"end_time": "now"}}

    for place, content in {
        "docs/run_costs.json": {"p": {"costs": costs}},
        "runs/p/notebooks/long.ipynb": {"cells": cells, "metadata": {}},  # in the second of its four cells
        "runs/p/cells/short/a/short.ipynb": {"cells": cells[:1], "metadata": ended},
    }.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(json.dumps(content))

    said = profiles.progress(profiles.run_folder("p"), time.time() - 600, {"long": 1, "short": 2})
    assert said == "1 of 3 jobs finished; long cell 2 of 4; about 10 min left"


def test_a_notebook_that_is_gone_before_it_is_read_stops_no_progress_line(root, monkeypatch):
    gone = root / "runs" / "p" / "notebooks" / "one.ipynb"
    monkeypatch.setattr(profiles, "notebook_files", lambda folder: {gone: ""})
    assert profiles.progress(profiles.run_folder("p"), 0, {"one": 1}).startswith("0 of 1 jobs finished")
