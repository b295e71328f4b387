"""What all commands share: a parser with one-line errors, numbers with a stated range, checks of files."""

import argparse
import difflib
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from sinkprune_core.files import held


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes; infinity and NaN are never among them."""

    kind: type
    """`int` or `float`."""

    least: float
    """The smallest number."""

    without_least: bool = False
    """Whether `least` itself is excluded."""

    most: float | None = None
    """The largest number; None: there is no limit."""

    without_most: bool = False
    """Whether `most` itself is excluded."""

    def holds(self, value: float) -> bool:
        """Return whether `value` is in the range."""
        if not math.isfinite(value) or value < self.least:
            return False
        if self.without_least and value == self.least:
            return False
        if self.most is None:
            return True
        return value < self.most or (value == self.most and not self.without_most)

    @property
    def noun(self) -> str:
        """The range with its kind in words, e.g. `whole number of at least 1`."""
        kind = "whole number" if self.kind is int else "finite number"
        return f"{kind} {self}" if self.without_least else f"{kind} of {self}"

    def __str__(self) -> str:
        text = f"{'above' if self.without_least else 'at least'} {self.least:g}"
        if self.most is None:
            return text
        return f"{text} and {'below' if self.without_most else 'at most'} {self.most:g}"


def whole(default: int | None, *, least: int):
    """Return a field of an options class that holds a whole number of at least `least`."""
    return field(default=default, metadata={"range": Range(int, least)})


def real(default: float | None, **limits: float | bool):
    """Return a field of an options class that holds a finite number; `limits` are fields of `Range`."""
    return field(default=default, metadata={"range": Range(float, **limits)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command. Raises ValueError when made with a number outside its stated range."""

    given: frozenset[str] = frozenset()
    """Names of the options that the user gave; all others have their defaults."""

    def __post_init__(self):
        for each in fields(self):
            allowed = each.metadata.get("range")
            value = getattr(self, each.name)
            if allowed is None or value is None or allowed.holds(value):
                continue
            raise ValueError(
                f"{flag(each.name)} {value} must be a {allowed.noun}: "
                f"give such a number, or leave it out{_default_in_words(each.default)}"
            )

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise ValueError when the user gave one of the options `names`, which do nothing for `reason`."""
        for name in names:
            if name in self.given:
                raise ValueError(f"{flag(name)} does nothing here: {reason}; leave it out")


def flag(name: str) -> str:
    """Return how the option of a field is written on the command line."""
    return "--" + name.replace("_", "-")


def _default_in_words(default: object) -> str:
    return "" if default is None else f" for {default}"


# parsing


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors as ValueError, and whose result holds given options only."""

    def __init__(self, **settings):
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message."""
        raise ValueError(message.removeprefix("argument "))


def add_number(
    parser: argparse.ArgumentParser,
    options: type[Options],
    name: str,
    text: str,
    default: str | None = None,
) -> None:
    """Add the option of a field made by `whole` or `real`; the help states its range and its default.

    `default` says in words what a default of None means.
    """
    (found,) = [each for each in fields(options) if each.name == name]
    allowed = found.metadata["range"]
    stated = str(allowed)
    if default is None:
        default = found.default
    if default is not None:
        stated += f"; default: {default}"
    parser.add_argument(
        flag(name),
        type=whole_number if allowed.kind is int else real_number,
        metavar="N" if allowed.kind is int else "X",
        help=f"{text} ({stated})".replace("%", "%%"),
    )


def whole_number(text: str) -> int:
    """Return the whole number that `text` spells, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def real_number(text: str) -> float:
    """Return the number that `text` spells, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


# words


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?` with the up to three `known` words nearest to `word`, or nothing."""
    full = {name.lower(): name for name in known}
    last_parts = {name.rpartition("/")[2]: full[name] for name in full}
    near = difflib.get_close_matches(word.lower(), full, n=3)
    if not near:
        near = difflib.get_close_matches(word.lower(), last_parts, n=3)
    names = [full.get(name) or last_parts[name] for name in near]
    return f"; did you mean {' or '.join(dict.fromkeys(names))}?" if names else ""


# files


def check_input_file(name: str, file: Path | None) -> None:
    """Raise an OSError that names the option when `file` is not a file."""
    if file is None or file.is_file():
        return
    if file.is_dir():
        raise IsADirectoryError(f"{flag(name)} {file} is a folder: give a text file")
    raise FileNotFoundError(f"{flag(name)} {file}: there is no such file; check the name, or leave it out")


def check_new_path(name: str, path: Path | None) -> None:
    """Raise an OSError that names the option when `path` exists or could not be written.

    A file is written to the nearest folder above `path` that exists, and removed at once.
    """
    if path is None:
        return
    if path.exists():
        raise FileExistsError(f"{flag(name)} {path} exists: choose another name or remove it first")
    check_writable(name, path)


@contextmanager
def new_files(**paths: Path | None) -> Iterator[None]:
    """Hold what a command writes, by the names of its options, from before the work until it is written.

    Raises an OSError that names the option where a path exists or cannot be written, and RuntimeError where
    another process is about to write it.
    """
    given = {name: path for name, path in paths.items() if path is not None}
    for name, path in given.items():
        check_new_path(name, path)
    with ExitStack() as stack:
        for name, path in given.items():
            stack.enter_context(held(path))
            check_new_path(name, path)  # another process may have made it meanwhile
        yield


def check_writable(name: str, path: Path) -> None:
    """Raise an OSError that names the option when nothing can be written where `path` is to be."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(
            f"{flag(name)} {path} cannot be written: {folder}: {reason}; choose another place"
        ) from error
