"""Prune, trace and evaluate diffusion language models, and reproduce what a paper claims of them."""

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import ModuleType

from sinkprune_companion.cli import card, claims, compare, evaluate, prune, publish, reproduce, trace, train
from sinkprune_companion.cli.options import Options, Parser, flag, suggestion


@dataclass(frozen=True)
class Command:
    """A command of the table."""

    module: ModuleType
    """It has SUMMARY, `add_options(parser)`, `run(options)` and `kept(options)`, what an interrupt leaves."""

    options: type[Options]
    """The class of its options."""


COMMANDS = {
    "prune": Command(prune, prune.PruneOptions),
    "trace": Command(trace, trace.TraceOptions),
    "evaluate": Command(evaluate, evaluate.EvaluateOptions),
    "compare": Command(compare, compare.CompareOptions),
    "reproduce": Command(reproduce, reproduce.ReproduceOptions),
    "claims": Command(claims, claims.ClaimsOptions),
    "publish": Command(publish, publish.PublishOptions),
    "train": Command(train, train.TrainOptions),
    "card": Command(card, card.CardOptions),
}
WITHOUT_COMMAND = ("-h", "--help", "--version")
OUT_OF_MEMORY = (
    "allocate memory",  # the system and PyTorch on a CPU
    "out of memory",  # PyTorch on a GPU
    "(os error 12)",  # libraries in Rust
    "failed to map segment",  # a library that is being imported
)
MOST = 300  # characters of an error in another's words
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended


class ShowVersion(argparse.Action):
    """`--version`, which is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version of this package and exit."""
        from importlib.metadata import version

        print(f"{parser.prog} {version('sinkprune')}")
        parser.exit()


def parser_of_all() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="sinkprune",
        description=__doc__,
        epilog="sinkprune COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version and exit")
    group = parser.add_subparsers(dest="command", metavar="COMMAND [OPTIONS]", title="commands")
    for name, command in COMMANDS.items():
        summary = command.module.SUMMARY
        one = group.add_parser(name, help=summary, description=summary)
        command.module.add_options(one)
        one.add_argument("--debug", action="store_true", help="show where in the code an error came from")
    return parser


def parse(arguments: Sequence[str]) -> tuple[str, Options]:
    """Return the command's name and its options; raise ValueError for what cannot be understood."""
    if not arguments:
        raise ValueError(f"name a command: {', '.join(COMMANDS)}; sinkprune --help explains them")
    name = arguments[0]
    if name not in (*COMMANDS, *WITHOUT_COMMAND):
        near = suggestion(name, COMMANDS)
        raise ValueError(f"there is no command {name}{near or ';'} choose one of {', '.join(COMMANDS)}")
    found, unknown = parser_of_all().parse_known_args(arguments)
    options = COMMANDS[name].options
    if unknown:
        near = suggestion(unknown[0].partition("=")[0], [flag(field.name) for field in fields(options)])
        raise ValueError(
            f"sinkprune {name} does not take {unknown[0]}{near or ';'} "
            f"sinkprune {name} --help lists its options"
        )
    values = {}
    for each, value in vars(found).items():
        if each not in ("command", "debug"):
            values[each] = tuple(value) if isinstance(value, list) else value
    return name, options(**values, given=frozenset(values))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error is one line on stderr and exit status 1; its traceback comes before it with `--debug`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with warnings.catch_warnings():
        hide_future_warnings()
        return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; see `main`."""
    name, options = None, None
    try:
        name, options = parse(arguments)
        return COMMANDS[name].module.run(options)
    except KeyboardInterrupt:
        left = "nothing was done yet" if name is None else COMMANDS[name].module.kept(options)
        print(f"interrupted: {left}", file=sys.stderr)
        return INTERRUPTED
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"error: {sentence(error, name)}", file=sys.stderr)
        return 1


def hide_future_warnings() -> None:
    """Hide FutureWarnings of other packages, unless the user asked for warnings with `-W`."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(?!sinkprune_(core|companion)\b)")


def sentence(error: BaseException, command: str | None) -> str:
    """Return one line that says what failed, in the error's own words where these are meant for users."""
    words = " ".join(str(error).split())
    if is_about_memory(error):
        said = f" ({words[:MOST]})" if words else ""
        return (
            f"{command} ran out of memory{said}: take a smaller --batch, fewer or shorter sequences, a "
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
    said = str(error).lower()
    lacks_a_thread = "thread" in said and "resource temporarily unavailable" in said  # it has no stack
    if isinstance(error, MemoryError) or lacks_a_thread or any(word in said for word in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_about_memory(error.__cause__)


def was_raised_here(error: BaseException) -> bool:
    """Return whether code of this package raised an error with words for the user."""
    if not isinstance(error, (ValueError, RuntimeError, ModuleNotFoundError)):
        return False
    step = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    package = step.tb_frame.f_globals.get("__name__", "")
    return package == "__main__" or package.startswith(("sinkprune_core", "sinkprune_companion"))


if __name__ == "__main__":
    sys.exit(main())
