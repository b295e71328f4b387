"""Two processes with one output or one work folder: one does the work, the other says which place is held."""

import pytest
from hostile.commands import command, contents, fill, left_over, straight
from hostile.processes import Command

pytestmark = pytest.mark.slow

SHARED = {  # the options of both, and the place that they share
    "output": ((), (), "out"),
    "output, not the work folder": (("--work", "work-1"), ("--work", "work-2"), "out"),
    "work folder": (("--work", "work"), ("--work", "work", "--out", "other"), "work"),
}


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("way", ["sequential", "dense, streamed"])
def test_of_two_processes_one_does_the_work(way, shared, tmp_path):
    *options, place = SHARED[shared]
    expected, _ = straight(way, tmp_path / "straight")
    folder = fill(tmp_path / "both")

    both = [Command(folder, command(way, *more)) for more in options]
    outcomes = [one.outcome() for one in both]

    assert 0 in [outcome.status for outcome in outcomes]
    for outcome, more in zip(outcomes, options, strict=True):
        output = folder / ("other" if "other" in more else "out")
        if outcome.status == 0:
            assert weights(contents(output)) == weights(expected)
        else:
            assert outcome.is_refused and f"{folder / place} is in use" in outcome.said, outcome.said

    assert left_over(folder) <= {"work", "work-1", "work-2", "other"}


def weights(files: dict[str, object]) -> dict[str, object]:
    """Return what does not say the name of the output."""
    return {name: content for name, content in files.items() if name.endswith(".safetensors")}
