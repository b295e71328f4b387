"""What is printed for people, with words wrapped whole: sentences, and the help of a command, with names on
the left and what they mean on the right.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

INDENT = 2
COLUMN = 24  # where meanings begin, unless the terminal is narrow


class PlainHelp:
    """How cyclopts shows help here: plain lines, as wide as the terminal."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Show a group of options."""
        rows = [(_label(entry), _meaning(entry)) for entry in panel.entries]
        if rows:
            print(f"{panel.title}:\n{two_columns(rows)}\n")

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Show how the command is written."""
        print(f"usage: {' '.join(usage.plain.split())}\n")

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Show what the command is about."""
        print(f"{description.primary_renderable.plain}\n")


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a sentence, to stderr if no stream is given: on a terminal wrapped, else in one line."""
    chosen = sys.stderr if stream is None else stream
    print(wrapped(text) if chosen.isatty() else text, file=chosen, flush=True)


def show_epilog(parts: Sequence[tuple[str, Sequence[tuple[str, str]] | str]]) -> None:
    """Print titles, each with lines as they are, or with names and what they mean."""
    for title, content in parts:
        body = content if isinstance(content, str) else two_columns(content)
        print(f"{title}:\n{body}\n")


def wrapped(text: str) -> str:
    """Return a text in lines as wide as the terminal."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def two_columns(rows: Sequence[tuple[str, str]]) -> str:
    """Return names with their meanings beside them, wrapped to the terminal."""
    width = shutil.get_terminal_size().columns
    column = min(COLUMN, max(width // 3, 8))

    lines = []
    for name, meaning in rows:
        start = " " * INDENT + name
        lines_of_meaning = textwrap.wrap(
            meaning, max(width - column, 20), break_long_words=False, break_on_hyphens=False
        )

        if len(start) + 2 > column:
            lines.append(start)
        elif lines_of_meaning:
            lines.append(start.ljust(column) + lines_of_meaning.pop(0))
        else:
            lines.append(start)

        lines += [" " * column + line for line in lines_of_meaning]

    return "\n".join(lines)


def _label(entry: Any) -> str:
    """Return how an option is written."""
    if entry.positional_label:
        return entry.positional_label

    names = ", ".join((*entry.positive_shorts, *entry.positive_names))
    if entry.choices:
        return f"{names} {{{','.join(entry.choices)}}}"
    return f"{names} {entry.metavar}" if entry.metavar else names


def _meaning(entry: Any) -> str:
    """Return what an option is about, with its default."""
    words = entry.description.primary_renderable.plain
    if entry.default in (None, "False", "()"):
        return words
    if words.endswith(")"):
        return f"{words[:-1]}; default: {entry.default})"
    return f"{words} (default: {entry.default})"
