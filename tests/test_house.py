"""The house stays as it was built: a small core, a companion beside it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = {  # lines of Python, all of them counted
    ("sinkprune_core",): 10_000,
    (
        "sinkprune_core/sinks",
        "sinkprune_core/calibration",
        "sinkprune_core/pruning",
        "sinkprune_core/diffusion",
    ): 4_300,
    ("sinkprune_companion",): 8_500,
}


@pytest.mark.parametrize("folders", BUDGETS)
def test_a_folder_stays_within_its_budget(folders):
    modules = [module for folder in folders for module in (ROOT / folder).rglob("*.py")]
    lines = sum(len(module.read_text(encoding="utf-8").splitlines()) for module in modules)
    assert lines <= BUDGETS[folders]
