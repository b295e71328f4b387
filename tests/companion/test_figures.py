"""An interval that would flatten the others is cut, and says its numbers."""

from sinkprune_companion.figures import forests
from sinkprune_core.evaluation.intervals import Estimate


def test_an_interval_that_would_flatten_the_rest_is_cut_with_an_arrow_and_its_numbers():
    estimates = {name: Estimate(0.0, -0.01, 0.01, 9, "") for name in "abc"}
    near = forests.plot_forest(estimates, "x")
    far = forests.plot_forest({**estimates, "d": Estimate(0.5, 0.4, 0.6, 9, "")}, "x")
    assert not near.axes[0].texts and "arrows" not in near.get_supxlabel()
    assert [text.get_text() for text in far.axes[0].texts] == ["+0.500 [+0.400, +0.600]"]
    assert far.axes[0].get_xlim()[1] < 0.1 and "arrows: goes on" in far.get_supxlabel()
    alone = forests.plot_forest({"a": Estimate(0.0, 0.0, 0.0, 9, "")}, "x")
    assert not alone.axes[0].texts
