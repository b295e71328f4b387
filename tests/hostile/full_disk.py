"""Full disks: one sentence, nothing half, and with room the same command ends well."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hostile.cases import Bench, command, ends_well, half_output, made, moments
from hostile.processes import Outcome, Server, Trouble
from hostile.tally import BROKE, HELD, REFUSED, Tally, is_one_sentence

UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")
AMPLE = 1 << 20  # kB
EVENTS = "disks full from a file event on"
SIZES = "files that may not grow"
DISKS = "small disks"
GROUPS = (EVENTS, SIZES, DISKS)


def at_events(bench: Bench, tally: Tally, ways: list[str], each: int) -> None:
    """Refuse room to each way from `each` file events on, or a few more."""
    cases = []
    for number, way in enumerate(ways):
        _, events = bench.straight(way)
        cases += [(way, Trouble("full", at)) for at in moments(events, each, 7 * number)]
    _count(bench, tally, EVENTS, cases)


def at_sizes(bench: Bench, tally: Tally, ways: list[str], sizes: list[int]) -> None:
    """Let no file of each way grow beyond each of the sizes, in bytes."""
    cases = [(way, Trouble("limit", size)) for way in ways for size in sizes]
    _count(bench, tally, SIZES, cases)


def _count(bench: Bench, tally: Tally, group: str, cases: list[tuple[str, Trouble]]) -> None:
    def one(case: tuple[str, Trouble]) -> tuple[str, str]:
        way, trouble = case
        expected, _ = bench.straight(way)
        with bench.server() as server, bench.folder() as folder:
            outcome = server.run(folder, command(way), trouble)
            return _verdict(outcome, server, folder, way, expected, folder)

    for (way, trouble), (verdict, how) in zip(cases, bench.pool.map(one, cases), strict=True):
        tally.add(group, f"{way}, {trouble.at}", verdict, how)


def _verdict(
    outcome: Outcome, server: Server, folder: Path, way: str, expected: dict, seen: Path
) -> tuple[str, str]:
    """Say what came of a run on a full disk, and of the same command with room.

    `seen` is where the folder of the command lies for this process.
    """
    wrong = _first_verdict(outcome, seen, expected)
    if wrong:
        return BROKE, wrong
    verdict, how = ends_well(server, folder, way, expected, seen=seen)
    if verdict == HELD:
        return (HELD if outcome.status == 0 else REFUSED), ""
    return BROKE, f"with room again: {how or 'refused'}"


def _first_verdict(outcome: Outcome, seen: Path, expected: dict) -> str:
    """Return what is wrong with a run on a full disk."""
    if outcome.status == 0 and made(seen) != expected:  # the last events only remove
        return "another result"
    if outcome.status != 0 and (outcome.status != 1 or not is_one_sentence(outcome.said)):
        return f"status {outcome.status}: {outcome.said[-300:]}"
    return half_output(seen, expected)


def can_mount() -> bool:
    """Return whether this user may mount a disk in memory that only his processes see."""
    if shutil.which("unshare") is None:
        return False
    test = subprocess.run([*UNSHARED, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    return test.returncode == 0


def on_small_disks(bench: Bench, tally: Tally, ways: list[str], sizes: list[int]) -> None:
    """Run each way on a disk in memory with room for each of the sizes, in kB; then give it more."""
    with mounted_disk(bench.root / "disk") as (place, seen, remount, server):

        def resize(kilobytes: int) -> None:
            remount(f"size={kilobytes}k")

        for way in ways:
            expected, _ = bench.straight(way)
            for size in sizes:
                resize(AMPLE)
                for path in seen.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                bench.fill(seen)
                free = os.statvfs(seen)
                resize((free.f_blocks - free.f_bfree) * free.f_frsize // 1024 + size)
                outcome = server.run(place, command(way))
                verdict, how = BROKE, _first_verdict(outcome, seen, expected)
                resize(AMPLE)
                if not how:
                    verdict, how = _verdict(outcome, server, place, way, expected, seen)
                tally.add(DISKS, f"{way}, {size} kB", verdict, how)


@contextmanager
def mounted_disk(place: Path) -> Iterator[tuple[Path, Path, Callable[[str], None], Server]]:
    """Yield a disk in memory: its place for commands, for this process, a function that sets its options
    (`ro`, or `size=80k`), and a server whose commands see it.
    """
    place.mkdir(exist_ok=True)
    script = f"mount -t tmpfs tmpfs '{place}' && echo ready && exec sleep 100000"
    holder = subprocess.Popen([*UNSHARED, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "ready\n"
    inside = ("nsenter", "--target", str(holder.pid), "--user", "--mount", "--preserve-credentials")
    server = Server(inside)

    def remount(options: str) -> None:
        subprocess.run([*inside, "mount", "-o", f"remount,{options}", str(place)], check=True)

    try:
        yield place, Path(f"/proc/{holder.pid}/root{place}"), remount, server
    finally:
        server.close()
        holder.kill()
        holder.wait()
