"""The picture of how many kept weights tokens exchange."""

import pandas as pd

from sinkprune_companion.figures import reach

SINKS = 7  # tokens


def reached(most: str = "v") -> pd.DataFrame:
    """What three linear maps exchange, in one block and with one start of the text."""
    changed = {"all sinks": 0.01, "unstable sinks": 0.005, "random tokens": 0.002, "largest change": 0.03}
    rows = []
    for linear in ("q", "k", "v"):
        times = 10 if linear == most else 1
        common = {"text": "no special first token", "layer": 3, "linear": f"attn.{linear}"}
        for choice, share in changed.items():
            rows.append({**common, "choice": choice, "tokens": SINKS, "changed": times * share})
        rows.append({**common, "choice": "random tokens", "tokens": 1, "changed": 0.9})
        rows.append({**common, "choice": "other text", "tokens": 99, "changed": 0.2})
    return pd.DataFrame(rows)


def test_every_choice_has_a_dot_for_each_map_and_other_tokens_are_as_many_as_sinks():
    rows = reach.reach_rows(reached())
    assert set(rows.groupby("choice").size()) == {3} and set(rows.choice) == set(reach.ROWS)
    assert rows.changed.max() < 0.9, "one random token is not drawn beside all sinks"
    assert set(rows[rows.is_most].linear) == {"attn.v"}


def test_the_title_has_the_median_map_and_the_one_in_which_sinks_exchange_most():
    title = reach._title(reach.reach_rows(reached()), 0.5).replace("\N{NO-BREAK SPACE}", " ")
    assert title.startswith("At 50 %, in the median of 3 linear maps, leaving sinks out exchanges 1.0 %")
    assert title.endswith("In one map, v of block 3, sinks exchange 10 %")


def test_maps_are_dots_below_each_other_beside_their_median():
    axis = reach.plot_reach(reach.reach_rows(reached()), "").axes[0]
    sinks, median, ring = axis.lines[6:9]
    assert sorted(sinks.get_xdata()) == [1, 1, 10] and len(set(sinks.get_ydata())) == 3
    assert set(median.get_xdata()) == {1} and list(ring.get_xdata()) == [10]
