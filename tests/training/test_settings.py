"""Settings of a run: what is refused, the learning rate, and what a folder that holds a run accepts."""

import json
from dataclasses import asdict

import pytest

from sinkprune_companion.training.settings import Training, check_settings, settings_of, training_dtype


@pytest.mark.parametrize("field", ["tokens", "batch_tokens", "rank", "alpha", "warmup_steps"])
def test_settings_below_1_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a whole number of at least 1"):
        Training(**{field: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "encoder"}, "kind='encoder' is unknown; choose one of"),
        ({"dtype": "float16"}, "dtype='float16' is unknown; choose one of"),
        ({"lengths": (8, 1)}, r"lengths=\(8, 1\) must be at least 2 each"),
        ({"lengths": ()}, r"lengths=\(\) must be at least 2 each"),
        ({"lengths": (8, 64), "batch_tokens": 63}, r"lengths=\(8, 64\) must not exceed batch_tokens=63"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be a finite number above 0"),
        ({"decay_share": 1.5}, r"decay_share=1\.5 must be a number in \[0, 1\]"),
        ({"mask_token": "<mask>"}, "mask_token='<mask>' is for other bases: smol-ar has its own"),
        ({"from_scratch": True, "earlier_tokens": 5}, "earlier_tokens=5 are those of an adapter"),
    ],
)
def test_other_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Training(**changes)


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


def test_an_optimizer_that_starts_afresh_warms_up_again():
    config = Training(
        tokens=100 * 8, lengths=(4,), batch_tokens=8, learning_rate=1.0, warmup_steps=10, decay_share=0.2
    )
    rates = [config.rate(step, begun=40) for step in range(40, 52)]
    assert rates == pytest.approx([(step + 1) / 10 for step in range(10)] + [1.0, 1.0])


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_steps_cover_all_tokens(tokens, steps):
    assert Training(tokens=tokens, lengths=(4,), batch_tokens=8).steps == steps


# what a folder holds


def written(folder, settings: dict):
    file = folder / "training.json"
    file.write_text(json.dumps(settings))
    return file


def test_a_field_that_a_file_lacks_has_its_default_and_an_unknown_one_is_left_out(tmp_path):
    settings = settings_of(written(tmp_path, {"tokens": 5, "seed": 3, "data_seed": 4}))
    expected = asdict(Training(tokens=5, seed=3))
    assert settings == expected | {"lengths": list(expected["lengths"])}


def test_a_run_may_go_on_with_another_length_and_rate_and_with_nothing_else(tmp_path):
    config = Training()
    check_settings(config, tmp_path)  # a folder without a run
    changes = {
        "tokens": 9,
        "decay_share": 0.5,
        "learning_rate": 0.5,
        "warmup_steps": 7,
        "dtype": "float32",
    }
    written(tmp_path, asdict(config) | changes)
    check_settings(config, tmp_path)
    written(tmp_path, asdict(config) | changes | {"rank": 7, "batch_tokens": 3, "lengths": [2]})
    with pytest.raises(
        ValueError,
        match=r"holds a run with other settings \(batch_tokens, lengths, rank\): use another folder, or",
    ):
        check_settings(config, tmp_path)


@pytest.mark.parametrize(("gain", "expected"), [(7.0, "bfloat16"), (0.5, "float32")])
def test_training_is_in_bfloat16_where_it_was_measured_to_be_faster(monkeypatch, gain, expected):
    monkeypatch.setattr("sinkprune_core.models.devices.bfloat16_gain", lambda: gain)
    assert training_dtype("auto", "cpu") == expected
    assert training_dtype("bfloat16", "cpu") == "bfloat16"
