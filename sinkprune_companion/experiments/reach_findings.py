"""What the search of notebook 05 comes to: shares of the kept weights that change, means over linear maps."""

import pandas as pd

from sinkprune_companion.experiments.token_reach import LARGEST, OTHER_TEXT, RANDOM, SINKS
from sinkprune_core.evaluation.intervals import Estimate, interval

COMPARED = (("sinks", "random"), ("sinks", "largest"), ("largest", "other_text"))


def reach_findings(frame: pd.DataFrame) -> dict[str, Estimate]:
    """Return shares of kept weights that change, by choice of the calibration tokens left out.

    `frame` is what `token_reach` returns for one kind of calibration text. Choices are all sinks
    (`reach_sinks`), as many random tokens (`reach_random`), as many that change most (`reach_largest`), and
    other text (`reach_other_text`). `COMPARED` names the pairs whose differences are findings, too, such as
    `reach_sinks_minus_random`. Intervals are over linear maps, and differences are paired by them. Without
    sinks, or with fewer than two linear maps, there is nothing to say.
    """
    sinks = frame[frame.choice == SINKS["all"]]
    if len(sinks) < 2 or sinks.tokens.iloc[0] == 0:
        return {}
    same_count = frame[frame.tokens == sinks.tokens.iloc[0]]
    chosen = {
        "sinks": sinks,
        "random": same_count[same_count.choice == RANDOM],
        "largest": same_count[same_count.choice == LARGEST],
        "other_text": frame[frame.choice == OTHER_TEXT],
    }
    changed = {name: part.set_index(["layer", "linear"]).changed for name, part in chosen.items()}
    found = {f"reach_{name}": interval(values) for name, values in changed.items()}
    for one, other in COMPARED:
        found[f"reach_{one}_minus_{other}"] = interval(changed[one] - changed[other])
    return found
