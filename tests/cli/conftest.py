"""What the tests of commands share: a tiny checkpoint with a text in its words, and ways to run a command."""

import json
import shutil

import pytest
import torch
from random_models.texts import TEXT

from sinkprune import corpus
from sinkprune.cli import main
from sinkprune_core.seeds import generator


@pytest.fixture
def model(checkpoint, tmp_path):
    """A tiny checkpoint in LLaDA's public format; `text.txt` in its vocabulary lies beside it."""
    shutil.copytree(checkpoint, tmp_path / "llada")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "llada"


@pytest.fixture
def command(model):
    """A function that runs a command on the tiny checkpoint and its text, and returns the exit status."""

    def run(name: str, *options: object) -> int:
        text = ["--text", model.parent / "text.txt", "--sequences", 6, "--dtype", "float32"]
        if name != "trace":
            text += ["--length", 12]
        return main.main([str(part) for part in (name, model, *text, *options)])

    return run


@pytest.fixture
def refused(capsys):
    """A function that runs a command line that fails, and returns what it says: one line, at most behind
    the one that says which model is loaded.
    """

    def run(*arguments: object) -> str:
        assert main.main([str(part) for part in arguments]) == 1
        found = capsys.readouterr()
        lines = [line for line in found.err.splitlines() if not line.startswith("loading ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), found.err
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def no_model(monkeypatch):
    """No command may load a model."""
    monkeypatch.setattr("sinkprune.cli.common.open_model", lambda *_: pytest.fail("loaded a model"))


@pytest.fixture
def rows_of(tmp_path):
    """A function that runs a command line with --json, and returns what is written."""
    names = iter(range(100))

    def run(*arguments: object) -> object:
        file = tmp_path / f"found-{next(names)}.json"
        assert main.main([str(part) for part in (*arguments, "--json", file)]) == 0
        return json.loads(file.read_text())

    return run


@pytest.fixture
def drawn():
    """A function that returns the sequences that a command draws from the text, int64 (6, 12)."""

    def draw(lm, held_out: bool) -> torch.Tensor:
        ids_NT = corpus.pack(TEXT.split("\n\n"), lm.tokenizer, 12)
        order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text", held_out))
        return ids_NT[order[:6].sort().values]

    return draw
