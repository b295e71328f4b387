"""The archive gives a run's records back byte for byte, and refuses what is not one."""

import shutil
import tarfile

import pandas as pd
import pytest

from sinkprune_companion.run import record_archive, records
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import interval


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in (records, record_archive):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    return tmp_path


def measure(calls: list) -> Run:
    run = Run("00_test", "p", {})

    def compute():
        calls.append(1)
        return pd.DataFrame({"value": [0.1, 0.25, 1 / 3]})

    run.record("kept", compute, seed=0)
    run.find({"mean": interval([0.1, 0.2, 0.4])})
    return run


def files(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_records_come_back_byte_for_byte_and_nothing_is_measured_again(root):
    calls = []
    run = measure(calls)
    before = files(run.records)
    first = record_archive.pack("p").read_bytes()
    assert record_archive.pack("p").read_bytes() == first  # the same to the byte
    shutil.rmtree(run.records)
    assert record_archive.unpack("p") == len(before) == 2
    assert record_archive.restored("p")
    (run.records / "from-archive").unlink()
    assert files(run.records) == before
    assert record_archive.unpack("p") == 0 and not record_archive.restored("p")
    measure(calls)
    assert len(calls) == 1


def test_only_records_behind_findings_are_packed_and_files_that_are_there_stay(root):
    run = measure([])
    stale = run.records / "kept" / "0123456789ab.csv"
    stale.write_text("value\n1\n")
    stale.with_suffix(".json").write_text("{}")
    trace = run.records / "kept" / "1123456789ab.safetensors"
    trace.write_bytes(bytes(8))
    behind = record_archive.files_behind(run.folder)
    assert stale not in behind and len(behind) == 2
    with tarfile.open(record_archive.pack("p")) as archive:
        assert len(archive.getmembers()) == 4 and not any(
            "safetensors" in each for each in archive.getnames()
        )
    with tarfile.open(record_archive.pack("p", behind)) as archive:
        assert len(archive.getmembers()) == 2
    behind[0].write_text("mine")
    assert record_archive.unpack("p") == 0
    assert behind[0].read_text() == "mine"


def test_what_is_no_archive_is_refused_with_a_sentence(root):
    with pytest.raises(FileNotFoundError, match="keeps no records of profile p"):
        record_archive.unpack("p")
    with pytest.raises(FileNotFoundError, match="sinkprune reproduce"):
        record_archive.pack("p")
    measure([])
    file = record_archive.pack("p")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        record_archive.unpack("p")
    for name in ("../evil.json", "a/b/evil.json", "/a/evil.json"):
        with tarfile.open(file, "w:xz") as archive:
            archive.addfile(tarfile.TarInfo(name))
        with pytest.raises(ValueError, match="no record"):
            record_archive.unpack("p")
