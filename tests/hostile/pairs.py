"""Two processes with one output or one work folder: one does the work, the other says who holds it."""

import random
import re
import threading
import time

from hostile.cases import ALL_WAYS, Bench, command, contents, left_over
from hostile.processes import Outcome, Server
from hostile.tally import BROKE, HELD, REFUSED, Tally, is_one_sentence

HOLDER = r"process \d+ on .+ since .+|another process that has just begun"
IN_USE = re.compile(rf"error: .+ is in use by ({HOLDER}): ")
GROUP = "pairs of processes"
KINDS = ("one output", "one output, two work folders", "one work folder")


def at_random(bench: Bench, tally: Tally, pairs: int, seed: int = 0) -> None:
    """Start the second process of each pair a random time after the first one."""
    rng = random.Random(seed)
    ways = list(ALL_WAYS)
    cases = []
    for number in range(seed * pairs, (seed + 1) * pairs):
        way = ways[number % len(ways)]
        cases.append((KINDS[number % len(KINDS)], way, rng.choice((0, rng.uniform(0, 1.5)))))
    for way in dict.fromkeys(case[1] for case in cases):
        bench.straight(way)

    def one(case: tuple[str, str, float]) -> tuple[str, str]:
        kind, way, after = case
        with bench.server() as first, bench.server() as second, bench.folder() as folder:
            arguments = [command(way), command(way)]
            if kind != KINDS[0]:
                works = ("w", "w") if kind == KINDS[2] else ("w1", "w2")
                arguments = [[*each, "--work", work] for each, work in zip(arguments, works, strict=True)]
            if kind == KINDS[2]:
                arguments[1][arguments[1].index("--out") + 1] = "other"
            outcomes = _both(first, second, folder, arguments, after)
            expected, _ = bench.straight(way)
            return _verdict(kind, folder, outcomes, expected)

    half = [cases[start : start + len(bench.servers) // 2] for start in _starts(cases, bench)]
    for together in half:
        for case, (verdict, how) in zip(together, bench.pool.map(one, together), strict=True):
            tally.add(GROUP, ", ".join(map(str, case)), verdict, how)


def _starts(cases: list, bench: Bench) -> range:
    return range(0, len(cases), len(bench.servers) // 2)


def _both(first: Server, second: Server, folder, arguments: list[list], after: float) -> list[Outcome]:
    outcomes: list[Outcome | None] = [None, None]

    def run(index: int, server: Server) -> None:
        outcomes[index] = server.run(folder, arguments[index])

    thread = threading.Thread(target=run, args=(0, first))
    thread.start()
    time.sleep(after)
    run(1, second)
    thread.join()
    return outcomes


def _unlike(made: dict, expected: dict, output: str) -> list[str]:
    """Return the files of an output that are not what was expected.

    Cards say the name of their folder, which does not count for an output of another name.
    """
    if output != "out":
        made, expected = _without_names(made), _without_names(expected)

    return sorted(name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name))


def _without_names(files: dict) -> dict:
    """Return the contents of a folder without what its cards say of its name."""
    card = files.get("sinkprune.json")
    if isinstance(card, dict):
        files = {**files, "sinkprune.json": {**card, "name": None}}

    return {name: value for name, value in files.items() if name != "README.md"}


def _verdict(kind: str, folder, outcomes: list[Outcome], expected: dict) -> tuple[str, str]:
    """Say what came of a pair: whoever ended well has made the right output, the other one says why not."""
    outputs = ["out", "other" if kind == KINDS[2] else "out"]
    refused = 0
    for outcome, output in zip(outcomes, outputs, strict=True):
        if outcome.status == 0:
            made = contents(folder / output) if (folder / output).is_dir() else {}
            other = _unlike(made, expected, output)
            if other:
                return BROKE, f"missing or not as expected: {', '.join(other)}: {outcome.said[-300:]}"

        elif outcome.status == 1 and IN_USE.search(outcome.said) and is_one_sentence(outcome.said):
            refused += 1
        else:
            return BROKE, f"status {outcome.status}: {outcome.said[-300:]}"
    if refused == 2:
        return BROKE, "neither did the work"
    litter = [name for name in left_over(folder) if name not in ("w", "w1", "w2", "other")]
    if litter:
        return BROKE, f"it left {litter}"
    return (REFUSED if refused else HELD), ""
