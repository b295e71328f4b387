"""Where the disk is full a command ends with one line of error; with room it comes to the same bits."""

import pytest
from hostile.commands import (
    COMMANDS,
    assert_it_goes_on,
    assert_nothing_is_half,
    command,
    fill,
    made,
    moments,
    straight,
)
from hostile.processes import Trouble, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", COMMANDS)
def test_a_full_disk_is_one_line_of_error_and_with_room_the_command_goes_on(way, tmp_path):
    expected, events = straight(way, tmp_path / "straight")
    troubles = [Trouble("full", at) for at in moments(events, 2)] + [Trouble("limit", 20_000)]

    for trouble in troubles:
        folder = fill(tmp_path / f"{trouble.kind}-{trouble.at}")
        outcome = run(folder, command(way), trouble)
        if outcome.status == 0:  # what was left to do needed no room
            assert made(folder) == expected
            continue

        assert outcome.is_refused, outcome.said
        assert_nothing_is_half(way, folder, expected)
        assert_it_goes_on(way, folder, expected)
