"""Models that notebook 08 knows by their records alone."""

import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from sinkprune.models.loading import open_checkpoint
from sinkprune_companion import project_root
from sinkprune_companion.experiments.robustness import (
    OnRecord,
    archived_fingerprint,
    archived_run,
    settings_of,
)
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw, held_out_texts
from sinkprune_core.pruning.recipe import preset

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    (tmp_path / "figures").mkdir()
    for file in (project_root() / "figures").glob("records-seed-1.tar.xz*"):
        shutil.copyfile(file, tmp_path / "figures" / file.name)
    for module in ("run.records", "run.profiles"):
        monkeypatch.setattr(f"sinkprune_companion.{module}.project_root", lambda: tmp_path)
    return Run("08_what_results_depend_on", "test", {"device": "cpu"})


def test_a_training_whose_scores_alone_are_left_is_called_so():
    names = [
        setting.value_of("pair") for setting in settings_of(True, [16], 128, 5, ["seed-1", "tests/companion"])
    ]
    assert {*names} == {"published", "old seed-1 (weights lost)", "companion"}


def test_scores_of_a_pair_without_weights_are_read_from_its_archive(run):
    apart = archived_run(run, "seed-1")
    fingerprint = archived_fingerprint(apart, "smol-dlm")

    lm = SimpleNamespace(name="smol-dlm", tokenizer=open_checkpoint("smol-ar").tokenizer())
    texts = held_out_texts(lm.tokenizer, 264, 128)
    text = calibration_draw(lm, 16, 128, 1)

    with OnRecord(lm, fingerprint, preset("unstable", noise_levels=8), text) as variant:
        frame = variant.scores(apart, texts, 1, variant="unstable", seed=1)
        assert len(frame) == 264
        assert set(frame.fingerprint) == {fingerprint}
        with pytest.raises(FileNotFoundError, match=rf"of the model {fingerprint}: name the folder"):
            variant.scores(apart, texts, 2, variant="unstable", seed=1)

    assert not run.records.exists() and not run.records_read, "an archive is no record of the run"


def test_an_archive_is_unpacked_once_and_a_file_that_others_read_is_never_opened_for_writing(run):
    apart = archived_run(run, "seed-1")
    files = sorted((apart.records / "scores").iterdir())
    before = {file: (file.stat().st_ino, file.stat().st_ctime_ns) for file in files}
    inside = {file.name for file in apart.records.iterdir()}
    assert files and inside == {"scores"}, "nothing else is unpacked, or left beside"

    missing = files[0]
    missing.unlink()
    archived_run(run, "seed-1")
    after = {file: (file.stat().st_ino, file.stat().st_ctime_ns) for file in files}
    changed = {file for file in files if after[file] != before[file]}
    assert changed <= {missing} and missing.exists()


def test_files_of_an_archive_appear_whole(run, monkeypatch):
    """So that a notebook beside, which unpacks the same archive, reads no part of one."""
    apart = archived_run(run, "seed-1")
    whole = {file: file.read_bytes() for file in (apart.records / "scores").iterdir()}
    for file in whole:
        file.unlink()

    extract = tarfile.TarFile.extractall

    def watched(archive: tarfile.TarFile, path: Path, members: list, **options: object) -> None:
        extract(archive, path, members, **options)
        assert not any(file.exists() for file in whole), "what is being written lies elsewhere"

    monkeypatch.setattr(tarfile.TarFile, "extractall", watched)
    archived_run(run, "seed-1")
    assert whole == {file: file.read_bytes() for file in whole}


def test_an_archive_that_the_project_does_not_keep_is_named(run):
    with pytest.raises(FileNotFoundError, match=r"records-nosuch\.tar\.xz is missing"):
        archived_run(run, "nosuch")
