"""A short run of every group of bad files of models."""

import pytest
from hostile import fuzz
from hostile.fuzz_models import GROUPS
from hostile.tally import HELD, REFUSED, Tally

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("group", GROUPS)
def test_no_bad_input_breaks_anything(group, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    tally = Tally()
    cases, every = GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path), every)
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3
