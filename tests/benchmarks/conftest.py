"""What every benchmark leaves: a line on the screen and, with --record, an entry of docs/performance.json."""

import os

import pytest
import torch

from sinkprune_companion.pages.sources import note_performance
from sinkprune_companion.run.records import environment


def pytest_addoption(parser):
    parser.addoption(
        "--record",
        action="store_true",
        help="write what is measured into docs/performance.json; "
        "then run python -m sinkprune_companion.pages",
    )


@pytest.fixture
def record(request):
    """Return the function that prints, and with --record keeps, one measurement and its goal.

    It returns whether the goal is reached. `before` and `after` are what is compared, in `unit`, with `names`
    for both; `value` is their ratio, or the one number that was measured where nothing is compared. Without
    `at_least` and `at_most` there is no goal, which counts as reached.
    """

    def note(
        what: str,
        value: float,
        before: float | None,
        after: float,
        names: tuple[str, str],
        unit: str = "s",
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> bool:
        if at_least is None and at_most is None:
            goal, reached = "–", True
        elif at_least is not None:
            goal, reached = f"at least {at_least:g}", value >= at_least
        else:
            goal, reached = f"at most {at_most:g}", value <= at_most
        amounts = [
            f"{name} {amount:.3g} {unit}"
            for name, amount in zip(names, (before, after), strict=True)
            if amount is not None
        ]
        verdict = "" if reached else ", NOT REACHED"
        print(f"\n{what}: {value:.2f}, goal {goal}{verdict}; {', '.join(amounts)}")
        if request.config.getoption("--record"):
            entry = {
                "value": value,
                "before": before,
                "after": after,
                "names": names,
                "unit": unit,
                "goal": goal,
                "reached": bool(reached),
                "threads": torch.get_num_threads(),
                "load": round(os.getloadavg()[1], 1) if hasattr(os, "getloadavg") else None,
                **environment(),
            }
            note_performance(what, entry)
        return reached

    return note
