"""Odd surroundings and odd words end in one sentence, or change nothing."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "sinkprune.cli.main"]


def started(*arguments: object, python: tuple[str, ...] = (), **more: object) -> subprocess.CompletedProcess:
    """Run a command line in a process of its own; `environment` is added to this one's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("environment", {})}
    line = [sys.executable, *python, "-m", "sinkprune.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, **more)


# the process


@pytest.mark.parametrize("line", [["prune", "--help"], []], ids=["help", "usage"])
def test_a_closed_pipe_is_silent(line):
    process = subprocess.Popen(
        [*COMMAND, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() != 0


@pytest.mark.parametrize("closing", [">&-", ">&- 2>&-", "> /dev/full"])
def test_results_reach_their_file_whatever_becomes_of_the_output(closing, model, tmp_path):
    file = tmp_path / "found.json"
    words = [*COMMAND, "evaluate", model, "--text", tmp_path / "text.txt", "--sequences", 2, "--length", 12]
    words += ["--draws", 1, "--json", file]
    line = f"{shlex.join(map(str, words))} {closing}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment)
    assert found.returncode == (1 if "full" in closing else 0)
    assert "Traceback" not in found.stderr and "Exception" not in found.stderr
    assert json.loads(file.read_text())[0]["value"] > 0


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
@pytest.mark.parametrize(
    "line",
    [
        ["prune", "m", "--out", "caf{}"],
        ["evaluate", "caf{}"],
        ["evaluate", "m", "--text=caf{}"],
        ["generate", "m", "--prompt", "caf{}"],
        ["claims", "--profile", "caf{}"],
        ["caf{}"],
    ],
    ids=" ".join,
)
def test_a_word_that_is_not_utf8_is_one_sentence(line, refused):
    words = [word.format(os.fsdecode(b"\xe9")) for word in line]
    assert "write it in UTF-8" in refused(*words)


def test_a_backend_of_matplotlib_does_not_matter(model, tmp_path):
    picture = tmp_path / "trace.png"
    short = ["--text", tmp_path / "text.txt", "--sequences", 1, "--prompt", 4, "--tokens", 4, "--steps", 2]
    line = ["trace", model, *short, "--dtype", "float32", "--figure", picture]
    found = started(*line, environment={"MPLBACKEND": "nosuch"})
    assert found.returncode == 0, found.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


# words


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_place_without_a_name_is_refused(place, model, refused):
    assert "--out" in refused("prune", model, "--out", place)


def test_a_work_folder_is_resolved_once(command, tmp_path):
    work = tmp_path / "out" / ".." / "w"
    small = ("--preset", "wanda", "--sparsity", 0.3, "--out", tmp_path / "out", "--work", work)
    assert command("prune", *small) == 0
    assert (tmp_path / "out" / "sinkprune.json").is_file()
    assert command("prune", *small) == 0, "it is finished already"
    assert (tmp_path / "w").is_dir()


def test_an_export_into_the_folder_of_the_run_is_refused_first(tmp_path, refused):
    run = tmp_path / "run"
    for folder, export in ((run, run), (run, run / "x"), (run / "x", run)):
        said = refused("train", "--folder", folder, "--export", export)
        assert "--export" in said and str(export) in said
    assert not run.exists()


# at 80 columns


def test_help_fits_a_terminal_of_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("prune", "evaluate", "train", "generate"):
        assert main.main([name, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        too_long = [line for line in lines if len(line) > 80 and not line.startswith("  sinkprune ")]
        assert not too_long


def test_a_bar_of_a_long_task_still_has_room_in_80_columns():
    from tqdm import tqdm

    bar = tqdm.format_meter(
        15, 30, 3600, ncols=80, prefix="prune smol-dlm: sparsegpt clean sequential", bar_format=main.BAR
    )
    assert len(bar) <= 80 and bar.count("█") >= 3
