"""Settings of a run: what is refused, the learning rate, and what a folder that holds a run accepts."""

import json
from dataclasses import asdict

import pytest

from sinkprune_companion.training.settings import Training, check_settings


def test_the_rate_warms_up_stays_and_falls_to_zero():
    config = Training(
        tokens=100 * 8, lengths=(4,), batch_tokens=8, learning_rate=1.0, warmup_steps=10, decay_share=0.2
    )
    assert config.steps == 100

    rates = [config.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])

    assert config.rate(100) == 0


# what a folder holds


def written(folder, settings: dict):
    file = folder / "training.json"
    file.write_text(json.dumps(settings))
    return file


def test_a_run_may_go_on_with_another_length_and_rate_and_with_nothing_else(tmp_path):
    config = Training()
    check_settings(config, tmp_path)  # a folder without a run

    changes = {"tokens": 9, "decay_share": 0.5, "learning_rate": 0.5, "warmup_steps": 7, "dtype": "float32"}
    written(tmp_path, asdict(config) | changes)
    check_settings(config, tmp_path)

    written(tmp_path, asdict(config) | changes | {"rank": 7, "batch_tokens": 3, "lengths": [2]})
    with pytest.raises(
        ValueError,
        match=r"holds a run with other settings \(batch_tokens, lengths, rank\): use another folder, or",
    ):
        check_settings(config, tmp_path)
