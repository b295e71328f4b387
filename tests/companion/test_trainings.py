"""Other trainings of the embedded pair: what is kept of each."""

import json

import pytest

from sinkprune_companion.experiments import trainings
from sinkprune_companion.experiments.trainings import PAIR, PUBLISHED, kept_folder, measure, pairs
from sinkprune_core.files import project_root

FREE = {"seed", "tokens"}  # in which the trainings of two pairs may differ


def test_a_pair_of_the_wrong_kind_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "project_root", lambda: tmp_path / "project")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.json").write_text(json.dumps({"kind": "diffusion"}))
        (tmp_path / name / "training_log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="two is of kind 'diffusion': give one of kind 'autoregressive'"):
        measure("seed-9", tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "project").exists()


def test_the_kept_pairs_are_trained_by_the_published_recipe():
    published, *others = pairs()
    assert published.name == PUBLISHED and len(others) >= 2, "three trainings with the published one"
    for kind, settings in published.settings.items():
        seeds = {settings["seed"], *(other.settings[kind]["seed"] for other in others)}
        assert len(seeds) == 1 + len(others)
        for other in others:
            changed = {name for name in settings if other.settings[kind].get(name) != settings[name]}
            assert changed <= FREE, kind
            assert 2 * other.settings[kind]["tokens"] >= settings["tokens"]


def test_what_is_kept_of_a_pair_says_where_it_comes_from_and_names_no_machine():
    for folder in (file.parent for file in kept_folder().glob(f"*/{PAIR}")):
        for file in folder.rglob("*.json"):
            assert str(project_root()) not in file.read_text(encoding="utf-8")
        prints = set()
        for file in (folder / "findings").glob("*.json"):
            provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
            assert provenance["profile"] == folder.name
            assert provenance["parameters"]["model"] == f"runs/{folder.name}/models/diffusion"
            assert all(group["git_commit"] and group["names"] for group in provenance["records"])
            prints.add(file.stem)
        assert prints == {trainings.SINKS, trainings.PRUNING}
