"""`publish` looks at a whole run first, and replaces what is published at the end or not at all.

Runs with one file spoiled are a group of hostile cases (`hostile.fuzz_publishing`).
"""

import nbformat
import pytest
from hostile.fuzz_archives import in_project
from hostile.fuzz_publishing import NAMES, PROFILE, finished_run, seen

from sinkprune_companion.run import publish


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of two notebooks with a finished run, and with what an earlier run published."""
    monkeypatch.setattr(publish.pages, "write", list)  # of the whole project
    monkeypatch.setattr(publish.pages, "pages", lambda folder: {})
    with in_project(tmp_path):
        finished_run(tmp_path)
        yield tmp_path


def test_a_run_replaces_what_was_published(root):
    files = {file.relative_to(root).as_posix() for file in publish.publish(PROFILE)}
    after = seen(root)
    assert files <= set(after) and "figures/00_one/old.png" not in after
    for name in NAMES:
        assert {f"figures/{name}/curve.png", f"figures/findings/{name}.json"} <= files
        assert nbformat.reads(after[f"notebooks/{name}.ipynb"].decode(), 4).cells[2].source == "1 + 1"
    assert {"figures/records-p.tar.xz", "figures/records-p.tar.xz.sha256", "docs/run_costs.json"} <= files
    assert not list(root.glob(".publication*")), "the folder beside is gone"
    publish.publish(PROFILE)
    assert seen(root) == after


@pytest.mark.parametrize("profile", ["..", "p/../p", "/p", ""])
def test_a_profile_is_a_name_and_never_a_path(profile, root):
    before = seen(root)
    with pytest.raises(ValueError, match="is no name"):
        publish.publish(profile)
    assert seen(root) == before
