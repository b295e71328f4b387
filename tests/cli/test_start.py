"""Commands start without the heavy libraries, and fail in one line."""

import subprocess
import sys
from dataclasses import fields

import pytest

from sinkprune.cli import main
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
LIGHT = [[], ["help"], ["-v"], ["--version"], ["prune", "--help"], ["reproduce", "--help"]]
WRONG = [["prune", "m", "--out", "x", "--preset", "wandaa"], ["evaluate", "m", "--draws", "0"], ["prun"]]


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
        (["prun"], "there is no command prun; did you mean prune?"),
        (["claims", "--profil", "x"], "sinkprune claims does not take --profil; did you mean --profile?"),
        (["prune"], "the following arguments are required: model"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(arguments, said, refused):
    assert said in refused(*arguments)


# errors


@pytest.fixture
def failing(monkeypatch):
    """A function that makes `sinkprune claims` raise an error."""

    def fail(error: BaseException) -> None:
        def run(options):
            raise error

        monkeypatch.setattr("sinkprune_companion.cli.claims.run", run)

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("missing"), "claims failed: KeyError: 'missing' (--debug shows where)"),
        (ValueError("of a\nlibrary"), "claims failed: ValueError: of a library (--debug shows where)"),
        (MemoryError(), "claims ran out of memory: take a smaller --batch"),
        (OSError(28, "No space left on device", "here"), "No space left on device: here"),
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
    assert lines[-1] == "error: claims failed: KeyError: 'missing' (--debug shows where)"


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


# words that stand here so that help needs no torch


def test_names_in_help_are_those_of_the_library():
    from sinkprune.cli import checks, common, compare, evaluate, prune
    from sinkprune.cli.options import ALIASES, COMMANDS
    from sinkprune.evaluation.harness.benchmarks import PAPER
    from sinkprune.evaluation.local_data import SPLITS, WIKITEXT
    from sinkprune.evaluation.protocols import PROTOCOLS
    from sinkprune.models.weight_files import DTYPES
    from sinkprune_companion.cli.checks import EMBEDDED_BASE as BASE_OF_OPTIONS
    from sinkprune_companion.training.base import EMBEDDED_BASE
    from sinkprune_companion.training.settings import DTYPES as TRAINED
    from sinkprune_companion.training.settings import Training
    from sinkprune_core.language_model import KINDS
    from sinkprune_core.pruning import recipe
    from sinkprune_core.sinks.detection import variability

    options = {name: entry["options"] for name, entry in COMMANDS.items()}
    assert recipe.PRESETS is PRESETS and list(PRESETS) == list(ABOUT)
    assert set(options["prune"]["dtype"]["choices"]) == {*DTYPES, "auto"} and {*ALIASES.values()} == {*DTYPES}
    assert (options["evaluate"]["split"]["choices"], checks.WIKITEXT) == ([*SPLITS], WIKITEXT)
    running = {name for name, protocol in PROTOCOLS.items() if protocol.chunk is not None}
    assert set(options["evaluate"]["protocol"]["choices"]) == running
    assert set(options["evaluate"]["family"]["choices"]) == set(PAPER)
    assert set(options["train"]["kind"]["choices"]) == set(KINDS)
    assert BASE_OF_OPTIONS == EMBEDDED_BASE
    assert set(options["train"]["dtype"]["choices"]) == {*TRAINED, "auto"}
    train = main.parse(["train"])
    shared = [field.name for field in fields(Training) if field.name in train and field.name != "dtype"]
    assert Training(**{name: getattr(train, name) for name in shared}) == Training()
    stated = {name: declared["draws"]["stated"] for name, declared in options.items() if "draws" in declared}
    assert stated["evaluate"].startswith(f"{evaluate.TEXT_DRAWS} for texts")
    assert stated["compare"].startswith(f"{compare.TEXT_DRAWS}, in the suite")
    counts = f"{prune.SEQUENCES}, and {prune.NOISED_SEQUENCES} for a recipe"
    assert options["prune"]["sequences"]["stated"].startswith(counts)
    lengths = f"{common.DEFAULT_LENGTH}, with --text {common.TEXT_LENGTH}"
    assert options["prune"]["length"]["stated"] == lengths

    import torch

    measures = variability(torch.rand(2, 3, 8)).columns
    assert set(COMMANDS["trace"]["meanings"]) == {*measures, "value"} - {"prompt"}
