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
    ("sinkprune_companion",): 12_100,
}


def lines(module: Path) -> int:
    """Return how many lines a module has, all of them."""
    return len(module.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("folders", BUDGETS)
def test_a_folder_stays_within_its_budget(folders):
    assert (
        sum(lines(module) for folder in folders for module in (ROOT / folder).rglob("*.py"))
        <= BUDGETS[folders]
    )
