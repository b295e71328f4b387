"""A short run of every group of bad inputs."""

import pytest
from hostile import fuzz, fuzz_groups
from hostile.tally import HELD, REFUSED, Tally
from lm_eval.tasks import TaskManager

from sinkprune_companion.harness import benchmarks

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache, and no index of the harness's own tasks, which takes 20 seconds."""
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    monkeypatch.setattr(benchmarks, "installed", lambda: TaskManager(include_defaults=False))


@pytest.mark.parametrize("group", fuzz_groups.GROUPS)
def test_no_bad_input_breaks_anything(group, tmp_path):
    tally = Tally()
    cases, every = fuzz_groups.GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path), every)
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3
