"""A pair from scratch is trained as in notebook 09, and not at all where its diagnosis is on record."""

from dataclasses import asdict

import pytest
import yaml

from sinkprune.files import write_json
from sinkprune_companion import project_root
from sinkprune_companion.experiments import native_pair
from sinkprune_companion.training.settings import SETTINGS


def test_it_is_trained_as_notebook_nine_trains_its_own():
    published = yaml.safe_load((project_root() / "workflow/config/evidence.yml").read_text())
    notebook = published["notebooks"]["09_from_scratch"]

    for name in native_pair.NAMES:
        training = native_pair.native_training(name, notebook["tokens"])
        assert training.from_scratch
        assert list(training.lengths) == notebook["crop_lengths"]
        assert training.batch_tokens == notebook["batch_tokens"]
        assert training.dtype == notebook["training"]


def test_a_record_is_found_without_the_model(run, make_anchored_lm, make_text_with_separators, monkeypatch):
    made = []

    def make(_run, training, _dtype):
        made.append(training.kind)
        return make_anchored_lm(training.kind)

    monkeypatch.setattr(native_pair, "native_model", make)
    monkeypatch.setattr(native_pair, "protocol_draw", lambda *_: make_text_with_separators(4))

    for name in native_pair.NAMES:
        first = native_pair.native_diagnosis(run, name, 1024, 4, 16, seed=0)
        again = native_pair.native_diagnosis(run, name, 1024, 4, 16, seed=0)
        assert first.equals(again)
        assert {"exact", "other_text", "left_out"} <= set(first)

    assert made == ["diffusion", "autoregressive"]


def test_a_model_of_that_name_under_other_settings_is_refused(run):
    training = native_pair.native_training("diffusion, from scratch", 1024)
    folder = run.records.parent / "models" / "native-diffusion-1024-bfloat16-0"
    folder.mkdir(parents=True)

    other = native_pair.Training(kind="diffusion", from_scratch=True, tokens=1024, lengths=(64,))
    write_json(folder / SETTINGS, asdict(other))
    with pytest.raises(ValueError, match="lengths"):
        native_pair.native_model(run, training, "float32")
