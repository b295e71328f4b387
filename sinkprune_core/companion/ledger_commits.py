"""Whether the ledger was committed before a run: the last commit of a notebook's rows against those of the
records that they rest on.

What counts is what decides a verdict; how a row is shown, and what the history tells, may change after a run.
Rows that say themselves that their number had been seen first (`seen_first`) were added after it, and do not
count.
"""

import functools
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sinkprune_core.companion.phrases import joined

SEEN_FIRST = "seen_first"
LETTERS = 12  # of a commit, as shown
FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML is not built with libyaml everywhere
SHOWN_ONLY = {
    "history",
    "short",
    "unit",
    "control",
}  # parts of the file and fields of a row that decide nothing


@dataclass(frozen=True)
class LedgerCommit:
    """The commit that last changed what decides a notebook's rows."""

    commit: str
    """All 40 digits."""
    day: str
    """When it was made, as YYYY-MM-DD."""
    is_changed: bool
    """Whether what decides differs from it by now."""


def ledger_commit(file: Path, notebook: str) -> LedgerCommit | None:
    """Return the commit that last changed what decides a notebook's rows in a file; None outside a clone,
    without git or for a file never committed.
    """
    try:
        commits = _git(file.parent, "log", "--format=%H %cs", "--", file.name).splitlines()
        if not commits:
            return None
        newest = _rows_of(_committed(file, commits[0].split()[0]), notebook)
        last = commits[0]
        for older in commits[1:]:
            if _rows_of(_committed(file, older.split()[0]), notebook) != newest:
                break
            last = older
    except (OSError, subprocess.SubprocessError):
        return None
    commit, day = last.split()
    now = _deciding(file.read_text(encoding="utf-8"))
    return LedgerCommit(commit, day, _rows_of(now, notebook) != newest)


@functools.cache
def _committed(file: Path, commit: str) -> object:
    """Return what decides in a file as it was committed; None where it did not exist."""
    try:
        return _deciding(_git(file.parent, "show", f"{commit}:./{file.name}"))
    except subprocess.CalledProcessError:
        return None


def _deciding(text: str) -> object:
    """Return a ledger's content without the parts that decide nothing."""
    return _without_shown(yaml.load(text, Loader=FASTEST))


def _rows_of(content: object, notebook: str) -> list[dict]:
    """Return the rows that a notebook's findings decide."""
    rows = content.get("claims", []) if isinstance(content, dict) else []
    return [row for row in rows if str(row.get("finding", "")).startswith(f"{notebook}/")]


def _without_shown(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_shown(part) for key, part in value.items() if key not in SHOWN_ONLY}
    if isinstance(value, list):
        rows = [part for part in value if not (isinstance(part, dict) and part.get(SEEN_FIRST))]
        return [_without_shown(part) for part in rows]
    return value


def _seen_first(file: Path) -> list[dict]:
    """Return the rows that were added after their number had been seen."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = content.get("claims", []) if isinstance(content, dict) else []
    return [row for row in rows if row.get(SEEN_FIRST)]


def is_before(commit: str, later: str, folder: Path) -> bool | None:
    """Return whether a commit is an ancestor of another, or the same; None where git cannot tell."""
    try:
        done = subprocess.run(
            ["git", "merge-base", "--is-ancestor", commit, later],
            cwd=folder,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {0: True, 1: False}.get(done.returncode)


def before_the_run(file: Path, commits: Mapping[str, Iterable[str | None]]) -> str:
    """Return sentences on the commits of the ledger's rows, and whether each notebook's rows are older than
    all commits of its run.

    `commits` are those of the records, by notebook, with `-dirty` behind one whose package had changes.
    """
    by_order: dict[str, dict[str, LedgerCommit | None]] = {}
    for notebook, of_records in commits.items():
        last = ledger_commit(file, notebook)
        order = _order(file, last, sorted({commit or "none" for commit in of_records}))
        by_order.setdefault(order, {})[notebook] = last
    parts = []
    for order, lasts in by_order.items():
        whose = "all notebooks" if len(lasts) == len(commits) else joined(lasts)
        named = sorted({f"{last.commit[:LETTERS]} of {last.day}" for last in lasts.values() if last})
        parts.append(f"Rows of {whose} in the ledger ({joined(named) or 'no commit'}): {order}.")
    if added := len(_seen_first(file)):
        parts.append(f"Rows added after their number had been seen say so ({added}).")
    return " ".join(parts)


def _order(file: Path, last: LedgerCommit | None, run: list[str]) -> str:
    """Return in words whether the commit of a notebook's rows is older than the commits of its records."""
    if last is None:
        return "whether they were committed before the run was not checked, as there is no git clone here"
    if last.is_changed:
        return "**changed since and not committed**"
    found = [is_before(last.commit, commit.removesuffix("-dirty"), file.parent) for commit in run]
    if not run or None in found:
        return "a commit of the run is not in this clone, so the order was not checked"
    if not all(found):
        return "**not before the run**"
    if any(commit.endswith("-dirty") for commit in run):
        return "before the run, **in which the package had changes that were not committed**"
    return "committed before the run"


def _git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints in a folder; raises CalledProcessError where it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
