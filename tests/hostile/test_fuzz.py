"""Bad files of models, thousands of them: none is taken for another, and none ends in a traceback."""

import pytest
from hostile import fuzz
from hostile.fuzz_models import GROUPS


@pytest.mark.parametrize("group", GROUPS)
def test_bad_inputs(group, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    cases, _ = GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path))
    assert not tally.broken.get(group)
