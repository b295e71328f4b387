"""Commands that are killed, lose power, find the disk full, or share their places; bad files of models."""

import pytest
from hostile import (
    arguments,
    conditions,
    full_disk,
    fuzz,
    growth,
    kills,
    options,
    pairs,
    smallest,
    states,
    threads,
)
from hostile.cases import ALL_WAYS, NOTEBOOKS, OTHERS
from hostile.fuzz_models import GROUPS
from hostile.places import GROUPS as PLACES
from hostile.tally import BROKE, HELD
from notebook_cells import TINY, save_tiny_pair

PRUNING = list(ALL_WAYS)
EVERY = [*PRUNING, *OTHERS, *NOTEBOOKS]
SIZES = (*range(0, 80, 8), 160, 280, 400)  # kB
LIMITS = [0, 4, 16, 64, 80, 140, 400]  # MB
MEMORY = states.GROUPS | threads.GROUPS | arguments.GROUPS  # what is given to functions, and not in files
mounts = pytest.mark.skipif(not full_disk.can_mount(), reason="this user may not mount a disk in memory")


@pytest.mark.parametrize("way", EVERY)
def test_kills_at_file_events(bench, tally, way):
    kills.at_events(bench, tally, [way], each=12, kind="kill")
    assert not tally.broken


@pytest.mark.parametrize("way", EVERY)
def test_power_failures_at_file_events(bench, tally, way):
    kills.at_events(bench, tally, [way], each=5, kind="power")
    assert not tally.broken


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments(bench, tally, seed):
    kills.at_random(bench, tally, EVERY, kills=36, seed=seed)
    assert not tally.broken


@pytest.mark.parametrize("way", EVERY)
def test_disks_full_from_a_file_event_on(bench, tally, way):
    full_disk.at_events(bench, tally, [way], each=4)
    assert not tally.broken


def test_files_that_may_not_grow(bench, tally):
    sizes = [1_500, 2_500, 5_000, 20_000, 50_000, 200_000]  # what a command prints is in a file, too
    full_disk.at_sizes(bench, tally, ["sequential, streamed", "dense, streamed", *OTHERS], sizes)
    assert not tally.broken


@mounts
@pytest.mark.parametrize("way", ["sequential, streamed", "dense, streamed", "train"])
def test_small_disks(bench, tally, way):
    full_disk.on_small_disks(bench, tally, [way], SIZES)
    assert not tally.broken


@pytest.mark.parametrize("seed", range(2))
def test_pairs_of_processes(bench, tally, seed):
    pairs.at_random(bench, tally, pairs=30, seed=seed)
    assert not tally.broken


@pytest.mark.parametrize("way", ["sequential", "dense, streamed", *OTHERS])
def test_memory_limits(bench, tally, way):
    conditions.under_memory_limits(bench, tally, [way], [megabytes * 10**6 for megabytes in LIMITS])
    assert not tally.broken


@mounts
def test_places_read_only(bench, tally):
    conditions.in_places_read_only(bench, tally, ["sequential", "dense, streamed", *OTHERS])
    assert not tally.broken


def test_many_jobs_in_one_process(tally):
    growth.many_jobs(tally, jobs=150)
    assert not tally.broken


@pytest.fixture(scope="module")
def tiny_pair(tmp_path_factory):
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", TINY)
def test_notebooks_run_on_the_smallest_values_that_they_take(name, tiny_pair, tally, tmp_path, monkeypatch):
    for module in ("records", "parameters"):  # results go here and not to the clone
        monkeypatch.setattr(f"sinkprune_companion.run.{module}.project_root", lambda: tmp_path)
    verdict, how = HELD, ""
    try:
        smallest.run(name, tiny_pair, tmp_path)
    except Exception as error:
        verdict, how = BROKE, f"{type(error).__name__}: {error}"
    tally.add(smallest.GROUP, name, verdict, how)
    assert not tally.broken


@pytest.mark.parametrize("group", GROUPS)
def test_bad_files_of_models(group, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    cases, _ = GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path))
    assert not tally.broken.get(group)


@pytest.mark.parametrize("group", PLACES)
def test_files_in_strange_places(group, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    fuzz.run(tally, group, PLACES[group](tmp_path))
    assert not tally.broken.get(group)


@pytest.mark.parametrize("group", MEMORY)
def test_what_functions_are_given(group, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    monkeypatch.chdir(tmp_path)  # a text in the place of a folder names one here
    fuzz.run(tally, group, MEMORY[group](tmp_path))
    assert not tally.broken.get(group)


@pytest.mark.parametrize("command", options.LINES)
def test_options_have_an_effect_or_are_refused(command, tally, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    options.run(tally, tmp_path, command)
    assert not tally.broken
