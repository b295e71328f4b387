"""Pruning runs that are killed, lose power, find the disk full, or share their places: nothing is lost."""

import pytest
from hostile import full_disk, kills, pairs
from hostile.cases import ALL_WAYS
from hostile.tally import Tally

WAYS = list(ALL_WAYS)
SIZES = (*range(0, 80, 4), 100, 160, 220, 280, 340, 400)  # kB


def test_kills_at_file_events(bench, tally):
    kills.at_events(bench, tally, WAYS, each=25, kind="kill")
    assert not tally.broken.get("kills at file events")


def test_power_failures_at_file_events(bench, tally):
    kills.at_events(bench, tally, WAYS, each=7, kind="power")
    assert not tally.broken.get("power failures at file events")


def test_kills_at_random_moments(bench, tally):
    kills.at_random(bench, tally, kills=120)
    assert not tally.broken.get("kills at random moments")


def test_damaged_work_folders(bench, tally):
    kills.damaged(bench, tally, cases=120)
    assert not tally.broken.get("damaged work folders")


def test_disks_full_from_a_file_event_on(bench, tally):
    full_disk.at_events(bench, tally, WAYS, each=6)
    assert not tally.broken.get("disks full from a file event on")


def test_files_that_may_not_grow(bench, tally):
    sizes = [500, 2_000, 5_000, 20_000, 50_000, 200_000]
    full_disk.at_sizes(bench, tally, ["sequential, streamed", "dense"], sizes)
    assert not tally.broken.get("files that may not grow")


@pytest.mark.skipif(not full_disk.can_mount(), reason="this user may not mount a disk in memory")
def test_small_disks(bench, tally):
    full_disk.on_small_disks(bench, tally, ["sequential, streamed", "dense"], SIZES)
    assert not tally.broken.get("small disks")


def test_pairs_of_processes(bench, tally):
    pairs.at_random(bench, tally, pairs=90)
    assert not tally.broken.get("pairs of processes")


# the harness itself: a defect put in on purpose is found


def test_what_is_not_flushed_is_found(bench):
    tally = Tally()
    kills.at_events(bench, tally, ["dense"], each=20, kind="power", defect="no flush")
    assert tally.broken


@pytest.mark.parametrize("defect", ["in place", "table afterwards"])
@pytest.mark.parametrize("way", ["dense", "sequential, streamed"])
def test_an_output_in_pieces_is_found(bench, way, defect):
    tally = Tally()
    kills.at_events(bench, tally, [way], each=60, kind="kill", defect=defect)
    assert any("not whole" in how for how in tally.broken["kills at file events"])


def test_blocks_that_are_not_compared_with_their_digests_are_found(bench):
    tally = Tally()
    kills.damaged(bench, tally, cases=36, defect="no digests")
    assert any("another result" in how for how in tally.broken["damaged work folders"])


def test_missing_locks_are_found(bench):
    tally = Tally()
    pairs.at_random(bench, tally, pairs=12, defect="no locks")
    assert tally.broken


@pytest.mark.skipif(not full_disk.can_mount(), reason="this user may not mount a disk in memory")
def test_hidden_states_in_sparse_files_are_found(bench):
    tally = Tally()
    full_disk.on_small_disks(bench, tally, ["sequential, streamed"], range(0, 80, 4), defect="holes")
    assert any("status -7" in how for how in tally.broken.get("small disks", []))  # SIGBUS
