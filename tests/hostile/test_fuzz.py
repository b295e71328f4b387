"""Bad inputs of every kind, thousands of them: none is taken for another, and none ends in a traceback."""

import pytest
from hostile import fuzz, fuzz_groups


@pytest.mark.parametrize("group", fuzz_groups.GROUPS)
def test_bad_inputs(group, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    cases, _ = fuzz_groups.GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path))
    assert not tally.broken.get(group)
