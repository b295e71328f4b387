"""`sinkprune diagnose` gives the numbers of Python, goes on in its work folder, says what it cannot do."""

import json

import pandas as pd
import pytest
import torch

from sinkprune import load
from sinkprune.cli.diagnose import sentence
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune.runs.diagnosing import diagnose
from sinkprune_core import Calibration
from sinkprune_core.pruning import diagnosis

LEVELS = 2
COLUMNS = ["energy", "mean_share", "hot_channels", "predicted", "exact", "other_text"]


@pytest.fixture
def text(model, drawn) -> Calibration:
    return Calibration(drawn(load(model), held_out=False), seed=0, batch=16)


def test_the_command_prints_what_python_finds(model, command, text, tmp_path, capsys):
    table, picture = tmp_path / "table.json", tmp_path / "energy.png"
    assert command("diagnose", "--noise-levels", LEVELS, "--json", table, "--figure", picture) == 0

    expected = diagnosis.diagnose(load(model, "float32"), text, (0.5,), LEVELS, progress=False)
    written = pd.DataFrame(json.loads(table.read_text()))
    assert written[["layer", "linear"]].equals(expected.table[["layer", "linear"]])
    torch.testing.assert_close(
        torch.tensor(written[COLUMNS].to_numpy()), torch.tensor(expected.table[COLUMNS].to_numpy())
    )
    assert picture.read_bytes().startswith(b"\x89PNG")

    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "%" in line and "_proj" in line.split(" ")[0]]
    assert len(rows) == 7 and all(len(line) <= 40 for line in rows)
    said = " ".join(" ".join(lines).split())
    assert sentence(expected, 0.5) in said
    assert "Most affected" in said


def test_a_picture_that_cannot_be_written_says_what_is_written_already(
    model, command, tmp_path, monkeypatch, capsys
):
    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("sinkprune.cli.diagnose.draw", fail)
    table = tmp_path / "table.json"
    assert command("diagnose", "--noise-levels", 1, "--json", table, "--figure", tmp_path / "a.png") == 1
    assert table.is_file() and f"remove {table} first" in capsys.readouterr().err


def test_a_streamed_model_is_found_like_one_in_memory(model, text, tmp_path):
    streamed = stream(open_checkpoint(model), "streamed", torch.float32)
    with pytest.raises(ValueError, match="pass work="):
        diagnose(streamed, text, noise_levels=LEVELS, progress=False)

    found = diagnose(streamed, text, noise_levels=LEVELS, progress=False, work=tmp_path / "work")
    expected = diagnosis.diagnose(load(model, "float32"), text, noise_levels=LEVELS, progress=False)
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-4)


def test_the_command_streams_a_model_without_a_work_folder_and_leaves_none(
    model, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    assert command("diagnose", "--noise-levels", LEVELS, "--stream") == 0

    found = capsys.readouterr()
    assert "how far the pass has come is kept in llada-diagnosis.work until it ends" in found.err
    assert "of the kept weights" in " ".join(found.out.split())
    assert {path.name for path in tmp_path.iterdir()} == there


@pytest.mark.parametrize(
    ("folder", "began_streamed"), [((), True), (("--work", "kept"), True), (("--work", "kept"), False)]
)
def test_the_command_goes_on_as_it_began_however_much_memory_is_free_by_now(
    model, command, tmp_path, monkeypatch, capsys, folder, began_streamed
):
    monkeypatch.chdir(tmp_path)
    run = ("diagnose", "--noise-levels", LEVELS, *folder)

    monkeypatch.setattr("sinkprune.cli.common.STREAM_ABOVE", 0.0 if began_streamed else 1.0)
    with monkeypatch.context() as patches:
        patches.setattr(diagnosis, "diagnosis_from", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command(*run) != 0

    monkeypatch.setattr("sinkprune.cli.common.STREAM_ABOVE", 1.0 if began_streamed else 0.0)
    monkeypatch.setattr(diagnosis, "collect", lambda *_, **__: pytest.fail("a second pass"))
    assert command(*run) == 0, capsys.readouterr().err


def test_a_folder_that_another_text_left_does_not_stream_a_model_that_fits(
    model, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(diagnosis, "diagnosis_from", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command("diagnose", "--noise-levels", LEVELS, "--stream") != 0
    left = tmp_path / "llada-diagnosis.work"
    before = {file: file.read_bytes() for file in left.rglob("*") if file.is_file()}

    assert command("diagnose", "--noise-levels", LEVELS, "--seed", 7) == 0
    assert "llada-diagnosis.work was left by another run" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in left.rglob("*") if file.is_file()} == before


def test_a_run_that_goes_on_takes_no_second_pass(model, text, tmp_path, monkeypatch):
    lm = load(model, "float32")
    first = diagnose(lm, text, (0.5,), LEVELS, progress=False, work=tmp_path / "work")

    monkeypatch.setattr(diagnosis, "collect", lambda *_, **__: pytest.fail("a second pass"))
    again = diagnose(lm, text, (0.5, 0.75), LEVELS, progress=False, work=tmp_path / "work")
    assert again.table[again.table.sparsity == 0.5].reset_index(drop=True).equals(first.table)
    assert again.left_out == first.left_out


def test_norms_that_are_damaged_are_taken_again(model, text, tmp_path):
    lm = load(model, "float32")
    first = diagnose(lm, text, (0.5,), LEVELS, progress=False, work=tmp_path / "work")
    (file,) = (tmp_path / "work").glob("norms-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.warns(UserWarning, match="damaged"):
        again = diagnose(lm, text, (0.5,), LEVELS, progress=False, work=tmp_path / "work")
    assert again.table.equals(first.table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sinks", "some"), "all"),
        (("--figure", "x.txt"), "--figure"),
        (("--sparsity", "1"), "--sparsity"),
        (("--sequences", "1"), "--sequences"),
        (("--text", "nowhere.txt"), "--text"),
        (("--text", "."), "--text"),
    ],
)
def test_what_cannot_be_diagnosed_is_one_sentence(model, refused, no_model, options, said):
    assert said in refused("diagnose", model, *options)


def test_a_model_that_is_none_is_one_sentence(refused):
    assert "unknown model 'smol-dlmm'; did you mean smol-dlm" in refused("diagnose", "smol-dlmm")


def test_a_text_that_is_too_short_is_one_sentence(model, refused, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("three short words")
    said = refused("diagnose", model, "--text", text, "--length", 16)
    assert "too few for one sequence of 16: give more text" in said
