"""What is refused before a command begins: surroundings, files and models."""

import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path

from sinkprune.cli.options import Options, flag
from sinkprune.files import cache_dir, check_decodable, locked

PICTURES = (".png", ".pdf", ".svg")  # endings of --figure

# surroundings


def check_words(arguments: Sequence[str]) -> None:
    """Raise an error for a working directory or words of a command line that no command can work with."""
    for word in arguments:
        check_decodable(word)
    try:
        here = os.getcwd()
    except OSError:
        raise FileNotFoundError(
            "the working directory has been removed: go to one that exists, and run the command again"
        ) from None
    check_decodable(here)


def check_surroundings() -> None:
    """Raise an error for a Python or a variable that no command can work with."""
    if sys.flags.optimize > 1:
        raise RuntimeError(
            "Python was started with -OO (or PYTHONOPTIMIZE=2), which removes texts that transformers reads: "
            "leave it out, or take -O"
        )
    cache_dir()  # raises for one that cannot be
    _check_progress_bars()


def _check_progress_bars() -> None:
    """Raise ValueError for variables with which tqdm cannot draw a bar."""
    given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("TQDM_")]
    if not given:
        return
    try:
        from tqdm import tqdm

        with tqdm(range(1), file=io.StringIO()) as bar:
            list(bar)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{', '.join(given)}: tqdm cannot draw a progress bar with that ({reason}); "
            "correct it, or unset it"
        ) from None


# files and models


def check_picture(figure: Path | None) -> None:
    """Raise ValueError for a picture in a format that is none."""
    if figure is not None and figure.suffix not in PICTURES:
        endings = ", ".join(PICTURES)
        raise ValueError(f"--figure {figure} must end in one of {endings}, which says the format")


def check_models(options: Options) -> None:
    """Raise ValueError for a model that is neither known nor a folder."""
    if options.MODELS:
        from sinkprune.models.hub import parse  # seconds of imports, which help does without

        for name in options.MODELS:
            parse(getattr(options, name))


def check_named(name: str, path: Path | None) -> None:
    """Raise ValueError for a path that has no name of its own: nothing could be made beside it."""
    if path is not None and not path.absolute().name:
        raise ValueError(f"{flag(name)} {path} is the root of the disk: name a folder below it")


def check_new_path(name: str, path: Path) -> None:
    """Raise an error that names the option when `path` exists or could not be written; make nothing."""
    check_named(name, path)
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{flag(name)} {path} exists: choose another name or remove it first")
    folder = path.absolute().parent
    if not folder.exists():
        raise FileNotFoundError(
            f"{flag(name)} {path}: there is no folder {folder}; make it first, or choose another place"
        )
    check_writable(name, path)


def check_writable(name: str, path: Path) -> None:
    """Raise an error that names the option when nothing can be written where `path` is to be.

    A folder with a name as long as that of its scratch folder is made there, and removed at once.
    """
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{path.name}.", suffix=".tmp"):
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


def check_apart(inner_name: str, inner: Path | None, outer_name: str, outer: Path) -> None:
    """Raise ValueError for an option that leads to the place of another, or below it."""
    if inner is None:
        return
    check_distinct(**{inner_name: inner, outer_name: outer})
    if Path(os.path.realpath(outer)) in Path(os.path.realpath(inner)).parents:
        raise ValueError(
            f"{flag(inner_name)} {inner} lies in {flag(outer_name)} {outer}: choose a place outside"
        )


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
                stack.enter_context(locked(path))
                check_new_path(name, path)  # another process may have made it meanwhile
        yield
