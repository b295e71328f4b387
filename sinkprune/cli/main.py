"""The command `sinkprune`: one command line in, an exit status out, and an error as one line."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from sinkprune.cli.screen import bars, say

COMMANDS = {  # where each is, in the order of help
    "diagnose": "sinkprune.cli.diagnose:diagnose",
    "prune": "sinkprune.cli.prune:command",
    "generate": "sinkprune.cli.generate:generate",
    "trace": "sinkprune.cli.trace:trace",
    "evaluate": "sinkprune.cli.evaluate:evaluate",
    "recover": "sinkprune.cli.recover:recover",
    "ship": "sinkprune.cli.ship:ship",
    "compare": "sinkprune.cli.compare:compare",
    "reproduce": "sinkprune_companion.cli.reproduce:reproduce",
    "claims": "sinkprune_companion.cli.claims:claims",
    "publish": "sinkprune_companion.cli.publish:publish",
    "train": "sinkprune_companion.cli.train:train",
}
OUT_OF_MEMORY = (
    "allocate memory",  # the system and PyTorch on a CPU
    "could not create a primitive",  # oneDNN, for bfloat16 on a CPU
    "out of memory",  # PyTorch on a GPU
    "(os error 12)",  # libraries in Rust
    "failed to map segment",  # a library that is being imported
    "std::bad_alloc",  # C++, in the words of PyTorch
)
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"  # of progress, which fits 80 columns
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended
PIPE_CLOSED = 141  # and of one whose output nobody reads any more

app = App(
    name="sinkprune",
    help="Prune, trace and evaluate diffusion language models, and reproduce what a paper claims of them.",
    help_epilogue="sinkprune COMMAND --help explains a command, and --debug shows where an error came from.",
    help_format="plaintext",
    version=lambda: f"sinkprune {version('sinkprune')}",
    version_flags=("--version", "-v", "-V"),
    default_parameter=Parameter(negative=(), show_default=lambda value: str(value) if value else ""),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for order, (name, place) in enumerate(COMMANDS.items()):
    app.command(place, name=name, sort_key=order)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error is one line on stderr and exit status 1; its traceback comes before it with `--debug`.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # the shell has closed it
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115

    status = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except OSError as error:  # nobody reads on, as `head` ends, or the disk is full
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # so that Python's own flush at the end succeeds
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        return status or _failed(error)

    return status


def run(arguments: list[str]) -> int:
    """Run a command line; see `main`."""
    words = [word for word in arguments if word != "--debug"]
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0].startswith("-"):
        app.resolved_commands()  # their own first sentences stand in the list of commands

    os.environ.setdefault("TQDM_BAR_FORMAT", BAR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what cannot be had is said in one sentence
    try:
        check_encodable(words)
        with warnings.catch_warnings():
            if not sys.warnoptions:  # other packages' FutureWarnings are hidden unless the user asked with -W
                warnings.filterwarnings("ignore", category=FutureWarning, module=r"(?!sinkprune)")
            return app(words, exit_on_error=False, print_error=False) or 0

    except CycloptsError as error:
        return _failed(error)
    except KeyboardInterrupt as stopped:
        _close_bars()
        kept = "; ".join(getattr(stopped, "__notes__", ()))
        say(f"interrupted: {kept or 'nothing was written, and the same command begins anew'}")
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except SystemExit as stopped:  # rich, whose help nobody reads any more
        return int(stopped.code or 0)
    except BaseException as error:  # a library in Rust that panics raises no Exception
        if "--debug" in arguments:
            traceback.print_exc()
        return _failed(error)


def check_encodable(words: Sequence[str]) -> None:
    """Raise ValueError for a word with bytes that are no UTF-8: no page, card or library could name it."""
    for word in words:
        if word.encode(errors="replace").decode() != word:
            raise ValueError(f"{word!a} holds bytes that are not UTF-8: write it in UTF-8")


def _failed(error: BaseException) -> int:
    """Say what failed; return the exit status."""
    _close_bars()
    say(f"error: {sentence(error)}")
    return 1


def _close_bars() -> None:
    """Close all progress bars, so that what is printed next has a line of its own."""
    for bar in bars():
        bar.close()


def sentence(error: BaseException) -> str:
    """Return one line that says what failed, in the error's own words where it has some for users."""
    words = " ".join(str(error).split())

    if is_about_memory(error):
        return (
            f"out of memory ({words or type(error).__name__}): take a smaller --batch, fewer or shorter "
            "sequences, a narrower --dtype, or a machine with more; sinkprune prune takes --stream, too"
        )

    if isinstance(error, ModuleNotFoundError):
        return f"{words}: install it, for example with pip install 'sinkprune[notebooks,eval]'"

    if words and isinstance(error, (ValueError, RuntimeError, OSError, CycloptsError)):
        return words

    return f"{type(error).__name__}: {words} (--debug shows where)"


def is_about_memory(error: BaseException) -> bool:
    """Return whether an error, or what it came from, says that there is too little memory."""
    words = str(error).lower()
    lacks_a_thread = "thread" in words and "resource temporarily unavailable" in words  # it has no stack
    if isinstance(error, MemoryError) or lacks_a_thread or any(part in words for part in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_about_memory(error.__cause__)


if __name__ == "__main__":
    sys.exit(main())
