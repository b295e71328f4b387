"""`sinkprune diagnose` says what Python says of a model."""

import json

import pytest

from sinkprune import load
from sinkprune_core import Calibration
from sinkprune_core.pruning.diagnosis import diagnose


def test_it_says_what_python_says(command, model, drawn, tmp_path, capsys):
    file = tmp_path / "table.json"
    assert command("diagnose", "--sparsity", 0.6, "--noise-levels", 2, "--json", file) == 0
    lm = load(model)
    expected = diagnose(lm, Calibration(drawn(lm, held_out=False)), (0.6,), 2, progress=False)
    rows = json.loads(file.read_text())
    assert [row["exact"] for row in rows] == pytest.approx(expected.table.exact.tolist())
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == expected.sentence(0.6)
    assert "llada (diffusion, float32 on cpu)" in said and "other_text" in said


def test_noise_levels_are_refused_where_nothing_is_noised(tiny_ar, tmp_path, refused, capsys):
    folder = tiny_ar.save(tmp_path / "ar")
    capsys.readouterr()
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word{index}" for index in range(20, 70)))
    line = ("diagnose", folder, "--text", text, "--length", 8, "--sequences", 4, "--noise-levels", 2)
    assert "--noise-levels 2 does nothing here: tiny-autoregressive is autoregressive" in refused(*line)
