"""Titles of figures belong to figures, and none outlives the verdict that it presumes."""

import pytest
from jinja2 import UndefinedError

from sinkprune_companion import project_root
from sinkprune_companion.pages import sources, titles
from sinkprune_companion.run.records import Run


def test_every_title_is_asked_for_by_its_notebook():
    for notebook, figures in titles.written().items():
        source = (project_root() / "notebooks" / f"{notebook}.py").read_text(encoding="utf-8")
        for figure in figures:
            assert f'"{figure}"' in source or f'f"{figure.partition("_")[0]}_' in source, (notebook, figure)


def test_a_title_stops_where_its_verdict_has_changed():
    results = sources.Results([], {})
    results.__dict__["verdict"] = {"paper-beats-wanda": "reproduced"}
    place = r"titles.yml, 03_pruning_results/differences_50: 'paper-beats-wanda' is presumed"
    with pytest.raises(sources.PresumedVerdictError, match=place):
        titles.rendered("03_pruning_results", "differences_50", results)
    with pytest.raises(UndefinedError):
        titles.rendered("03_pruning_results", "differences_75", results)


def test_a_smaller_run_has_titles_that_presume_nothing():
    run = Run("03_pruning_results", "quick", {})
    assert titles.title(run, "differences_50", "Paired differences") == "Paired differences"
