"""What all commands share: options declared once, errors of one line, and checks of what is written."""

import argparse
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from sinkprune_core.spelling import suggestion

LIMITS = {  # of numbers, as help and errors call them
    "above 0": lambda value: value > 0,
    "of at least 0": lambda value: value >= 0,
    "of at least 1": lambda value: value >= 1,
    "of at least 2": lambda value: value >= 2,
    "of at least 0 and below 1": lambda value: 0 <= value < 1,
    "of at least 0 and at most 1": lambda value: 0 <= value <= 1,
}


# fields of a class of options


def option(default: object, text: str, group: str | None = None, **settings: object):
    """Return the field of an option: its default, its help, and argparse's `settings`."""
    return field(default=default, metadata={"help": text, "group": group, "settings": settings})


def whole(default: int | None, text: str, least: int, stated: str | None = None, group: str | None = None):
    """Return the field of a whole number; `stated` says in words what a default of None means."""
    return _number(int, default, text, f"of at least {least}", stated or default, group)


def real(default: float, text: str, limits: str, group: str | None = None):
    """Return the field of a finite number; `limits` is one of LIMITS."""
    return _number(float, default, text, limits, default, group)


def _number(
    kind: type[int | float], default: object, text: str, limits: str, stated: object, group: str | None
):
    called, metavar = ("a whole number", "N") if kind is int else ("a finite number", "X")

    def parsed(word: str) -> float:
        with suppress(ValueError, OverflowError):
            value = kind(word)
            if math.isfinite(value) and LIMITS[limits](value):
                return value
        raise argparse.ArgumentTypeError(
            f"{word} must be {called} {limits}: give such a number, or leave it out"
        )

    ending = "" if stated is None else f"; default: {stated}"
    help_text = f"{text} ({limits.removeprefix('of ')}{ending})".replace("%", "%%")
    return option(default, help_text, group, type=parsed, metavar=metavar)


def path(text: str, metavar: str = "FILE", group: str | None = None):
    """Return the field of a file or folder, None where it is not given."""
    return option(None, text, group, type=Path, metavar=metavar)


def switch(text: str, group: str | None = None):
    """Return the field of something that is off unless it is asked for."""
    return option(False, text, group, action="store_true")


def positional(text: str, default: object = MISSING, **settings: object):
    """Return the field of an argument without a flag; without a `default` it must be given."""
    metadata = {"help": text, "group": None, "settings": settings, "positional": True}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command."""

    given: frozenset[str] = frozenset()
    """Names of the options that the user gave; all others have their defaults."""

    outputs = ()
    """Names of the options whose files the command writes: they must be new, and are held while it runs."""

    left_behind = "nothing was written, and the same command begins anew"
    """What an interrupted command leaves, in words."""

    epilog = None
    """What help ends with."""

    def check_inputs(self) -> None:
        """Raise an error for what is named and not there, before the work."""

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise ValueError when the user gave one of the options `names`, which do nothing for `reason`."""
        for name in names:
            if name in self.given:
                raise ValueError(f"{flag(name)} does nothing here: {reason}; leave it out")


def flag(name: str) -> str:
    """Return how the option of a field is written on the command line."""
    return "--" + name.replace("_", "-")


def kept(what: str, folder: Path | None) -> str:
    """Return what an interrupted command leaves in a folder (None: there is none), in words."""
    if folder is None or not folder.exists():
        return "nothing was done yet, and nothing was written"
    return f"{what} kept in {folder}, and the same command goes on from there"


# parsing


class Parser(argparse.ArgumentParser):
    """The parser of one command: it raises its errors as ValueError."""

    def __init__(self, command: str, about: str, options: type[Options]):
        super().__init__(
            prog=f"sinkprune {command}",
            description=about,
            epilog=options.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # so that only what is given is found
            allow_abbrev=False,
        )
        self.options = options
        groups: dict[str | None, argparse._ArgumentGroup | Parser] = {None: self}
        for declared in fields(options):
            shown = declared.metadata
            if not shown:
                continue
            group = shown["group"]
            if group not in groups:
                groups[group] = self.add_argument_group(group)
            name = declared.name if "positional" in shown else flag(declared.name)
            groups[group].add_argument(name, help=shown["help"], **shown["settings"])
        self.add_argument("--debug", action="store_true", help="show where in the code an error came from")

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message."""
        raise ValueError(message.removeprefix("argument "))

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            near = suggestion(str(value), action.choices)
            words = f"{value} is unknown{near or ';'} choose one of {', '.join(action.choices)}"
            raise argparse.ArgumentError(action, words)

    def options_of(self, arguments: Sequence[str]) -> Options:
        """Return the options that `arguments` give; raise ValueError for what cannot be understood."""
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            near = suggestion(unknown[0].partition("=")[0], self._option_string_actions)
            raise ValueError(
                f"{self.prog} does not take {unknown[0]}{near or ';'} {self.prog} --help lists its options"
            )
        given = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in vars(values).items()
            if name != "debug"
        }
        return self.options(**given, given=frozenset(given))


# files


def check_text(file: Path | None) -> None:
    """Raise an OSError for a `--text` that is no file."""
    if file is None or file.is_file():
        return
    if file.is_dir():
        raise IsADirectoryError(f"--text {file} is a folder: give a text file")
    raise FileNotFoundError(f"--text {file}: there is no such file; check the name, or leave it out")


def check_new_path(name: str, path: Path) -> None:
    """Raise an OSError that names the option when `path` exists or could not be written; make nothing."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{flag(name)} {path} exists: choose another name or remove it first")
    folder = path.absolute().parent
    if not folder.exists():
        raise FileNotFoundError(
            f"{flag(name)} {path}: there is no folder {folder}; make it first, or choose another place"
        )
    check_writable(name, path)


def check_writable(name: str, path: Path) -> None:
    """Raise an OSError that names the option when nothing can be written where `path` is to be.

    A folder with a name as long as that of its scratch folder is made there, and removed at once.
    """
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{path.name}.{os.getpid()}."):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(
            f"{flag(name)} {path} cannot be written: {folder}: {reason}; choose another name or place"
        ) from error


def check_distinct(**paths: Path | None) -> None:
    """Raise ValueError for two options that lead to one place, however it is spelt."""
    names: dict[str, str] = {}
    for name, path in paths.items():
        if path is None:
            continue
        other = names.setdefault(os.path.realpath(path), name)
        if other != name:
            raise ValueError(
                f"{flag(other)} {paths[other]} and {flag(name)} {path} are one place: give two names"
            )


@contextmanager
def new_files(**paths: Path | None) -> Iterator[None]:
    """Hold what a command writes, by the names of its options, from before the work until it is written.

    Raises, before anything is made, what `check_distinct` and `check_new_path` raise, and RuntimeError where
    another process is about to write it.
    """
    from sinkprune_core.files import held  # a tenth of a second, which help does without

    check_distinct(**paths)
    outputs = {name: path for name, path in paths.items() if path is not None}
    for name, path in outputs.items():
        check_new_path(name, path)
    with ExitStack() as stack:
        for name, path in outputs.items():
            stack.enter_context(held(path))
            check_new_path(name, path)  # another process may have made it meanwhile
        yield
