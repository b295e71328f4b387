"""From a command line to values: commands and their options are data, in `data/commands.yml` of a package.

The toolkit has commands, and so has the companion of this paper where it is installed: it is found by its
name, and its file is read without an import, since help needs nothing of what its commands need.
"""

import argparse
import json
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import yaml

from sinkprune.spelling import suggestion
from sinkprune_core.pruning.presets import ABOUT

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first takes a tenth of the time
PACKAGES = ("sinkprune", "sinkprune_companion")  # that have commands: `<package>.cli.<command>` runs one
PRESETS = "\n".join(f"  {name:<21} {about}" for name, about in ABOUT.items())
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
NUMBERS = {"whole": (int, "a whole number", "N"), "real": (float, "a finite number", "X")}
LIMITS = {"of at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


def _commands() -> dict[str, dict]:
    """Return the commands of all PACKAGES that are installed, by name, each with its `package` besides."""
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None:
            continue
        file = Path(spec.origin).with_name("data") / "commands.yml"
        entries = yaml.load(file.read_text(encoding="utf-8"), _LOADER)["commands"]
        found |= {name: {**entry, "package": package} for name, entry in entries.items()}
    return found


COMMANDS = _commands()


class Options(argparse.Namespace):
    """The values of a command's options, its name in `command`, and besides `given`, the names of those that
    the user gave, and `outputs` and `models`, the names of those that are files to be written and models.

    `checks.settle` adds `work_folder`, and a command may put what it found in place of what was asked for.
    """

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise ValueError when the user gave one of the options `names`, which do nothing for `reason`."""
        for name in names:
            if name in self.given:
                value = getattr(self, name)
                asked = flag(name) if isinstance(value, bool) else f"{flag(name)} {value}"
                raise ValueError(f"{asked} does nothing here: {reason}; leave it out")


def flag(name: str) -> str:
    """Return how the option of a name is written on the command line."""
    return "--" + name.replace("_", "-")


# kinds of options


def kind_of(convert: Callable[[str], object], allowed: str) -> Callable[[str], object]:
    """Return what parses a word by `convert`; the error for one that it refuses says what is `allowed`."""

    def parsed(word: str) -> object:
        with suppress(ValueError, OverflowError):
            return convert(word)
        raise argparse.ArgumentTypeError(f"{word} must be {allowed}")

    return parsed


def number(kind: str, limits: dict[str, float]) -> Callable[[str], object]:
    """Return what parses a number of a kind, one of NUMBERS, within limits."""
    convert, called, _ = NUMBERS[kind]

    def within(word: str) -> float:
        value = convert(word)
        if math.isfinite(value) and all(LIMITS[name](value, limit) for name, limit in limits.items()):
            return value
        raise ValueError

    return kind_of(within, f"{called} {in_words(limits)}: give such a number, or leave it out")


def in_words(limits: dict[str, float]) -> str:
    """Return limits as help and errors call them."""
    return " and ".join(f"{name} {limit}" for name, limit in limits.items())


whole_numbers = kind_of(
    lambda word: tuple(map(int, word.split(","))),
    "whole numbers with commas between them, e.g. 64,128",
)
device_map = kind_of(
    lambda word: json.loads(word) if word.startswith("{") else word,
    """auto, a device, or a JSON object such as '{"": "cuda:1"}'""",
)
KINDS = {  # argparse's settings of all but numbers
    "model": {},
    "switch": {"action": "store_true"},
    "file": {"type": Path, "metavar": "FILE"},
    "folder": {"type": Path, "metavar": "FOLDER"},
    "names": {"type": lambda names: tuple(names.split(",")), "metavar": "NAME,NAME"},
    "whole numbers": {"type": whole_numbers, "metavar": "N,N"},
    "dtype": {"type": lambda name: ALIASES.get(name, name), "metavar": "DTYPE"},
    "device map": {"type": device_map, "metavar": "MAP"},
    "preset": {"choices": tuple(ABOUT), "metavar": "NAME"},
}


# parsing


class Parser(argparse.ArgumentParser):
    """The parser of one command: it raises its errors as ValueError."""

    def __init__(self, command: str):
        entry = COMMANDS[command]
        super().__init__(
            prog=f"sinkprune {command}",
            description=entry["about"],
            epilog=entry.get("epilog", "").format(presets=PRESETS),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # so that only what is given is found
            allow_abbrev=False,
        )
        self.values = Options(command=command, outputs=[], models=[])
        self.groups: dict[str | None, argparse._ArgumentGroup | Parser] = {None: self}
        for name, declared in entry["options"].items():
            self.declare(name, **declared)
        self.add_argument("--debug", action="store_true", help="show where in the code an error came from")

    def declare(
        self,
        name: str,
        help: str,
        kind: str | None = None,
        default: object = None,
        group: str | None = None,
        limits: dict[str, float] | None = None,
        stated: str | None = None,
        is_new: bool = False,
        **settings: object,
    ) -> None:
        """Add an option as `data/commands.yml` declares it; `settings` are argparse's."""
        if kind in NUMBERS:
            settings |= {"type": number(kind, limits), "metavar": NUMBERS[kind][2]}
            ending = f"; default: {stated or default}" if stated or default is not None else ""
            help = f"{help} ({in_words(limits).removeprefix('of ')}{ending})"
        elif kind is not None:
            settings = KINDS[kind] | settings
        if kind == "model":
            self.values.models.append(name)
        if is_new:
            self.values.outputs.append(name)
        if kind == "switch":
            default = False
        setattr(self.values, name, default)
        if group not in self.groups:
            self.groups[group] = self.add_argument_group(group)
        shown = name if kind == "model" else flag(name)
        self.groups[group].add_argument(shown, help=help.replace("%", "%%"), **settings)

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
        found, unknown = self.parse_known_args(arguments)
        if unknown:
            near = suggestion(unknown[0].partition("=")[0], self._option_string_actions)
            raise ValueError(
                f"{self.prog} does not take {unknown[0]}{near or ';'} {self.prog} --help lists its options"
            )
        given = vars(found)
        return Options(**vars(self.values) | given, given=frozenset(given))
