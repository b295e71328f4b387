"""Whether the ledger was committed before a run: its last commit against those of the run's records."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LETTERS = 12  # of a commit, as shown


@dataclass(frozen=True)
class LedgerCommit:
    """The commit that last changed the ledger's file."""

    commit: str
    """All 40 digits."""
    day: str
    """When it was made, as YYYY-MM-DD."""
    is_changed: bool
    """Whether the file differs from it by now."""


def ledger_commit(file: Path) -> LedgerCommit | None:
    """Return the last commit of a file; None outside a clone, without git or for a file never committed."""
    try:
        last = _git(file.parent, "log", "-1", "--format=%H %cs", "--", file.name)
        changes = _git(file.parent, "status", "--porcelain", "--", file.name)
    except (OSError, subprocess.SubprocessError):
        return None
    if not last:
        return None
    commit, day = last.split()
    return LedgerCommit(commit, day, bool(changes))


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
    run = " and ".join(commit[:LETTERS] for commit in named)
    if not named or None in found:
        return (
            f"{said}; the run's commit ({run or 'none'}) is not in this clone, so the order was not checked."
        )
    if not all(found):
        return f"{said}, **not before the run** ({run})."
    if any(commit.endswith("-dirty") for commit in named):
        return f"{said}, before the run ({run}, **with changes that were not committed**)."
    return f"{said}, before the run ({run})."


def _git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints in a folder; raises CalledProcessError where it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
