"""`publish` looks at a whole run first, and replaces what is published at the end or not at all.

Runs with one file spoiled are a group of hostile cases (`hostile.fuzz_publishing`).
"""

import json

import nbformat
import pytest
from hostile.fuzz_archives import in_project
from hostile.fuzz_publishing import NAMES, PROFILE, finished_run, seen

from sinkprune_companion.run import publish

pytestmark = pytest.mark.slow


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


def altered(file):
    file.write_text(file.read_text().replace("0.4", "0.5"))


def without_digests(file):
    about = json.loads(file.read_text())
    del about["files"]
    file.write_text(json.dumps(about))


NOT_WRITTEN = "is not what was written: run the notebook again"
DAMAGES = [
    ("figures/01_two/curve.csv", altered, NOT_WRITTEN),
    ("figures/01_two/curve.json", without_digests, "holds what belongs to none of its figures"),
    ("records/measured/*.csv", altered, NOT_WRITTEN),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGES)
def test_a_run_that_is_not_whole_is_named_and_changes_nothing(name, damage, said, root):
    (file,) = (root / "runs" / PROFILE).glob(name)
    damage(file)
    before = seen(root)
    with pytest.raises((ValueError, OSError)) as error:
        publish.publish(PROFILE)
    assert said in str(error.value) and file.stem in str(error.value)
    assert seen(root) == before


def test_the_claims_are_those_of_the_findings(root):
    """Also where the table of the run is an older one."""
    publish.publish(PROFILE)
    right = seen(root)
    claims = root / "runs" / PROFILE / "figures" / "claims.csv"
    claims.write_text("old")
    publish.publish(PROFILE)
    assert seen(root) == right and {"figures/claims.csv", "figures/claims.md"} <= set(right)
