"""Records are computed once, intervals cover, verdicts follow their rule and change when the data do."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from sinkprune_core import claims, figures, publish, results
from sinkprune_core.claims import DIRECTION, ELSEWHERE, REFUTED, REPRODUCED, Claim
from sinkprune_core.pruning import preset
from sinkprune_core.results import Estimate, Run, crossed_interval, interval, paired, pivot


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(results, "project_root", lambda: tmp_path)
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    return Run("00_test", "p", {"sparsity": 0.5})


def test_a_record_is_computed_once_per_key_and_says_where_it_comes_from(run):
    calls = []

    def compute():
        calls.append(1)
        return pd.DataFrame({"value": [0.1 + 0.2, 1 / 3]})

    first = run.record("r", compute, recipe=preset("wanda"), seed=0)
    again = run.record("r", compute, recipe=preset("wanda"), seed=0)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert list(first.seed) == [0, 0] and first.value.tolist() == [0.1 + 0.2, 1 / 3]
    run.record("r", compute, recipe=preset("wanda"), seed=1)
    run.record("r", compute, recipe=preset("dwanda"), seed=0)
    assert len(calls) == 3
    origins = [json.loads(file.read_text()) for file in (run.folder / "records" / "00_test").glob("*.json")]
    assert len(origins) == 3
    assert all(o["versions"]["torch"] and o["core_source"] and o["parameters"] == {"sparsity": 0.5} for o in origins)
    assert {o["key"]["recipe"]["inputs"] for o in origins} == {"clean", "noised"}


def test_a_failed_record_leaves_nothing_that_would_be_read_later(run):
    with pytest.raises(ZeroDivisionError):
        run.record("r", lambda: 1 / 0, seed=0)
    assert not list(run.folder.rglob("*.csv"))
    assert len(run.record("r", lambda: pd.DataFrame({"x": [1]}), seed=0)) == 1


def test_a_key_must_be_plain(run):
    with pytest.raises(TypeError, match="give a fingerprint instead"):
        run.record("r", pd.DataFrame, text=object())


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = [found.low <= 2 <= found.high for found in (interval(rng.normal(2, 1, 40), seed) for seed in range(100))]
    assert 85 <= sum(inside) <= 100


def test_an_interval_needs_two_units_and_leaves_out_nan():
    with pytest.raises(ValueError, match="at least 2 units, got 1"):
        interval([1.0, float("nan")])
    constant = interval([2.0, 2.0, float("nan")])
    assert (constant.value, constant.low, constant.high, constant.units) == (2, 2, 2, 2)


def test_the_crossed_interval_sees_both_sources_of_chance():
    rng = np.random.default_rng(0)
    by_sequence, by_repetition = rng.normal(size=(1, 64)), rng.normal(size=(8, 1))

    def width(found: Estimate) -> float:
        return found.high - found.low

    sequences_only = crossed_interval(by_sequence + np.zeros((8, 1)))
    both = crossed_interval(by_sequence + by_repetition)
    assert width(both) > 1.5 * width(sequences_only)
    one = crossed_interval(by_sequence)
    assert "one calibration draw" in one.method and width(one) == pytest.approx(width(sequences_only), rel=0.1)
    with pytest.raises(ValueError, match="at least 2 sequences"):
        crossed_interval(np.zeros((3, 1)))


def test_pairing_removes_what_variants_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 50)
    rows = [{"variant": v, "seed": s, "sequence": n, "value": hard[n] + gain + 0.01 * rng.normal()} for v, gain in (("a", 0.0), ("b", -0.1)) for s in range(3) for n in range(50)]
    frame = pd.DataFrame(rows)
    found = paired(frame, {"variant": "b"}, {"variant": "a"})
    assert found.high < 0 and found.value == pytest.approx(-0.1, abs=0.01)
    with pytest.raises(ValueError, match="no record"):
        paired(frame, {"variant": "c"}, {"variant": "a"})
    with pytest.raises(ValueError, match="not be paired"):
        pivot(frame[(frame.variant == "a")].iloc[1:])


def test_a_dense_model_measured_once_pairs_with_every_repetition():
    frame = pd.DataFrame([{"variant": v, "seed": s, "sequence": n, "value": float(n + s)} for v, seeds in (("dense", 1), ("pruned", 3)) for s in range(seeds) for n in range(4)])
    assert paired(frame, {"variant": "pruned"}, {"variant": "dense"}).value == 1.0


# claims


def claim(**fields) -> Claim:
    return Claim(**{"id": "c", "says": "s", "quote": "q", "source": "s", "metric": "m", "falsifier": "f", "scale": "any", "finding": "nb/x", **fields})


@pytest.mark.parametrize(
    ("side", "against", "estimate", "verdict"),
    [
        ("below", 0.0, (-1, -2, -0.1), REPRODUCED),
        ("below", 0.0, (-1, -2, 0.0), DIRECTION),
        ("below", 0.0, (-1, -2, 0.1), DIRECTION),
        ("below", 0.0, (0.0, -1, 1), REFUTED),
        ("below", 0.0, (1, 0.5, 2), REFUTED),
        ("above", 0.0, (1, 0.5, 2), REPRODUCED),
        ("above", 0.5, (0.6, 0.4, 0.8), DIRECTION),
        ("above", 0.5, (0.4, 0.3, 0.6), REFUTED),
    ],
)
def test_a_verdict_follows_from_the_interval(side, against, estimate, verdict):
    assert claim(side=side, against=against).verdict(Estimate(*estimate, units=9, method="")) == verdict


def test_without_a_finding_a_claim_was_not_run():
    assert claim(finding=None).verdict(None) == ELSEWHERE
    assert claim().verdict(None) == ELSEWHERE


def test_a_verdict_changes_when_the_data_do(run):
    ledger = [claim(finding="00_test/x")]
    run.find({"x": interval([-1.0, -1.1, -0.9]), "y": None})
    assert claims.verdicts(ledger, claims.findings(run.folder)).verdict.tolist() == [REPRODUCED]
    run.find({"x": interval([1.0, 1.1, 0.9])})
    table = claims.verdicts(ledger, claims.findings(run.folder), "00_test")
    assert table.verdict.tolist() == [REFUTED]
    assert claims.verdicts(ledger, claims.findings(run.folder), "01_other").empty
    assert "❌ not reproduced" in claims.as_markdown(table) and "not reproduced" in claims.as_text(table)


@pytest.mark.parametrize("fields, message", [({"side": "left"}, "side='left'"), ({"kind": "x"}, "kind='x'"), ({"finding": "x"}, "notebook/name")])
def test_a_claim_says_what_is_wrong_with_it(fields, message):
    with pytest.raises(ValueError, match=message):
        claim(**fields)


def test_the_ledger_refuses_unknown_fields_and_doubles(tmp_path):
    row = {"id": "c", "says": "s", "quote": "q", "source": "s", "metric": "m", "falsifier": "f", "scale": "any"}
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump({"claims": [row, row]}))
    with pytest.raises(ValueError, match="twice: \\['c'\\]"):
        claims.ledger(file)
    file.write_text(yaml.safe_dump({"claims": [{**row, "colour": "red"}]}))
    with pytest.raises(ValueError, match="colour"):
        claims.ledger(file)


def test_the_real_ledger_is_complete():
    ledger = claims.ledger()
    assert len(ledger) >= 15
    assert all(c.falsifier and c.quote and c.source and c.scale for c in ledger)
    assert all(c.finding or c.published for c in ledger), "a claim that is not run here shows what was published"


# figures


def test_figures_are_the_same_to_the_byte_and_carry_their_data_and_origin(run):
    data = pd.DataFrame({"x": [1, 2, 1, 2], "y": [1.0, 2.0, 2.0, 3.0], "g": ["a", "a", "b", "b"]})

    def draw() -> dict:
        figure = figures.plot_curves(data, "x", "y", "g", {"x": "x (tokens)", "y": "y (nats)"})
        figures.save_figure(run, figure, "f", data, "a caption")
        return {file.suffix: file.read_bytes() for file in (run.folder / "figures" / "00_test").iterdir()}

    first = draw()
    assert set(first) == {".png", ".pdf", ".csv", ".json"}
    assert draw() == first
    origin = json.loads(first[".json"])
    assert origin["caption"] == "a caption" and origin["parameters"] == {"sparsity": 0.5} and origin["core_source"]


def test_series_differ_in_colour_marker_and_dash():
    for column in zip(*figures.SERIES, strict=True):
        assert len(set(map(str, column))) == len(figures.SERIES)
    assert len(set(figures.VERDICT_MARKS.values())) == len(figures.VERDICT_COLOURS) == 4


def test_readme_keeps_its_text_around_the_table():
    before = f"head\n{publish.BEGIN}\nold\n{publish.END}\ntail"
    after = publish.with_table(before, "| new |")
    assert after == f"head\n{publish.BEGIN}\n| new |\n{publish.END}\ntail"
    assert publish.with_table(after, "| new |") == after
    with pytest.raises(ValueError, match="markers"):
        publish.with_table("no markers", "t")
