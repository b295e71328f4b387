"""The command `sinkprune`: one command line in, an exit status out, and an error as one line."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from sinkprune.cli.help_pages import say, two_columns, wrapped
from sinkprune.cli.options import HELP_FLAGS, Options, commands, parse

PURPOSE = "Prune, trace and evaluate diffusion language models, and reproduce what a paper claims of them."
HELP = ("help", *HELP_FLAGS)
VERSION = ("--version", "-v", "-V")
OUT_OF_MEMORY = (
    "allocate memory",  # the system and PyTorch on a CPU
    "could not create a primitive",  # oneDNN, for bfloat16 on a CPU
    "out of memory",  # PyTorch on a GPU
    "(os error 12)",  # libraries in Rust
    "failed to map segment",  # a library that is being imported
    "std::bad_alloc",  # C++, in the words of PyTorch
)
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"  # of progress, which fits 80 columns
MOST = 300  # characters of an error in another's words
LONGEST_VALUE = 80  # characters of a value that a message repeats
LONGEST_PATH = 300  # and of one that is a path, which somebody has to find
LONGEST_MESSAGE = 1000
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended
PIPE_CLOSED = 141  # and of one whose output nobody reads any more
OURS = ("sinkprune_core", "sinkprune", "sinkprune_companion", "__main__")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error is one line on stderr and exit status 1; its traceback comes before it with `--debug`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[1:] and arguments[0] in HELP:
        arguments = [arguments[1], "--help"]
    try:
        status = _answer(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return status


def _answer(arguments: list[str]) -> int:
    """Print the usage or the version, or run a command; return the exit status."""
    if not arguments or arguments[0] in HELP:
        print(usage())
        return 0
    if arguments[0] in VERSION:
        print(f"sinkprune {version('sinkprune')}")
        return 0
    with warnings.catch_warnings():
        if not sys.warnoptions:  # FutureWarnings of other packages are hidden unless the user asked with `-W`
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(?!sinkprune)")
        return run(arguments)


def usage() -> str:
    """Return what `sinkprune` alone prints."""
    return (
        f"usage: sinkprune COMMAND [OPTIONS]\n\n{wrapped(PURPOSE)}\n\n"
        f"{two_columns(list(commands().items()))}\n\n"
        "  sinkprune COMMAND --help   explains a command\n"
        "  sinkprune --version        prints the version"
    )


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; see `main`."""
    from sinkprune.cli import checks

    options = None
    try:
        checks.check_words(arguments)
        options = parse(arguments)
        return _run(options) or 0
    except KeyboardInterrupt:
        left = "nothing was done yet" if options is None else options.left_behind()
        say(f"interrupted: {left}")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except SystemExit as stopped:
        if stopped.code == 0:  # help was shown
            return 0
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        if "--debug" in arguments:
            traceback.print_exc()
        close_bars()
        say(f"error: {shortened(sentence(error, arguments[0]), arguments)}")
        return 1


def _run(options: Options) -> int | None:
    """Check what can be checked beforehand, and run a command."""
    from sinkprune.cli import checks

    checks.check_surroundings()
    if options.MODELS:
        os.environ.setdefault("TQDM_BAR_FORMAT", BAR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what cannot be had is said in one sentence
    options.check_places()
    announced = options.announce()
    if announced is not None:
        say(announced)
    checks.check_models(options)
    with checks.new_files(**{name: getattr(options, name) for name in options.OUTPUTS}):
        return options.run()


def close_bars() -> None:
    """Close all progress bars, so that what is printed next has a line of its own."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()


def _pipe_closed() -> int:
    """Return the exit status of a command whose output is read no further, as `head` ends; say nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # so that Python's own flush at the end finds a reader
    return PIPE_CLOSED


# errors in words


def sentence(error: BaseException, command: str) -> str:
    """Return one line that says what failed, in the error's own words where these are meant for users."""
    words = " ".join(str(error).split())

    if is_about_memory(error):
        reason = f" ({words[:MOST]})" if words else ""
        return (
            f"{command} ran out of memory{reason}: take a smaller --batch, fewer or shorter sequences, a "
            "narrower --dtype, or a machine with more; sinkprune prune takes --stream, too"
        )

    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"

    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"{words}: install it, for example with pip install 'sinkprune[notebooks,eval]'"

    if words and (isinstance(error, OSError) or was_raised_here(error)):
        return words

    kind = type(error).__name__
    return f"{command} failed: {kind}{': ' if words else ''}{words} (--debug shows where)"


def shortened(message: str, arguments: Sequence[str]) -> str:
    """Return a message in which no long value of the command line stands whole, and that is not too long."""
    values = {part for argument in arguments for part in (argument, argument.partition("=")[2])}
    for value in sorted(values, key=len, reverse=True):
        words = " ".join(value.split())
        longest = LONGEST_PATH if os.sep in words else LONGEST_VALUE
        if len(words) > longest:
            message = message.replace(words, _middle_left_out(words, longest))
    return _middle_left_out(message, LONGEST_MESSAGE)


def _middle_left_out(text: str, length: int) -> str:
    """Return a text of at most `length` characters, with what is too much left out before its last third."""
    if len(text) <= length:
        return text
    end = length // 3
    return f"{text[: length - end - 3]} … {text[-end:]}"


def is_about_memory(error: BaseException) -> bool:
    """Return whether an error, or what it came from, says that there is too little memory."""
    words = str(error).lower()
    lacks_a_thread = "thread" in words and "resource temporarily unavailable" in words  # it has no stack
    if isinstance(error, MemoryError) or lacks_a_thread or any(part in words for part in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_about_memory(error.__cause__)


def was_raised_here(error: BaseException) -> bool:
    """Return whether code of this project raised an error with words for the user."""
    if not isinstance(error, (ValueError, RuntimeError, ModuleNotFoundError)):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in OURS


if __name__ == "__main__":
    sys.exit(main())
