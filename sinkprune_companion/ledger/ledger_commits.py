"""Whether the ledger was committed before a run: the last commits of a notebook's rows against those of the
records that they rest on.

What counts is what decides a verdict; how a row is shown, and what the history tells, may change after a run.
Rows that say themselves that their number had been seen first (`seen_first`) were added after it, and do not
count.
"""

import functools
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from sinkprune_companion.numbers import joined

SEEN_FIRST = "seen_first"
LETTERS = 8  # of a commit, as shown
FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML is not built with libyaml everywhere
SHOWN_ONLY = {
    "history",
    "short",
    "unit",
    "control",
}  # parts of the file and fields of a row that decide nothing


@dataclass(frozen=True)
class LedgerCommit:
    """A commit that is the last to have changed what decides some of a notebook's rows."""

    commit: str
    """All 40 digits."""
    day: str
    """When it was made, as YYYY-MM-DD."""
    rows: int
    """How many; rows that it removed are counted, too."""
    is_addition: bool
    """Whether no row rested on their findings before."""

    def __str__(self):
        return f"{self.commit[:LETTERS]} of {self.day}"


def ledger_commits(file: Path, notebook: str) -> list[LedgerCommit]:
    """Return the commits that last changed what decides a notebook's rows in a file, newest first; none
    outside a clone, without git or for a file never committed.
    """
    try:
        commits = _git(file.parent, "log", "--format=%H %cs", "--", file.name).splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    rows = left = _rows_of(_committed(file, commits[0].split()[0]), notebook) if commits else []
    for newer, older in pairwise([*commits, None]):
        before = _rows_of(_committed(file, older.split()[0]), notebook) if older else []
        changed = [row for row in left if row not in before]
        added = [row for row in changed if row["finding"] not in _findings(before)]
        removed = [row for row in before if row["finding"] not in _findings(rows)]
        commit, day = newer.split()
        if added:
            found.append(LedgerCommit(commit, day, len(added), is_addition=True))
        if other := len(changed) - len(added) + len(removed):
            found.append(LedgerCommit(commit, day, other, is_addition=False))
        rows = before
        left = [row for row in left if row in before]
        if not left:
            break
    return found


def _findings(rows: list[dict]) -> set[str]:
    return {row["finding"] for row in rows}


def is_changed(file: Path, notebook: str) -> bool:
    """Return whether what decides a notebook's rows in a file differs from its last commit."""
    last = _git(file.parent, "log", "-1", "--format=%H", "--", file.name)
    now = _deciding(file.read_text(encoding="utf-8"))
    return _rows_of(now, notebook) != _rows_of(_committed(file, last), notebook)


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
    all commits of its run. Rows that were added during a run are told apart; a notebook without rows is left
    out.

    `commits` has that of every record, by notebook, with `-dirty` behind one whose package had changes.
    """
    by_order: dict[str, dict[str, list[LedgerCommit]]] = {}
    added_later = []
    now = _deciding(file.read_text(encoding="utf-8"))
    with_rows = {notebook: each for notebook, each in commits.items() if _rows_of(now, notebook)}
    for notebook, of_records in with_rows.items():
        run = Counter(commit or "none" for commit in of_records)
        of_rows = ledger_commits(file, notebook)
        during = [each for each in of_rows if each.is_addition and _is_during(file, each, run)]
        first = [each for each in of_rows if each not in during]
        if not first:  # where all rows came during the run, none was there before it
            first, during = of_rows, []
        by_order.setdefault(_order(file, notebook, first, run), {})[notebook] = first
        added_later += [_added(file, notebook, each, run) for each in during]
    parts = []
    for order, of_rows in by_order.items():
        whose = "all notebooks" if len(of_rows) == len(with_rows) else joined(of_rows)
        named = sorted({str(rows[0]) for rows in of_rows.values() if rows})
        parts.append(f"Rows of {whose} in the ledger ({joined(named) or 'no commit'}): {order}.")
    parts += added_later
    if added := len(_seen_first(file)):
        parts.append(f"Rows added after their number had been seen say so ({added}).")
    return " ".join(parts)


def _order(file: Path, notebook: str, of_rows: list[LedgerCommit], run: Counter[str]) -> str:
    """Return in words whether the commits of a notebook's rows are older than the commits of its records."""
    if not of_rows:
        return "whether they were committed before the run was not checked, as there is no git clone here"
    if is_changed(file, notebook):
        return "**changed since and not committed**"
    found = [_later(file, each, run) for each in of_rows]
    if not run or None in found:
        return "a commit of the run is not in this clone, so the order was not checked"
    if any(later < run.total() for later in found):
        return "**not before the run**"
    if any(commit.endswith("-dirty") for commit in run):
        return "before the run, **in which the package had changes that were not committed**"
    return "committed before the run"


def _later(file: Path, last: LedgerCommit, run: Counter[str]) -> int | None:
    """Return how many records of a run are later than a commit of the ledger; None where git cannot tell."""
    found = {each: is_before(last.commit, each.removesuffix("-dirty"), file.parent) for each in run}
    if None in found.values():
        return None
    return sum(run[each] for each, is_later in found.items() if is_later)


def _is_during(file: Path, last: LedgerCommit, run: Counter[str]) -> bool:
    """Return whether some records of a run are older than a commit of the ledger, and some later."""
    return 0 < (_later(file, last, run) or 0) < run.total()


def _added(file: Path, notebook: str, last: LedgerCommit, run: Counter[str]) -> str:
    """Return a sentence on rows that were added to a notebook's during its run."""
    rows = f"{last.rows} row of {notebook} was" if last.rows == 1 else f"{last.rows} rows of {notebook} were"
    later = _later(file, last, run)
    return f"{rows} added during its run ({last}), before the last {later} of its {run.total()} records."


def _git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints in a folder; raises CalledProcessError where it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
