"""Figures with a row per effect: what is cut, and what a row says of itself."""

import pytest

from sinkprune_companion.figures import forests
from sinkprune_companion.ledger.contrasts import HELPS
from sinkprune_companion.ledger.verdict_rule import NO_DIFFERENCE
from sinkprune_core.evaluation.intervals import Estimate


def estimate(value: float, half: float, margin: float | None = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half, 9, "t", margin=margin, freedom=8.0)


@pytest.mark.parametrize(
    ("order", "is_cut"), [(("far", "near", "near too"), False), (("near", "near too", "far"), True)]
)
def test_only_rows_after_the_first_are_cut(order, is_cut):
    rows = {"far": estimate(1.0, 0.1), "near": estimate(0.02, 0.01), "near too": estimate(0.03, 0.01)}
    figure = forests.plot_forest({name: rows[name] for name in order}, "nats")
    assert (figure.axes[0].get_xlim()[1] < 0.9) == is_cut


def test_rows_have_verdicts_where_all_have_margins():
    rows = {"better": estimate(-0.5, 0.01), "same": estimate(0.001, 0.001)}
    assert forests.forest_table(rows).verdict.tolist() == [HELPS, NO_DIFFERENCE]
    assert "verdict" not in forests.forest_table({**rows, "open": estimate(0.5, 0.1, None)})
