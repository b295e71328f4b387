"""What people see of a command besides its result: sentences in whole words, and a clock that runs."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

PAUSE = 0.5  # seconds between two looks at the clock
CLOCK = len(" 00:00:00")


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a sentence, to stderr if no stream is given: on a terminal wrapped, else in one line."""
    chosen = stream or sys.stderr
    print(wrapped(text) if chosen.isatty() else text, file=chosen, flush=True)


def wrapped(text: str, later: str = "") -> str:
    """Return a text in lines as wide as the terminal, which begin with `later` from the second one on."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)


@contextmanager
def loading(name: str) -> Iterator[Callable[[], None]]:
    """Say that a model is being loaded, on a terminal with a clock that runs, until the block ends.

    The function that is yielded ends it earlier.
    """
    words = f"loading {name} …"
    if not sys.stderr.isatty():
        say(words)
        yield lambda: None
        return

    from tqdm import tqdm

    words = words[: shutil.get_terminal_size().columns - CLOCK]
    to_the_end = "\033[K"  # of the line, where a bar may have stood before
    clock = tqdm(desc=words, bar_format="{desc} {elapsed}" + to_the_end, leave=False, file=sys.stderr)
    done = Event()
    running = Thread(target=_run, args=(clock, done), daemon=True)
    running.start()

    def stop() -> None:
        done.set()
        running.join()
        clock.close()

    try:
        yield stop
    finally:
        stop()


def _run(clock: tqdm, done: Event) -> None:
    """Show how late it is until the work is done."""
    while not done.wait(PAUSE):
        clock.refresh()


def bars() -> list:
    """Return the progress bars that are shown."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return list(getattr(tqdm, "_instances", ()))


@contextmanager
def keeping(what: str = "", folder: Path | None = None, out: Path | None = None) -> Iterator[None]:
    """Let who interrupts the block know that its output is there, or that its folder keeps `what`."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if out is not None and out.exists():
            stopped.add_note(f"{out} is written, and whole")
        elif folder is not None and folder.exists():
            stopped.add_note(f"{what} kept in {folder}, and the same command goes on from there")
        raise
