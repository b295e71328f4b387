"""Settings that notebook 07 compares, and models that it knows by their records alone."""

import shutil
from types import SimpleNamespace

import pytest

from sinkprune_companion.experiments.robustness import (
    PUBLISHED,
    OnRecord,
    Setting,
    apart_in,
    archived_fingerprint,
    archived_run,
)
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw, held_out_texts
from sinkprune_core.files import project_root
from sinkprune_core.models.loading import open_checkpoint
from sinkprune_core.pruning.recipe import preset

MAIN = Setting(PUBLISHED, 16, False, 128, seeds=7)


def test_what_is_compared_differs_in_one_factor_alone():
    more = MAIN._replace(calibration=128, seeds=10)
    own = more._replace(own_noise=True)
    pair = MAIN._replace(pair="seed-1", seeds=2)
    settings = [MAIN, more, own, pair]
    assert apart_in("pair", settings) == [MAIN, pair]
    assert apart_in("calibration", settings) == [MAIN, more]
    assert apart_in("own_noise", settings) == [more, own]
    assert apart_in("length", settings) == []
    assert len({setting.name for setting in settings}) == len(settings)
    assert apart_in("calibration", [MAIN, MAIN._replace(seeds=2)]) == [], "draws are no factor"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    (tmp_path / "figures").mkdir()
    for file in (project_root() / "figures").glob("records-seed-1.tar.xz*"):
        shutil.copyfile(file, tmp_path / "figures" / file.name)
    for module in ("run.records", "run.record_archive"):
        monkeypatch.setattr(f"sinkprune_companion.{module}.project_root", lambda: tmp_path)
    return Run("07_robustness", "test", {"device": "cpu"})


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


def test_what_an_archive_lacks_is_refused(run):
    with pytest.raises(FileNotFoundError, match=r"records-seed-9.tar.xz is missing: the project keeps no"):
        archived_run(run, "seed-9")
    with pytest.raises(ValueError, match="has scores of 0 models called dream, not of one"):
        archived_fingerprint(archived_run(run, "seed-1"), "dream")
