"""Two pieces of work measured in turns, so that what else the machine does meets both."""

import statistics
import time
from collections.abc import Callable


def in_turns(
    one: Callable, other: Callable, rounds: int, clock: Callable[[], float] = time.process_time
) -> tuple[float, float, float]:
    """Return the median ratio of the two times, and the median times in seconds; both have run before."""
    pairs = []
    for _ in range(rounds):
        times = []
        for run in (one, other):
            begun = clock()
            run()
            times.append(clock() - begun)
        pairs.append(times)
    of_one, of_other = (statistics.median(times) for times in zip(*pairs, strict=True))
    return statistics.median(one / other for one, other in pairs), of_one, of_other
