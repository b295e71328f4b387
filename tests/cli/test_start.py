"""Commands start without the heavy libraries, and fail in one line."""

import io
import re
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature

import pytest
from cyclopts import Argument

from sinkprune.cli import main
from sinkprune.cli.screen import PAUSE, loading
from sinkprune_core.pruning.presets import ABOUT, PRESETS

HEAVY = ("torch", "pandas", "numpy", "scipy", "matplotlib", "transformers", "pydantic")
WATCHED = """
import sys
from sinkprune.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
heavy = [name for name in {heavy} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else status)
"""
LIGHT = [[], ["help"], ["-v"], ["--version"], *([name, "--help"] for name in main.COMMANDS)]
WRONG = [
    ["prune", "m", "--out", "x", "--preset", "wandaa"],
    ["evaluate", "m", "--draws", "0"],
    ["prun"],
    ["train", "--lengths", "a"],
]


def watched(arguments: list[str]) -> subprocess.CompletedProcess:
    code = WATCHED.format(heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_version_import_nothing_heavy(arguments):
    found = watched(arguments)
    assert found.returncode == 0, found.stderr
    assert found.stdout


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_option_is_found_before_anything_heavy_is_imported(arguments):
    found = watched(arguments)
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1, found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prun"], 'Did you mean "prune"?'),
        (["claims", "--profil", "x"], "Did you mean --profile?"),
        (["prune"], "MODEL"),
        (["compare", "a"], "OTHER"),
        (["compare", "a", "b", "c"], "'c'"),
        (["prune", "m", "--out"], "--out"),
        (["evaluate", "m", "--tasks"], "--tasks"),
        (["trace", "m", "--steps", "2", "--steps", "3"], "--steps"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(arguments, said, refused):
    assert said in refused(*arguments)


# errors


@pytest.fixture
def failing(monkeypatch):
    """A function that makes `sinkprune claims` raise an error."""

    def fail(error: BaseException) -> None:
        def findings(_):
            raise error

        monkeypatch.setattr("sinkprune_companion.ledger.claims.findings", findings)

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("missing"), "KeyError: 'missing' (--debug shows where)"),
        (ValueError("of a\nlibrary"), "of a library"),
        (MemoryError(), "out of memory (MemoryError): take a smaller --batch"),
        (RuntimeError("std::bad_alloc"), "out of memory (std::bad_alloc): take a smaller --batch"),
        (OSError(28, "No space left on device", "here"), "No space left on device: 'here'"),
        (ModuleNotFoundError("No module named 'nbformat'", name="nbformat"), "pip install 'sinkprune["),
    ],
)
def test_an_unexpected_error_is_one_line_that_says_what_failed(error, said, failing, refused):
    failing(error)
    assert said in refused("claims")


def test_the_traceback_is_behind_debug(failing, capsys):
    failing(KeyError("missing"))
    assert main.main(["claims", "--debug"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: KeyError: 'missing' (--debug shows where)"


# interrupts


def test_an_interrupted_command_says_what_it_kept(model, tmp_path, capsys, monkeypatch):
    text = ["--text", tmp_path / "text.txt"]
    pruning = ["prune", model, *text, "--sequences", 6, "--length", 12, "--out", tmp_path / "out"]

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sinkprune.cli.prune.save", stop)
    assert main.main([str(part) for part in pruning]) == main.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted: finished blocks and statistics are kept in {tmp_path}/out.work, "
        "and the same command goes on from there"
    )
    assert (tmp_path / "out.work").is_dir()


# on a terminal


def test_a_clock_runs_while_a_model_is_loaded_and_is_gone_afterwards(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    with loading("a model"):
        time.sleep(1.5 + PAUSE)

    shown = screen.getvalue()
    assert {"00:00", "00:01"} <= set(re.findall(r"loading a model … ([\d:]+)", shown))
    last, blank, end = shown.replace("\033[K", "").split("\r")[-3:]
    assert end == "" and blank.isspace() and len(blank) >= len(last), "nothing is left of it"


# words that stand here so that help needs no torch


def option_of(name: str, option: str) -> Argument:
    """Return an option of a command as cyclopts sees it."""
    arguments = main.app[name].assemble_argument_collection()
    return next(argument for argument in arguments if f"--{option}" in argument.names)


def choices(name: str, option: str) -> set[str]:
    """Return the words that an option of a command may be."""
    return set(option_of(name, option).get_choices() or ())


def stated(name: str, option: str) -> str:
    """Return what help says where an option is not given."""
    return str(option_of(name, option).show_default)


def test_names_in_help_are_those_of_the_library():
    from sinkprune.calibration import SEQUENCES
    from sinkprune.cli import common, compare, evaluate, prune, trace
    from sinkprune.evaluation.harness.benchmarks import PAPER
    from sinkprune.evaluation.local_data import SPLITS
    from sinkprune.evaluation.protocols import PROTOCOLS
    from sinkprune.models.weight_files import DTYPES
    from sinkprune_companion.cli import train
    from sinkprune_companion.training.base import EMBEDDED_BASE
    from sinkprune_companion.training.settings import DTYPES as TRAINED
    from sinkprune_companion.training.settings import Training
    from sinkprune_core.language_model import KINDS
    from sinkprune_core.pruning import recipe
    from sinkprune_core.sinks.detection import variability

    assert recipe.PRESETS is PRESETS and list(PRESETS) == list(ABOUT)
    assert choices("prune", "dtype") == {*DTYPES, "auto", *common.ALIASES}
    assert {*common.ALIASES.values()} == {*DTYPES}
    assert choices("evaluate", "split") == {*SPLITS}
    running = {name for name, protocol in PROTOCOLS.items() if protocol.chunk is not None}
    assert choices("evaluate", "protocol") == running
    assert choices("evaluate", "family") == {*PAPER}
    assert choices("train", "kind") == {*KINDS}
    assert choices("train", "dtype") == {*TRAINED, "auto"}
    assert train.EMBEDDED_BASE == EMBEDDED_BASE
    assert prune.SEQUENCES == SEQUENCES

    defaults = {name: about.default for name, about in signature(train.train).parameters.items()}
    shared = [part.name for part in fields(Training) if defaults.get(part.name) not in (None, "auto")]
    assert len(shared) > 8
    assert Training(**{name: defaults[name] for name in shared}) == Training()
    assert stated("train", "rank") == str(Training().rank)

    assert stated("evaluate", "draws").startswith(f"{evaluate.TEXT_DRAWS} for texts")
    assert stated("evaluate", "sequences") == str(evaluate.TEXT_SEQUENCES)
    assert stated("compare", "draws").startswith(f"{compare.TEXT_DRAWS}, in the suite")
    counts = f"{prune.SEQUENCES}, and {prune.NOISED_SEQUENCES} for a recipe"
    assert stated("prune", "sequences").startswith(counts)
    assert stated("prune", "length") == f"{common.DEFAULT_LENGTH}, with --text {common.TEXT_LENGTH}"

    import torch

    measures = variability(torch.rand(2, 3, 8)).columns
    assert set(trace.MEANINGS) == {*measures, "value"} - {"prompt"}
    assert set(trace.SHARES) < set(measures)
