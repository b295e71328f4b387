"""A command that is killed, or loses power, goes on by the same command to the same bits."""

import pytest
from hostile.commands import (
    COMMANDS,
    assert_it_goes_on,
    assert_nothing_is_half,
    command,
    fill,
    moments,
    straight,
)
from hostile.processes import Trouble, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", COMMANDS)
def test_a_killed_command_goes_on_to_the_same_bits(way, tmp_path):
    expected, events = straight(way, tmp_path / "straight")
    cases = [("kill", at) for at in moments(events, 3)] + [("power", at) for at in moments(events, 2)]

    for kind, at in cases:
        folder = fill(tmp_path / f"{kind}-{at}")
        outcome = run(folder, command(way), Trouble(kind, at))
        assert outcome.status == -9, outcome.said
        assert_nothing_is_half(way, folder, expected)
        assert_it_goes_on(way, folder, expected)
