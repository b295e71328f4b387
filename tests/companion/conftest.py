"""A run whose records and findings go to a folder of their own."""

import pytest

from sinkprune_companion.run import records
from sinkprune_companion.run.records import Run


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    return Run("00_test", "p", {"sparsity": 0.5})
