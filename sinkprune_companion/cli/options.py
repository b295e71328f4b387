"""What all commands share: options declared once, errors of one line, and checks of what is written."""

import argparse
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from sinkprune_core.spelling import suggestion

NEXT = "the same command begins anew"
LIMITS = {  # of real numbers, as help and errors call them
    "above 0": lambda value: value > 0,
    "of at least 0": lambda value: value >= 0,
    "of at least 0 and below 1": lambda value: 0 <= value < 1,
    "of at least 0 and at most 1": lambda value: 0 <= value <= 1,
}


# fields of a class of options


def option(default: object, text: str, group: str | None = None, **settings: object):
    """Return the field of an option: its default, its help, and argparse's `settings`."""
    return field(default=default, metadata={"help": text, "group": group, "settings": settings})


def whole(default: int | None, text: str, least: int, stated: str | None = None, group: str | None = None):
    """Return the field of a whole number; `stated` says in words what a default of None means."""
    number = _parser_of(int, lambda value: value >= least, f"a whole number of at least {least}")
    help_text = _with_default(f"{text} (at least {least}", stated or default)
    return option(default, help_text, group, type=number, metavar="N")


def real(default: float | None, text: str, limits: str, stated: str | None = None, group: str | None = None):
    """Return the field of a finite number; `limits` is one of LIMITS."""
    number = _parser_of(float, LIMITS[limits], f"a finite number {limits}")
    help_text = _with_default(f"{text} ({limits.removeprefix('of ')}", default if stated is None else stated)
    return option(default, help_text, group, type=number, metavar="X")


def _parser_of(
    kind: type[int] | type[float], is_allowed: Callable[[float], bool], words: str
) -> Callable[[str], float]:
    """Return argparse's type of a number: finite, and allowed; `words` say what is."""

    def number(word: str) -> float:
        with suppress(ValueError):
            value = kind(word)
            if math.isfinite(value) and is_allowed(value):
                return value
        raise argparse.ArgumentTypeError(f"{word} must be {words}: give such a number, or leave it out")

    return number


def _with_default(text: str, default: object) -> str:
    ending = "" if default is None else f"; default: {default}"
    return f"{text}{ending})".replace("%", "%%")


def path(text: str, metavar: str = "FILE", group: str | None = None):
    """Return the field of a file or folder, None where it is not given."""
    return option(None, text, group, type=Path, metavar=metavar)


def switch(text: str, group: str | None = None):
    """Return the field of something that is off unless it is asked for."""
    return option(False, text, group, action="store_true")


def positional(text: str, default: object = ..., **settings: object):
    """Return the field of an argument without a flag; without a `default` it must be given."""
    metadata = {"help": text, "group": None, "settings": settings, "positional": True}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command."""

    given: frozenset[str] = frozenset()
    """Names of the options that the user gave; all others have their defaults."""

    outputs = ()
    """Names of the options whose files the command writes: they must be new, and are held while it runs."""

    left_behind = f"nothing was written, and {NEXT}"
    """What an interrupted command leaves, in words."""

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


# parsing


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors as ValueError, and whose result holds given options only."""

    def __init__(self, **settings):
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message."""
        raise ValueError(message.removeprefix("argument "))

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            near = suggestion(str(value), action.choices)
            words = f"{value} is unknown{near or ';'} choose one of {', '.join(action.choices)}"
            raise argparse.ArgumentError(action, words)

    def add_options(self, options: type[Options]) -> None:
        """Add what the fields of a class of options declare, in groups."""
        groups: dict[str | None, argparse._ArgumentGroup | Parser] = {None: self}
        for declared in fields(options):
            about = declared.metadata
            if not about:
                continue
            group = about["group"]
            if group not in groups:
                groups[group] = self.add_argument_group(group)
            name = declared.name if about.get("positional") else flag(declared.name)
            groups[group].add_argument(name, help=about["help"], **about["settings"])

    def options_of(self, options: type[Options], arguments: Sequence[str]) -> Options:
        """Return the options that `arguments` give; raise ValueError for what cannot be understood."""
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            names = [flag(declared.name) for declared in fields(options) if declared.metadata]
            near = suggestion(unknown[0].partition("=")[0], names)
            raise ValueError(
                f"{self.prog} does not take {unknown[0]}{near or ';'} {self.prog} --help lists its options"
            )
        given = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in vars(values).items()
            if name != "debug"
        }
        return options(**given, given=frozenset(given))


# files


def check_input_file(name: str, file: Path | None) -> None:
    """Raise an OSError that names the option when `file` is not a file."""
    if file is None or file.is_file():
        return
    if file.is_dir():
        raise IsADirectoryError(f"{flag(name)} {file} is a folder: give a text file")
    raise FileNotFoundError(f"{flag(name)} {file}: there is no such file; check the name, or leave it out")


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
    import tempfile

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
