"""Whether the ledger was committed before a run, on small git repositories."""

import subprocess
from pathlib import Path

import pytest

from sinkprune_companion.ledger.ledger_commits import before_the_run, is_before, is_changed, ledger_commits


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


NOTEBOOK = "01_a"
RULES = "claims:\n- {finding: 01_a/x, margin: 1, short: b}\n- {finding: 02_b/y, margin: 1}\n"


def said_of(ledger: Path, *commits: str | None) -> str:
    return before_the_run(ledger, {NOTEBOOK: commits})


def test_a_ledger_that_is_older_than_the_run(ledger):
    first = commit(ledger.parent, ledger.name, RULES)
    run = commit(ledger.parent, "results", "1")
    (found,) = ledger_commits(ledger, NOTEBOOK)
    assert (found.commit, found.rows, found.is_addition) == (first, 1, True) and len(found.day) == 10
    assert not is_changed(ledger, NOTEBOOK)
    assert is_before(first, run, ledger.parent) and is_before(first, first, ledger.parent)
    whose = f"Rows of all notebooks in the ledger ({first[:8]} of {found.day})"
    assert said_of(ledger, run, run) == f"{whose}: committed before the run."
    assert before_the_run(ledger, {NOTEBOOK: [run], "03_no_rows": [run]}) == said_of(ledger, run)
    assert "changes that were not committed" in said_of(ledger, f"{run}-dirty")


def test_a_ledger_that_was_changed_after_the_run(ledger):
    commit(ledger.parent, ledger.name, RULES)
    run = commit(ledger.parent, "results", "1")
    later = commit(ledger.parent, ledger.name, RULES.replace("margin: 1, short", "margin: 2, short"))
    assert is_before(later, run, ledger.parent) is False
    assert "**not before the run**" in said_of(ledger, run)
    after = commit(ledger.parent, "results", "2")
    assert "**not before the run**" in said_of(ledger, run, after), "one record is enough"
    assert "**not" not in said_of(ledger, after)
    ledger.write_text(RULES.replace("margin: 1, short", "margin: 3, short"))
    assert "changed since and not committed" in said_of(ledger, after)


def test_rows_of_one_notebook_may_be_added_after_the_run_of_another(ledger):
    first = commit(ledger.parent, ledger.name, RULES)
    run = commit(ledger.parent, "results", "1")
    later = commit(ledger.parent, ledger.name, RULES + "- {finding: 02_b/z, margin: 1}\n")
    assert [each.commit for each in ledger_commits(ledger, "01_a")] == [first]
    assert [each.commit for each in ledger_commits(ledger, "02_b")] == [later, first]
    said = before_the_run(ledger, {"01_a": [run], "02_b": [run]})
    assert f"Rows of 01_a in the ledger ({first[:8]}" in said and "committed before the run. Rows" in said
    assert f"Rows of 02_b in the ledger ({later[:8]}" in said and said.endswith("**not before the run**.")
    again = commit(ledger.parent, "results", "2")
    both = before_the_run(ledger, {"01_a": [run], "02_b": [again]})
    assert both.startswith("Rows of all notebooks in the ledger (") and both.count("Rows") == 1


def test_rows_that_were_added_during_a_run_are_told_apart_and_changed_ones_are_not_excused(ledger):
    first = commit(ledger.parent, ledger.name, RULES)
    run = commit(ledger.parent, "results", "1")
    later = commit(ledger.parent, ledger.name, RULES + "- {finding: 01_a/z, margin: 1}\n")
    again = commit(ledger.parent, "results", "2")
    said = said_of(ledger, run, run, again)
    assert f"({first[:8]} of" in said and ": committed before the run. 1 row of 01_a was added" in said
    assert f"during its run ({later[:8]} of" in said
    assert said.endswith("before the last 1 of its 3 records.")
    assert "**not before the run**" in said_of(ledger, run, run), "no record was measured after the row"
    assert said_of(ledger, again).endswith(": committed before the run.")
    commit(ledger.parent, ledger.name, RULES + "- {finding: 01_a/z, margin: 2}\n")
    last = commit(ledger.parent, "results", "3")
    assert "**not before the run**" in said_of(ledger, run, last)


def test_rows_that_all_came_during_a_run_were_not_there_before_it(ledger):
    run = commit(ledger.parent, "results", "1")
    commit(ledger.parent, ledger.name, RULES)
    later = commit(ledger.parent, "results", "2")
    assert "**not before the run**" in said_of(ledger, run, later)


def test_a_row_that_is_removed_after_the_run_counts_as_a_change(ledger):
    rows = RULES + "- {finding: 01_a/z, margin: 1}\n"
    commit(ledger.parent, ledger.name, rows)
    run = commit(ledger.parent, "results", "1")
    later = commit(ledger.parent, ledger.name, RULES)
    removed = ledger_commits(ledger, NOTEBOOK)[0]
    assert (removed.commit, removed.rows, removed.is_addition) == (later, 1, False)
    assert "**not before the run**" in said_of(ledger, run)


def test_what_git_cannot_tell_is_not_checked(ledger, tmp_path_factory):
    ledger.write_text(RULES)
    assert ledger_commits(ledger, NOTEBOOK) == []
    commit(ledger.parent, ledger.name, RULES)
    for unknown in ("0" * 40, None):
        assert "not in this clone" in said_of(ledger, unknown)
    outside = tmp_path_factory.mktemp("outside") / "claims.yml"
    outside.write_text(RULES)
    assert ledger_commits(outside, NOTEBOOK) == []
    assert "no git clone here" in said_of(outside, "0" * 40)


def test_a_change_of_what_is_shown_changes_no_rule(ledger):
    first = commit(ledger.parent, ledger.name, RULES)
    run = commit(ledger.parent, "results", "1")
    commit(ledger.parent, ledger.name, RULES.replace("short: b", "short: c, unit: nats"))
    assert [each.commit for each in ledger_commits(ledger, NOTEBOOK)] == [first]
    assert said_of(ledger, run).endswith("committed before the run.")
    commit(ledger.parent, ledger.name, RULES + "- {finding: 01_a/z, margin: 1, seen_first: true}\n")
    assert [each.commit for each in ledger_commits(ledger, NOTEBOOK)] == [first]
    assert said_of(ledger, run).endswith("run. Rows added after their number had been seen say so (1).")
