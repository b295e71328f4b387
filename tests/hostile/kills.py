"""Kills of `sinkprune prune`, after which the same command must come to the same bits."""

import random
import signal
import time

from hostile.cases import OTHERS, Bench, command, ends_well, half_output, moments, was_killed
from hostile.processes import Trouble
from hostile.tally import BROKE, Tally

AT_EVENTS = {"kill": "kills at file events", "power": "power failures at file events"}
RANDOM = "kills at random moments"
GROUPS = (*AT_EVENTS.values(), RANDOM)


def at_events(bench: Bench, tally: Tally, ways: list[str], each: int, kind: str) -> None:
    """Kill each way before `each` file events, or a few more, as `kind` says (see `Trouble`)."""
    cases = []
    for number, way in enumerate(ways):
        _, events = bench.straight(way)
        cases += [(way, at) for at in moments(events, each, 7 * number)]
    at_moments(bench, tally, cases, kind)


def at_moments(bench: Bench, tally: Tally, cases: list[tuple], kind: str, is_flushed: bool = True) -> None:
    """Kill a way before one of its file events, for each of the cases (way, number of the event)."""
    group = AT_EVENTS[kind]

    def one(case: tuple[str, int]) -> tuple[str, str] | None:
        way, at = case
        expected, _ = bench.straight(way)
        with bench.server() as server, bench.folder() as folder:
            outcome = server.run(folder, command(way), Trouble(kind, at, is_flushed))
            if outcome.status == 0 and outcome.events < at:
                return None  # this run had an event less, and ended before: nothing was done to it
            if not was_killed(outcome):
                return BROKE, f"it was not killed: status {outcome.status}: {outcome.said[-300:]}"
            wrong = half_output(folder, expected)
            return (BROKE, wrong) if wrong else ends_well(server, folder, way, expected, is_flushed)

    for case, found in zip(cases, bench.pool.map(one, cases), strict=True):
        if found is not None:
            tally.add(group, f"{case[0]}, event {case[1]}", *found)


def finds_what_is_not_flushed(bench: Bench, way: str, last: int) -> bool:
    """Return whether a power failure at one of the last events shows that nothing is flushed.

    Without flushes there are fewer events: they are counted first.
    """
    with bench.server() as server, bench.folder() as folder:
        events = server.run(folder, command(way), Trouble(is_flushed=False)).events
    tally = Tally()
    at_moments(bench, tally, [(way, at) for at in range(events - last, events)], "power", is_flushed=False)
    broken = tally.broken.get(AT_EVENTS["power"], [])
    return any("not whole" in how or "another result" in how for how in broken)


def at_random(bench: Bench, tally: Tally, names: list[str], kills: int, seed: int = 0) -> None:
    """Kill runs three times each after a random time: twice by SIGKILL, once by SIGINT or SIGTERM."""
    rng = random.Random(seed)
    spans = {}
    for way in names:
        bench.straight(way)
        with bench.server() as server, bench.folder() as folder:
            started = time.perf_counter()
            server.run(folder, command(way))
            spans[way] = time.perf_counter() - started
    cases = []
    for number in range(kills // 3):
        way = names[number % len(names)]
        signals = (signal.SIGKILL, signal.SIGKILL, rng.choice((signal.SIGINT, signal.SIGTERM)))
        cases.append((way, [(rng.uniform(0, spans[way]), each) for each in signals]))

    def one(case: tuple[str, list]) -> list[tuple[str, str]]:
        way, signals = case
        expected, _ = bench.straight(way)
        verdicts = []
        with bench.server() as server, bench.folder() as folder:
            for signal_after in signals:
                outcome = server.run(folder, command(way), signal_after=signal_after)
                wrong = half_output(folder, expected)
                was_finished = outcome.status == 1 and way in OTHERS and " exists: " in outcome.said
                if outcome.status not in (0, 130) and not was_killed(outcome) and not was_finished:
                    wrong = f"status {outcome.status}: {outcome.said[-300:]}"
                verdicts.append((BROKE, wrong) if wrong else None)
            last = ends_well(server, folder, way, expected)
        return [verdict or last for verdict in verdicts]

    for case, verdicts in zip(cases, bench.pool.map(one, cases), strict=True):
        for (seconds, number), (verdict, how) in zip(case[1], verdicts, strict=True):
            name = signal.Signals(number).name
            tally.add(RANDOM, f"{case[0]}, {name} after {seconds:.3f} s", verdict, how)
