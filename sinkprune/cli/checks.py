"""What is refused before a command begins: options that do not go together, and files."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import combinations
from pathlib import Path

from sinkprune.cli.options import COMMANDS, Options, flag
from sinkprune.files import PLANNED, held

PICTURES = (".png", ".pdf", ".svg")  # endings of --figure
WIKITEXT = "wikitext-2"  # the value of --text that stands for a data set instead of a file


# options


def settle(options: Options) -> None:
    """Put what follows from other options in place; raise ValueError for those that do not go together."""
    if "device_map" in options:
        if options.device_map is not None:
            options.refuse(("device",), f"--device-map {options.device_map} names the devices")
        if not asks_wikitext(options) and not (options.command == "evaluate" and options.tasks):
            use = f"it is for --text {WIKITEXT}, and in evaluate for --tasks blimp and wikitext"
            options.refuse(("data", "split"), use)
    if options.command == "trace" and options.figure and options.figure.suffix not in PICTURES:
        endings = ", ".join(PICTURES)
        raise ValueError(f"--figure {options.figure} must end in one of {endings}, which says the format")
    if options.command == "compare" and not options.tasks:
        options.refuse(("limit",), "it counts items of --tasks")
    settle_own = _settled_by(options.command)
    if settle_own is not None:
        settle_own(options)


def asks_wikitext(options: Options) -> bool:
    """Return whether `--text` asks for the data set WikiText-2, and not for a file of that name."""
    return "data" in options and str(options.text) == WIKITEXT and not options.text.is_file()


def _settle_prune(options: Options) -> None:
    if options.out is None and not options.dry_run:
        raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
    if options.device_map is not None:
        options.refuse(("stream",), f"--device-map {options.device_map} lays the whole model on its devices")
    out = options.out or PLANNED
    options.work_folder = options.work or out.with_name(out.name + ".work")  # of finished blocks, statistics


def _settle_evaluate(options: Options) -> None:
    if options.protocol is not None and (options.tasks or options.text is None):
        raise ValueError(f"--protocol {options.protocol} scores a running text: give --text and no --tasks")
    if options.tasks:
        _settle_tasks(options)
        return
    options.refuse(("family",), "it chooses settings of --tasks")
    if options.protocol is None:
        options.refuse(("limit",), "it counts items of --tasks or windows of --protocol")
    else:
        options.refuse(("sequences", "length"), "a protocol scores the whole --text in windows of its own")
        options.refuse(("draws",), "a protocol has its own number of draws")


def _settle_tasks(options: Options) -> None:
    words = " ".join(options.tasks)
    options.tasks = words.replace(",", " ").split()
    if not options.tasks:
        raise ValueError(f"--tasks {words} names no task: give one, e.g. --tasks suite")
    unused = ("text", "sequences", "length")
    options.refuse(unused, "it is for held-out text, and tasks have texts of their own")
    if options.data is None:
        options.refuse(
            ("split",),
            "it chooses among files of --data FOLDER, which is missing, and the harness takes test",
        )
    if "wikitext" not in options.tasks:
        options.refuse(("split",), "it chooses a split of the task wikitext, which is not among the --tasks")


SETTLE: dict[str, Callable[[Options], None]] = {
    "prune": _settle_prune,
    "evaluate": _settle_evaluate,
}


def _settled_by(command: str) -> Callable[[Options], None] | None:
    """Return what settles the options of one command: SETTLE of `cli.checks` of the package that has it."""
    package = COMMANDS[command]["package"]
    return import_module(f"{package}.cli.checks").SETTLE.get(command)


def left_behind(options: Options) -> str:
    """Return what an interrupted command leaves, in words."""
    if "work_folder" in options:
        is_plan = options.command == "prune" and options.dry_run
        if is_plan or not options.work_folder.exists():
            return "nothing was done yet, and nothing was written"
    words = "nothing was written, and the same command begins anew"
    return COMMANDS[options.command].get("left_behind", words).format(**vars(options))


# files and models


def check_inputs(options: Options) -> None:
    """Raise an error for a text or a model that is not there, or a folder that cannot be written."""
    text = getattr(options, "text", None)
    if text is not None and not asks_wikitext(options):
        if text.is_dir():
            raise IsADirectoryError(f"--text {text} is a folder: give a text file")
        if not text.is_file():
            raise FileNotFoundError(f"--text {text}: there is no such file; check the name, or leave it out")
    if "folder" in options:
        check_writable("folder", options.work_folder)
    if options.models:
        from sinkprune.models.hub import parse  # seconds of imports, which help does without

        for name in options.models:
            parse(getattr(options, name))


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
    given = [(flag(name), path) for name, path in paths.items() if path is not None]
    for (one, path), (other, second) in combinations(given, 2):
        if os.path.realpath(path) == os.path.realpath(second):
            raise ValueError(f"{one} {path} and {other} {second} are one place: give two names")


@contextmanager
def new_files(**paths: Path | None) -> Iterator[None]:
    """Hold what a command writes, by the names of its options, from before the work until it is written.

    Raises what `check_distinct` and `check_new_path` raise, and RuntimeError where another process holds it.
    """
    check_distinct(**paths)
    with ExitStack() as stack:
        for name, path in paths.items():
            if path is not None:
                check_new_path(name, path)
                stack.enter_context(held(path))
                check_new_path(name, path)  # another process may have made it meanwhile
        yield
