"""Prune, trace and evaluate diffusion language models, and reproduce what a paper claims of them."""

import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from sinkprune.cli.options import COMMANDS, Options, Parser
from sinkprune.spelling import suggestion

ABOUTS = "\n".join(f"  {name:<11} {entry['about']}" for name, entry in COMMANDS.items())
USAGE = f"""usage: sinkprune COMMAND [OPTIONS]

{__doc__}

{ABOUTS}

  sinkprune COMMAND --help   explains a command
  sinkprune --version        prints the version"""
HELP = ("help", "-h", "--help")
VERSION = ("--version", "-v", "-V")
OUT_OF_MEMORY = (
    "allocate memory",  # the system and PyTorch on a CPU
    "could not create a primitive",  # oneDNN, for bfloat16 on a CPU
    "out of memory",  # PyTorch on a GPU
    "(os error 12)",  # libraries in Rust
    "failed to map segment",  # a library that is being imported
)
MOST = 300  # characters of an error in another's words
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended
OURS = ("sinkprune_core", "sinkprune", "sinkprune_companion", "__main__")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error is one line on stderr and exit status 1; its traceback comes before it with `--debug`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[1:] and arguments[0] in HELP:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in HELP:
        print(USAGE)
        return 0
    if arguments[0] in VERSION:
        print(f"sinkprune {version('sinkprune')}")
        return 0
    with warnings.catch_warnings():
        if not sys.warnoptions:  # FutureWarnings of other packages are hidden unless the user asked with `-W`
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(?!sinkprune)")
        return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; see `main`."""
    options = None
    try:
        from sinkprune.cli import checks  # here, so that Ctrl-C ends its imports in one line, too

        options = parse(arguments)
        checks.check_inputs(options)
        with checks.new_files(**{name: getattr(options, name) for name in options.outputs}):
            return module_of(options.command).run(options) or 0
    except KeyboardInterrupt:
        left = "nothing was done yet" if options is None else checks.left_behind(options)
        print(f"interrupted: {left}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        if "--debug" in arguments:
            traceback.print_exc()
        for bar in list(sys.modules["tqdm"].tqdm._instances) if "tqdm" in sys.modules else ():
            bar.close()  # so that what is printed next has a line of its own
        print(f"error: {sentence(error, arguments[0])}", file=sys.stderr)
        return 1


def module_of(command: str) -> ModuleType:
    """Return the module that runs a command, imported: of the toolkit, or of the companion."""
    return import_module(f"{COMMANDS[command]['package']}.cli.{command}")


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of a command line; raise ValueError for what cannot be understood or done."""
    from sinkprune.cli.checks import settle

    name, *rest = arguments
    if name not in COMMANDS:
        near = suggestion(name, COMMANDS)
        raise ValueError(f"there is no command {name}{near or ';'} choose one of {', '.join(COMMANDS)}")
    options = Parser(name).options_of(rest)
    settle(options)
    return options


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
