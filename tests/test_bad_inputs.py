"""A short run of every group of bad inputs."""

import pytest
from hostile import fuzz, fuzz_groups
from hostile.tally import HELD, REFUSED, Tally

SHORT = {
    "weights": 60,
    "cards of saved models": 6,
    "configurations": 400,
    "rotary frequencies": 12,
    "indices and shards": 30,
    "tokenizers": 40,
    "the hub's cache": 15,
    "adapters": 60,
    "records": 10,
    "findings": 1,
    "ledger of claims": 3,
    "numbers of settings": 1,
    "parameters of notebooks": 1,
    "functions of users": 5,
    "activations that overflow": 25,
    "ids of other models": 30,
    "local data": 8,
    "archives of records": 6,
    "runs to publish": 4,
    "values below the smallest": 1,
}  # of a group's cases, each so many-th


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))


@pytest.mark.parametrize("group", fuzz_groups.GROUPS)
def test_no_bad_input_breaks_anything(group, tmp_path):
    tally = Tally()
    fuzz.run(tally, group, fuzz_groups.GROUPS[group](tmp_path), SHORT[group])
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3
