"""From a command line to values: what the options of all commands have in common.

A command is a dataclass of its options, in `cli/commands/<name>.py` of the toolkit or of the companion. A
field is an option: its type and `Parameter` say what it may be, and cyclopts reads, checks and explains it.
These modules import nothing heavy, so that help and errors in options come at once.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.exceptions import ConsumeMultipleError, MissingArgumentError, UnusedCliTokensError

from sinkprune.cli.help_pages import PlainHelp, show_epilog
from sinkprune.named_texts import WIKITEXT, is_wikitext
from sinkprune.spelling import suggestion

PACKAGES = ("sinkprune", "sinkprune_companion")  # that have commands
HELP_FLAGS = ("--help", "-h")

# how options are grouped in help
ARGUMENTS = Group("arguments", sort_key=0)
OPTIONS = Group("options", sort_key=1)
TEXT = Group("text", sort_key=2)
WHERE = Group("where the model is computed", sort_key=3)
RUNNING = Group("how to run", sort_key=5)
OTHERS = Group("others", sort_key=99)


# which commands there are


def commands() -> dict[str, str]:
    """Return what every command is about, by its name: those of all PACKAGES that are installed."""
    found = {}
    for package in _installed():
        found |= import_module(f"{package}.cli.commands").ABOUT
    return found


def options_of(command: str) -> type["Options"]:
    """Return the class of a command's options; raise ValueError for a command that does not exist."""
    for package in _installed():
        module = f"{package}.cli.commands"
        if command in import_module(module).ABOUT:
            return import_module(f"{module}.{command}").COMMAND

    known = commands()
    near = suggestion(command, known)
    raise ValueError(f"there is no command {command}{near or ';'} choose one of {', '.join(known)}")


def _installed() -> list[str]:
    return [package for package in PACKAGES if find_spec(package) is not None]


# kinds of values

Convert = Callable[[type, Sequence[Token]], object]  # what cyclopts calls with the words of an option


def _converter(convert: Callable[[str], object], allowed: str) -> Convert:
    """Return what turns the word of an option into a value; its error says what is `allowed`."""

    def converted(_: type, tokens: Sequence[Token]) -> object:
        word = tokens[0].value
        try:
            return convert(word)
        except (ValueError, OverflowError, RecursionError):
            raise ValueError(f"{word} must be {allowed}") from None

    return converted


def whole(help: str, *, at_least: int, **more: Any) -> Parameter:
    """Return the declaration of a whole number."""

    def convert(word: str) -> int:
        value = int(word)
        if value < at_least:
            raise ValueError
        return value

    limits = f"at least {at_least}"
    allowed = f"a whole number of {limits}: give such a number, or leave it out"
    return Parameter(help=f"{help} ({limits})", metavar="N", converter=_converter(convert, allowed), **more)


def real(
    help: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    **more: Any,
) -> Parameter:
    """Return the declaration of a finite number."""

    def convert(word: str) -> float:
        value = float(word)
        is_within = at_least <= value <= at_most and above < value < below
        if not (math.isfinite(value) and is_within):
            raise ValueError
        return value

    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    stated = " and ".join(f"{name} {limit:g}" for name, limit in limits.items() if math.isfinite(limit))
    allowed = f"a finite number, {stated}: give such a number, or leave it out"
    return Parameter(help=f"{help} ({stated})", metavar="X", converter=_converter(convert, allowed), **more)


def place(help: str, metavar: str = "FILE", **more: Any) -> Parameter:
    """Return the declaration of a file or a folder."""

    def convert(_: type, tokens: Sequence[Token]) -> Path:
        name = tokens[0].value
        if not name.strip() or "\0" in name:
            raise ValueError(f"it is empty: give the name of a {metavar.lower()}, or leave it out")
        return Path(name)

    return Parameter(help=help, metavar=metavar, converter=convert, **more)


def word(help: str, **more: Any) -> Parameter:
    """Return the declaration of a word or one of some words."""
    return Parameter(help=help, **more)


def switch(help: str, **more: Any) -> Parameter:
    """Return the declaration of an option that is on where it is given."""
    return Parameter(help=help, **more)


def names(help: str, **more: Any) -> Parameter:
    """Return the declaration of some names with commas between them, given once or several times."""

    def convert(_: type, tokens: Sequence[Token]) -> tuple[str, ...]:
        return tuple(name for token in tokens for name in token.value.split(","))

    return Parameter(help=help, metavar="NAME,NAME", converter=convert, n_tokens=1, **more)


def whole_numbers(help: str, **more: Any) -> Parameter:
    """Return the declaration of some whole numbers with commas between them."""
    allowed = "whole numbers with commas between them, e.g. 64,128"
    convert = _converter(lambda text: tuple(int(part) for part in text.split(",")), allowed)
    return Parameter(help=help, metavar="N,N", converter=convert, n_tokens=1, **more)


def map_of_devices(help: str, **more: Any) -> Parameter:
    """Return the declaration of a map from parts of a model to devices."""
    allowed = """auto, a device, or a JSON object such as '{"": "cuda:1"}'"""
    convert = _converter(lambda text: json.loads(text) if text.startswith("{") else text, allowed)
    return Parameter(help=help, metavar="MAP", converter=convert, n_tokens=1, **more)


# options that commands share

Dtype = Literal["float32", "bfloat16", "float16", "auto", "fp32", "bf16", "fp16"]
Device = Annotated[
    str,
    word(
        "cpu, cuda, cuda:1, mps (default: a GPU where there is one)",
        metavar="DEVICE",
        show_default=False,
        group=WHERE,
    ),
]
Batch = Annotated[
    int,
    whole("sequences at once; but for rounding it changes speed and memory only", at_least=1, group=WHERE),
]
Length = Annotated[int | None, whole("tokens per sequence", at_least=2, show_default="128, with --text 512")]
DryRun = Annotated[
    bool, switch("say what memory and disk it takes, and stop; no weights are read", group=RUNNING)
]
ALIASES: dict[str, Dtype] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(kw_only=True)
class Options:
    """The values of a command's options, and what the command does with them.

    `given` are the names of those that the user gave. A command may put what it found in place of what was
    asked for.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = ()  # options that are files to be written, and must not exist
    MODELS: ClassVar[tuple[str, ...]] = ()  # options that are models; the first one is loaded first
    EPILOG: ClassVar[Sequence[tuple[str, Sequence[tuple[str, str]] | str]]] = ()
    """What help ends with: titles, each with lines or with names and what they mean."""

    debug: Annotated[bool, switch("show where in the code an error came from", group=OTHERS)] = False

    given = frozenset()  # without a type it is no field, so no option

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise ValueError when the user gave one of the options `names`, which do nothing for `reason`."""
        for name in names:
            if name in self.given:
                value = getattr(self, name)
                asked = flag(name) if isinstance(value, bool) else f"{flag(name)} {value}"
                raise ValueError(f"{asked} does nothing here: {reason}; leave it out")

    def settle(self) -> None:
        """Put what follows from other options in place; raise ValueError for what does not go together."""

    def check_places(self) -> None:
        """Raise an error for a text that is not there, or a folder that cannot be written."""

    def announce(self) -> str | None:
        """Return what is said at once, before libraries are imported: which model comes, or None."""
        loads = self.MODELS and not getattr(self, "dry_run", False)
        return f"loading {getattr(self, self.MODELS[0])} …" if loads else None

    def run(self) -> int | None:
        """Do what the command does, and return its exit status, None for 0.

        That is `run(options)` of `cli/<name>.py` beside the folder of the options. It is imported here, not
        before, because models and PyTorch take seconds to import.
        """
        return import_module(type(self).__module__.replace(".cli.commands.", ".cli.")).run(self)

    def left_behind(self) -> str:
        """Return what the command leaves where it is interrupted, in words."""
        return "nothing was written, and the same command begins anew"


@dataclass(kw_only=True)
class ModelOptions(Options):
    """Options of every command on a model."""

    MODELS: ClassVar[tuple[str, ...]] = ("model",)

    model: Annotated[
        str, word("smol-dlm, smol-ar, a hub id of docs/models.md, or a folder", group=ARGUMENTS)
    ] = field(kw_only=False)
    seed: Annotated[int, whole("seed of the choice of text and of all noise", at_least=0)] = 0
    dtype: Annotated[
        Dtype,
        word(
            "float32 (fp32), bfloat16 (bf16), float16 (fp16) or auto, the device's best (default)",
            metavar="DTYPE",
            show_choices=False,
            show_default=False,
            group=WHERE,
        ),
    ] = "auto"
    device: Device = "auto"
    device_map: Annotated[
        str | dict | None,
        map_of_devices(
            "spread the model over several devices: auto (all GPUs), or a JSON object of parts and devices",
            group=WHERE,
        ),
    ] = None

    def settle(self) -> None:
        """Write the dtype out, and refuse a device beside a map of devices."""
        super().settle()
        if self.dtype in ALIASES:
            self.dtype = ALIASES[self.dtype]
        if self.device_map is not None:
            self.refuse(("device",), f"--device-map {self.device_map} names the devices")


@dataclass(kw_only=True)
class TextOptions(ModelOptions):
    """Options of every command on a model and a text."""

    text: Annotated[
        Path | None,
        place(
            "text file, or JSON lines (.jsonl) of texts or chats, to take sequences from, or wikitext-2 "
            "(default, for trials: documentation of this installation, and for smol-dlm and smol-ar samples "
            "of smol-ar)",
            group=TEXT,
        ),
    ] = None
    data: Annotated[
        Path | None,
        place(
            "folder that holds WikiText-2 or BLiMP as published, as text, JSON lines or parquet "
            "(default: the hub)",
            "FOLDER",
            group=TEXT,
        ),
    ] = None
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        word("split of wikitext-2 (default: train for calibration, test for evaluation)", group=TEXT),
    ] = None

    def settle(self) -> None:
        """Refuse what is for a data set where none is asked for."""
        super().settle()
        if not self.takes_data():
            use = f"it is for --text {WIKITEXT}, and in evaluate for --tasks blimp and wikitext"
            self.refuse(("data", "split"), use)

    def takes_data(self) -> bool:
        """Return whether --data and --split have something to say."""
        return self.asks_wikitext()

    def asks_wikitext(self) -> bool:
        """Return whether `--text` asks for the data set WikiText-2, and not for a file of that name."""
        return is_wikitext(self.text)

    def check_places(self) -> None:
        """Raise an error for a text that is not there."""
        if self.text is not None and not self.asks_wikitext():
            check_text(self.text)


def check_text(text: Path) -> None:
    """Raise an OSError for a text file that is not there."""
    if text.is_dir():
        raise IsADirectoryError(f"--text {text} is a folder: give a text file")
    if not text.is_file():
        raise FileNotFoundError(f"--text {text}: there is no such file; check the name, or leave it out")


class HasDevice(Protocol):
    """Options of a command that computes on a device."""

    device: str


def flag(name: str) -> str:
    """Return how the option of a name is written on the command line."""
    return "--" + name.replace("_", "-")


# parsing


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises ValueError for what cannot be understood or done, and SystemExit where it asked for help.
    """
    command, *words = arguments
    kind = options_of(command)
    app = _app(command, kind)

    if any(word in HELP_FLAGS for word in words):
        app.help_print([])
        show_epilog(kind.EPILOG)
        raise SystemExit(0)

    for word in words:
        name, _, value = word.partition("=")
        if name.startswith("--") and value == "--":
            raise ValueError(f"{word}: -- is no value of {name}; give one, or leave the option out")

    try:
        make, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise ValueError(f"{_in_words(error)}; sinkprune {command} --help explains") from None

    options = make(*bound.args, **bound.kwargs)
    options.given = frozenset(
        word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")
    )
    options.settle()

    return options


def _app(command: str, kind: type[Options]) -> App:
    """Return the parser of one command."""
    return App(
        name=f"sinkprune {command}",
        help=commands()[command],
        default_command=kind,
        default_parameter=Parameter(negative=(), json_list=False, json_dict=False),
        group_arguments=ARGUMENTS,
        group_parameters=OPTIONS,
        group_commands=OTHERS,
        help_flags=HELP_FLAGS,
        version_flags=(),
        help_format="plaintext",
        help_formatter=PlainHelp(),
        result_action="return_value",
    )


def _in_words(error: CycloptsError) -> str:
    """Return what cannot be understood, in words."""
    name = "" if error.argument is None else error.argument.name
    if isinstance(error, ConsumeMultipleError):
        return f"{error.keyword or name} needs at least one value"
    if isinstance(error, MissingArgumentError):
        if error.argument is not None and error.argument.field_info.is_positional:
            return f"{name.removeprefix('--').upper()} is missing"
        return f"{error.keyword or name} needs a value"

    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or ())} is more than the command takes"

    return str(error).strip().rstrip(".")
