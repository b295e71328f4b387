"""Commands start without the heavy libraries, say their version, and fail in one line."""

import subprocess
import sys
import warnings
from importlib.metadata import version

import pytest

from sinkprune_companion.cli import main
from sinkprune_companion.cli.main import COMMANDS
from sinkprune_core.pruning.presets import ABOUT, PRESETS

HEAVY = ("torch", "pandas", "numpy", "scipy", "matplotlib", "transformers", "pydantic")
WATCHED = """
import sys
from sinkprune_companion.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
heavy = [name for name in {heavy} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else status)
"""
LIGHT = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
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


def test_the_command_that_drives_the_notebooks_holds_no_torch():
    found = watched(["reproduce", "--profile", "no-such-profile"])
    assert "profile 'no-such-profile' is unknown" in found.stderr, (
        "its memory would count beside every notebook"
    )
    assert "imported" not in found.stderr


def test_the_version_is_that_of_the_package(capsys):
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sinkprune {version('sinkprune')}\n"


@pytest.mark.parametrize("arguments", [[], ["help"], ["-v"], ["-h"], ["--help"]], ids=" ".join)
def test_help_lists_every_command(arguments, capsys):
    assert main.main(arguments) == 0
    listing = capsys.readouterr().out
    assert all(f"  {name} " in listing and command.summary in listing for name, command in COMMANDS.items())


def test_help_of_prune_says_a_word_about_each_preset_and_shows_a_command_that_works(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(["help", "prune"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "(required, but with --dry-run)" in " ".join(text.split())
    assert all(f"  {name} " in text and about in text for name, about in ABOUT.items())
    example = text.rpartition("example:")[2].split()
    _, options = main.parse(example[1:])
    assert example[0] == "sinkprune" and options.preset == "unstable"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prun"], "there is no command prun; did you mean prune?"),
        (["claims", "--profil", "x"], "sinkprune claims does not take --profil; did you mean --profile?"),
        (["claims", "extra"], "sinkprune claims does not take extra"),
        (["--verbose"], "there is no command --verbose"),
        (["prune"], "the following arguments are required: model"),
        (["prune", "m", "--sequences", "many"], "--sequences: many must be a whole number of at least 1"),
        (
            ["prune", "m", "--sparsity", "half"],
            "--sparsity: half must be a finite number of at least 0 and below 1",
        ),
        (
            ["prune", "m", "--split", "half"],
            "--split: half is unknown; choose one of train, validation, test",
        ),
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

        monkeypatch.setattr(COMMANDS["claims"].module, "run", run)

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("missing"), "claims failed: KeyError: 'missing' (--debug shows where)"),
        (ValueError("of a\nlibrary"), "claims failed: ValueError: of a library (--debug shows where)"),
        (MemoryError(), "claims ran out of memory: take a smaller --batch"),
        (
            RuntimeError("can't allocate memory: 9 bytes"),
            "claims ran out of memory (can't allocate memory: 9",
        ),
        (RuntimeError("CUDA out of memory. Tried"), "claims ran out of memory (CUDA out of memory. Tried): "),
        (BaseException("a panic"), "claims failed: BaseException: a panic (--debug shows where)"),
        (OSError(28, "No space left on device", "here"), "No space left on device: here"),
        (FileNotFoundError("say which"), "say which"),
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


def test_an_error_of_this_package_is_its_own_words(refused):
    assert refused("claims", "--profile", "no-run") == (
        "no findings in runs/no-run: run `sinkprune reproduce --profile no-run` first"
    )


# interrupts


def interrupted(arguments: list[object], capsys, monkeypatch, place: str) -> str:
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, stop)
    assert main.main([str(part) for part in arguments]) == main.INTERRUPTED
    return capsys.readouterr().err.splitlines()[-1]


def test_an_interrupted_command_says_what_it_kept(model, tmp_path, capsys, monkeypatch):
    text = ["--text", tmp_path / "text.txt"]
    pruning = ["prune", model, *text, "--sequences", 6, "--length", 12, "--out", tmp_path / "out"]
    place = "sinkprune_companion.cli.prune.save"
    said = interrupted(pruning, capsys, monkeypatch, place)
    assert said == (
        f"interrupted: finished blocks and statistics are kept in {tmp_path}/out.work, "
        "and the same command goes on from there"
    )
    assert (tmp_path / "out.work").is_dir()

    place = "sinkprune_companion.cli.inputs.open_model"
    said = interrupted(["evaluate", model, *text], capsys, monkeypatch, place)
    assert said == "interrupted: nothing was written, and the same command begins anew"

    pruning[-1] = tmp_path / "other"
    said = interrupted(pruning, capsys, monkeypatch, place)
    assert said == "interrupted: nothing was done yet, and nothing was written"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_an_interrupt_leaves(name):
    given = {"model": "m"} if name in ("prune", "trace", "evaluate", "compare") else {}
    more = {"prune": {"dry_run": True}, "compare": {"other": "n"}}
    options = COMMANDS[name].options(**given, **more.get(name, {}))
    assert options.left_behind


# warnings


def test_no_future_warning_of_a_dependency_is_shown_and_those_of_this_package_are(
    failing, monkeypatch, capsys
):
    def run(options):
        code = "import warnings; warnings.warn('soon', FutureWarning, stacklevel=1)"
        exec(code, {"__name__": "some_library"})
        exec(code, {"__name__": "sinkprune_core.somewhere"})
        return 0

    monkeypatch.setattr(COMMANDS["claims"].module, "run", run)
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert main.main(["claims"]) == 0
    assert len(shown) == 1


# words that stand here so that help needs no torch


def test_names_in_help_are_those_of_the_library():
    from sinkprune_companion.cli import compare, evaluate, model_options, trace, train
    from sinkprune_companion.harness.benchmarks import PAPER
    from sinkprune_companion.harness.local_data import SPLITS, WIKITEXT
    from sinkprune_companion.training.base import EMBEDDED_BASE
    from sinkprune_core.evaluation import comparison
    from sinkprune_core.evaluation.protocols import PROTOCOLS
    from sinkprune_core.models.language_model import KINDS
    from sinkprune_core.models.weight_files import DTYPES
    from sinkprune_core.pruning import recipe
    from sinkprune_core.sinks.detection import variability

    assert recipe.PRESETS is PRESETS and list(PRESETS) == list(ABOUT)
    assert set(model_options.DTYPES) == set(DTYPES)
    assert (model_options.SPLITS, model_options.WIKITEXT) == (SPLITS, WIKITEXT)
    running = {name for name, protocol in PROTOCOLS.items() if protocol.chunk is not None}
    assert set(evaluate.PROTOCOLS) == running
    assert set(evaluate.FAMILIES) == set(PAPER)
    assert compare.CompareOptions.margin == comparison.MARGIN
    assert set(train.KINDS) == set(KINDS) and train.EMBEDDED_BASE == EMBEDDED_BASE

    import torch

    measures = variability(torch.rand(2, 3, 8)).columns
    assert set(trace.MEANINGS) == {*measures, "value"} - {"prompt"}


def test_defaults_of_train_are_those_of_the_library():
    from dataclasses import fields

    from sinkprune_companion.cli.train import DTYPES, TrainOptions
    from sinkprune_companion.training import settings
    from sinkprune_companion.training.settings import Training

    assert ("auto", *settings.DTYPES) == DTYPES
    shared = {field.name for field in fields(Training)} & {field.name for field in fields(TrainOptions)}
    assert len(shared) == 12
    for name in shared - {"dtype"}:
        assert getattr(TrainOptions(), name) == getattr(Training(), name), name
