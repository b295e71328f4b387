"""What all commands share: options declared once, errors of one line, and checks of what is written."""

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

NEXT = "the same command begins anew"


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

    def advice(self, value: float) -> str:
        """Return what to do about a number outside the range."""
        if self.most == 1 and 1 < value <= 100:
            return f"{value:g} % is {value / 100:g}"
        return "give such a number, or leave it out"

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


# fields of a class of options


def option(default: object, text: str, group: str | None = None, **settings: object):
    """Return the field of an option: its default, its help, and argparse's `settings`."""
    return field(default=default, metadata={"help": text, "group": group, "settings": settings})


def whole(default: int | None, text: str, least: int, stated: str | None = None, group: str | None = None):
    """Return the field of a whole number; `stated` says in words what a default of None means."""
    return _number(Range(int, least), default, text, stated, group)


def real(
    default: float | None,
    text: str,
    stated: str | None = None,
    group: str | None = None,
    **limits: float | bool,
):
    """Return the field of a finite number; `limits` are fields of `Range`."""
    return _number(Range(float, **limits), default, text, stated, group)


def _number(allowed: Range, default: float | None, text: str, stated: str | None, group: str | None):
    default_text = default if stated is None else stated
    limits = str(allowed) if default_text is None else f"{allowed}; default: {default_text}"
    is_whole = allowed.kind is int
    metadata = {
        "help": f"{text} ({limits})".replace("%", "%%"),
        "group": group,
        "settings": {
            "type": whole_number if is_whole else real_number,
            "metavar": "N" if is_whole else "X",
        },
        "range": allowed,
    }
    return field(default=default, metadata=metadata)


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command. Raises ValueError when made with a number outside its stated range."""

    given: frozenset[str] = frozenset()
    """Names of the options that the user gave; all others have their defaults."""

    def __post_init__(self):
        for declared in fields(self):
            allowed = declared.metadata.get("range")
            value = getattr(self, declared.name)
            if allowed is not None and value is not None and not allowed.holds(value):
                raise ValueError(
                    f"{flag(declared.name)} {value} must be a {allowed.noun}: {allowed.advice(value)}"
                )

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise ValueError when the user gave one of the options `names`, which do nothing for `reason`."""
        for name in names:
            if name in self.given:
                raise ValueError(f"{flag(name)} does nothing here: {reason}; leave it out")

    @property
    def left_behind(self) -> str:
        """What an interrupted command leaves, in words."""
        return f"nothing was written, and {NEXT}"


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


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?` with the up to three `known` words nearest to `word`, or nothing."""
    import difflib  # what no command needs that is spelt right

    full = {name.lower(): name for name in known}
    last_parts = {name.rpartition("/")[2]: full[name] for name in full}
    near = difflib.get_close_matches(word.lower(), full, n=3)
    if not near:
        near = difflib.get_close_matches(word.lower(), last_parts, n=3)
    names = [full.get(name) or last_parts[name] for name in near]
    return f"; did you mean {' or '.join(dict.fromkeys(names))}?" if names else ""


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ValueError, with the nearest names, for a value that is not among those allowed."""
    allowed = list(allowed)
    if value not in allowed:
        near = suggestion(value, allowed)
        raise ValueError(f"{flag(name)} {value} is unknown{near or ';'} choose one of {', '.join(allowed)}")


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
