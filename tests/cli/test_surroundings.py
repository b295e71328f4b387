"""Odd surroundings and odd words end in one sentence, or change nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune.cli import main
from sinkprune.cli.help_pages import two_columns

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "sinkprune.cli.main"]
ABSENT = ["evaluate", "smol-dlm", "--text", "absent.txt"]  # ends before anything heavy is imported


def started(*arguments: object, python: tuple[str, ...] = (), **more: object) -> subprocess.CompletedProcess:
    """Run a command line in a process of its own; `environment` is added to this one's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("environment", {})}
    line = [sys.executable, *python, "-m", "sinkprune.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, **more)


def said(found: subprocess.CompletedProcess) -> str:
    """Return the one line of a command that failed."""
    assert found.returncode == 1, found.stderr
    [line] = found.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# the process


def test_optimised_python_explains_and_says_why_it_cannot_run():
    help_page = started("prune", "--help", python=("-OO",))
    assert (help_page.returncode, help_page.stderr) == (0, "")
    assert "prune a model and save it in transformers format" in help_page.stdout
    usage = started(python=("-OO",))
    assert usage.returncode == 0 and "None" not in usage.stdout
    assert "-OO" in said(started(*ABSENT, python=("-OO",)))


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
    assert process.wait() == main.PIPE_CLOSED


RELATIVE = ["prune", "smol-dlm", "--out", "x", "--work", "y"]  # options that are resolved while they are read


@pytest.mark.parametrize("line", [ABSENT, RELATIVE], ids=lambda line: line[0])
def test_a_working_directory_that_is_gone_is_named(line, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()

    remove = "import os, sys; os.rmdir(os.getcwd()); from sinkprune.cli.main import main; sys.exit(main())"
    found = subprocess.run(
        [sys.executable, "-c", remove, *line],
        cwd=gone,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert "the working directory has been removed" in said(found)


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
    assert "caf\\xe9 holds bytes that are not UTF-8: write it in UTF-8" in refused(*words)


def test_a_working_directory_that_is_not_utf8_is_one_sentence(tmp_path, refused, monkeypatch):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert "caf\\xe9 holds bytes that are not UTF-8" in refused(*RELATIVE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SINKPRUNE_CACHE", "~nosuchuser/x"),
        ("TQDM_MININTERVAL", "soon"),
        ("TQDM_BAR_FORMAT", "{nothing}"),
        ("TQDM_NCOLS", "wide"),
    ],
)
def test_a_variable_that_nothing_can_work_with_is_named(name, value):
    line = said(started(*ABSENT, environment={name: value}))
    assert name in line and value in line


def test_a_backend_of_matplotlib_does_not_matter(model, tmp_path):
    picture = tmp_path / "trace.png"
    short = ["--text", tmp_path / "text.txt", "--sequences", 1, "--prompt", 4, "--tokens", 4, "--steps", 2]
    line = ["trace", model, *short, "--dtype", "float32", "--figure", picture]
    found = started(*line, environment={"MPLBACKEND": "nosuch"})
    assert found.returncode == 0, found.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


# words


@pytest.mark.parametrize(
    "line",
    [
        ["prune", "m", "--out=--"],
        ["prune", "m", "--out", "x", "--set=--"],
        ["evaluate", "m", "--tasks=--"],
        ["claims", "--profile=--"],
        ["reproduce", "--on=--"],
        ["publish", "--notebooks=--"],
    ],
    ids=" ".join,
)
def test_two_dashes_are_no_value(line, refused):
    name = line[-1].removesuffix("=--")
    assert f"{name}=--: -- is no value of {name}" in refused(*line)


@pytest.mark.parametrize("options", [("--out", ""), ("--out=",), ("--out", " ")], ids=repr)
def test_an_empty_place_is_named(options, refused):
    assert "--out: it is empty: give the name of a folder" in refused("prune", "m", *options)


def test_a_place_without_a_name_gets_a_sentence_that_fits(model, refused):
    assert "--out / is the root of the disk: name a folder below it" in refused("prune", model, "--out", "/")
    assert "--out . exists" in refused("prune", model, "--out", ".")
    work = refused("prune", model, "--out", model.parent / "out", "--work", "/")
    assert "--work / is the root of the disk: name a folder below it" in work


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
        assert f"--export {export}" in said and "lie one in the other" in said
    assert not run.exists()


LONG = "x" * 4000


@pytest.mark.parametrize(
    "line",
    [
        [LONG],
        ["evaluate", LONG],
        ["evaluate", "m", f"--{LONG}"],
        ["evaluate", "m", "--draws", "9" * 4000 + "a"],
        ["evaluate", "m", "--protocol", LONG],
        ["evaluate", "m", "--device", LONG],
        ["evaluate", "smol-ar", "--tasks", LONG, "--protocol", "ppl_llada"],
        ["prune", "m", "--out", "o", "--preset", LONG],
        ["prune", "m", "--out", "o", "--set", LONG],
        ["prune", "m", "--out", "o", "--set", f"{LONG}=1"],
        ["prune", "m", "--out", "o", "--pattern", LONG],
        ["prune", "m", "--out", "/" + LONG],
        ["compare", "m", *["n"] * 2000],
        ["claims", "--profile", LONG],
        ["train", "--lengths", LONG],
    ],
    ids=lambda line: " ".join(word[:12] for word in line[:6]),
)
def test_a_long_value_is_shortened(line, refused):
    found = refused(*line)
    assert len(found) <= main.LONGEST_MESSAGE
    assert "x" * (main.LONGEST_PATH + 1) not in found
    assert "…" in found or len(found) < 400


def test_a_message_keeps_its_way_out():
    message = f"--set {LONG}: write FIELD=VALUE, e.g. --set allocation=owl"
    found = main.shortened(message, ["--set", LONG])
    assert found.endswith("write FIELD=VALUE, e.g. --set allocation=owl")
    assert len(found) < 160


# at 80 columns


def test_words_are_wrapped_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    words = "SparseGPT from 50 % on with half-noised text, from 75 % on with OWL's allocation"
    lines = two_columns([("recommended", words), ("a-name-that-is-longer-than-its-column", "what")])
    assert all(len(line) <= 40 for line in lines.splitlines())
    assert lines.split()[1 : 1 + len(words.split())] == words.split()


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
