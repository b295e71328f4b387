"""Whether the ledger was committed before a run: its last commit against those of the run's records.

What counts is what decides a verdict; how a row is shown, and what the history tells, may change after a run.
Rows that say themselves that their number had been seen first (`seen_first`) were added after it, and do not
count.
"""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

SEEN_FIRST = "seen_first"
LETTERS = 12  # of a commit, as shown
SHOWN_ONLY = {
    "history",
    "short",
    "unit",
    "control",
}  # parts of the file and fields of a row that decide nothing


@dataclass(frozen=True)
class LedgerCommit:
    """The commit that last changed what decides in the ledger's file."""

    commit: str
    """All 40 digits."""
    day: str
    """When it was made, as YYYY-MM-DD."""
    is_changed: bool
    """Whether what decides differs from it by now."""


def ledger_commit(file: Path) -> LedgerCommit | None:
    """Return the commit that last changed what decides in a file; None outside a clone, without git or for a
    file never committed.
    """
    try:
        commits = _git(file.parent, "log", "--format=%H %cs", "--", file.name).splitlines()
        if not commits:
            return None
        newest = _committed(file, commits[0].split()[0])
        last = commits[0]
        for older in commits[1:]:
            if _committed(file, older.split()[0]) != newest:
                break
            last = older
    except (OSError, subprocess.SubprocessError):
        return None
    commit, day = last.split()
    return LedgerCommit(commit, day, _deciding(file.read_text(encoding="utf-8")) != newest)


def _committed(file: Path, commit: str) -> object:
    """Return what decides in a file as it was committed; None where it did not exist."""
    try:
        return _deciding(_git(file.parent, "show", f"{commit}:./{file.name}"))
    except subprocess.CalledProcessError:
        return None


def _deciding(text: str) -> object:
    """Return a ledger's content without the parts that decide nothing."""
    return _without_shown(yaml.safe_load(text))


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


def before_the_run(file: Path, commits: Iterable[str | None]) -> str:
    """Return one sentence: the ledger's commit, and whether it is older than all commits of a run.

    `commits` are those of the run's records, with `-dirty` behind one whose package had changes.
    """
    last = ledger_commit(file)
    if last is None:
        return "Whether the ledger was committed before the run was not checked: there is no git clone here."
    said = f"Ledger: commit {last.commit[:LETTERS]} of {last.day}"
    if last.is_changed:
        return f"{said}, **changed since and not committed**."
    named = sorted({commit or "none" for commit in commits})
    found = [is_before(last.commit, commit.removesuffix("-dirty"), file.parent) for commit in named]
    run = named[0][:LETTERS] if len(named) == 1 else f"all {len(named)} commits"
    if not named or None in found:
        return (
            f"{said}; the run's commit ({run or 'none'}) is not in this clone, so the order was not checked."
        )
    if not all(found):
        return f"{said}, **not before the run** ({run})."
    added = len(_seen_first(file))
    rest = f"; rows added after it say so ({added})" if added else ""
    if any(commit.endswith("-dirty") for commit in named):
        return f"{said}, before the run ({run}, **with changes that were not committed**){rest}."
    return f"{said}, before the run ({run}){rest}."


def _git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints in a folder; raises CalledProcessError where it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
