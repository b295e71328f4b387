"""Whether the ledger was committed before a run, on small git repositories."""

import subprocess
from pathlib import Path

import pytest

from sinkprune_core.companion.ledger_commits import before_the_run, is_before, ledger_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Path:
    """A ledger that is not yet committed, in a clone of its own."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(tmp_path, "init", "-q")
    return tmp_path / "claims.yml"


def test_a_ledger_that_is_older_than_the_run(ledger):
    first = commit(ledger.parent, ledger.name, "rules")
    run = commit(ledger.parent, "results", "1")
    found = ledger_commit(ledger)
    assert (found.commit, found.is_changed) == (first, False) and len(found.day) == 10
    assert is_before(first, run, ledger.parent) and is_before(first, first, ledger.parent)
    said = before_the_run(ledger, [run, run])
    assert said == f"Ledger: commit {first[:12]} of {found.day}, before the run ({run[:12]})."
    assert "changes that were not committed" in before_the_run(ledger, [f"{run}-dirty"])


def test_a_ledger_that_was_changed_after_the_run(ledger):
    commit(ledger.parent, ledger.name, "rules")
    run = commit(ledger.parent, "results", "1")
    later = commit(ledger.parent, ledger.name, "other rules")
    assert is_before(later, run, ledger.parent) is False
    assert "**not before the run**" in before_the_run(ledger, [run])
    after = commit(ledger.parent, "results", "2")
    assert "**not before the run**" in before_the_run(ledger, [run, after]), "one record is enough"
    assert "**not" not in before_the_run(ledger, [after])
    ledger.write_text("changed again")
    assert "changed since and not committed" in before_the_run(ledger, [after])


def test_what_git_cannot_tell_is_not_checked(ledger, tmp_path_factory):
    ledger.write_text("never committed")
    assert ledger_commit(ledger) is None
    commit(ledger.parent, ledger.name, "rules")
    for unknown in ("0" * 40, None):
        assert "not in this clone" in before_the_run(ledger, [unknown])
    outside = tmp_path_factory.mktemp("outside") / "claims.yml"
    outside.write_text("rules")
    assert ledger_commit(outside) is None
    assert "no git clone here" in before_the_run(outside, ["0" * 40])


def test_a_change_of_what_is_shown_changes_no_rule(ledger):
    first = commit(ledger.parent, ledger.name, "claims:\n- {claim: a, margin: 1, short: b}\n")
    run = commit(ledger.parent, "results", "1")
    commit(ledger.parent, ledger.name, "claims:\n- {claim: a, margin: 1, short: c, unit: nats}\n")
    assert ledger_commit(ledger).commit == first
    assert f"before the run ({run[:12]})" in before_the_run(ledger, [run])
    added = "- {claim: b, margin: 1, seen_first: true}\n"
    commit(ledger.parent, ledger.name, "claims:\n- {claim: a, margin: 1, short: c}\n" + added)
    assert ledger_commit(ledger).commit == first
    assert before_the_run(ledger, [run]).endswith(f"({run[:12]}); rows added after it say so (1).")
    later = commit(ledger.parent, ledger.name, "claims:\n- {claim: a, margin: 2, short: c}\n")
    assert ledger_commit(ledger).commit == later
    assert "**not before the run**" in before_the_run(ledger, [run])
