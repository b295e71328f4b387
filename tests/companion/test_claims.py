"""Verdicts follow their rule, change when the data do, and stand in one table."""

import pytest
import yaml

from sinkprune_core.companion import claims, publish, records
from sinkprune_core.companion.claims import DIRECTION, NOT_RUN, REFUTED, REPRODUCED, Claim
from sinkprune_core.companion.records import Run
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.files import PACKAGE


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    return Run("00_test", "p", {"sparsity": 0.5})


def claim(**fields) -> Claim:
    return Claim(
        **{
            "id": "c",
            "says": "s",
            "quote": "q",
            "source": "s",
            "metric": "m",
            "falsifier": "f",
            "scale": "any",
            "finding": "nb/x",
            **fields,
        }
    )


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
    assert claim(finding=None).verdict(None) == NOT_RUN
    assert claim().verdict(None) == NOT_RUN


def test_a_verdict_changes_when_the_data_do(run):
    ledger = [claim(finding="00_test/x")]
    run.find({"x": interval([-1.0, -1.1, -0.9]), "y": None})
    assert claims.verdicts(ledger, claims.findings(run.folder)).verdict.tolist() == [REPRODUCED]
    run.find({"x": interval([1.0, 1.1, 0.9])})
    table = claims.verdicts(ledger, claims.findings(run.folder), "00_test")
    assert table.verdict.tolist() == [REFUTED]
    assert claims.verdicts(ledger, claims.findings(run.folder), "01_other").empty
    assert "❌ not reproduced" in claims.as_markdown(table) and "not reproduced" in claims.as_text(table)


def test_a_notebook_shows_the_essentials_first_and_no_link_to_itself(run):
    run.find({"x": interval([1.0, 1.1, 0.9])})
    table = claims.verdicts([claim(finding="00_test/x", metric="how far")], claims.findings(run.folder))
    heading, _, row = claims.shown(table).data.splitlines()
    assert heading == "| claim | verdict | here (95 % interval) | measured | published |"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "❌ not reproduced" and cells[2].startswith("1 [") and cells[2].count(" ") == 1, (
        "an interval does not break"
    )
    assert cells[3] == "how far (claimed: below 0)"
    assert "(notebooks/00_test.ipynb)" in claims.as_markdown(
        table
    ) and "(../notebooks/00_test.ipynb)" in claims.as_markdown(table, "../")


def test_the_readme_counts_verdicts_and_shows_every_row_once(run):
    ledger = [
        claim(finding="00_test/x"),
        claim(id="b", says="B", finding="00_test/y"),
        claim(id="c", says="C", kind="control", finding="00_test/x"),
        claim(id="d", says="D", finding=None),
    ]
    run.find({"x": interval([-1.0, -1.1, -0.9]), "y": interval([1.0, 1.1, 0.9])})
    text = claims.for_readme(claims.verdicts(ledger, claims.findings(run.folder)))
    assert "Of 3 claims of the paper: 1 reproduced, 1 not reproduced, 1 not run at this scale." in text
    assert "Of 1 controls of ours: 1 reproduced." in text
    assert text.index("| D |") < text.index("<details>") < text.index("*control:* C")
    assert [text.count(f" {row.says} |") for row in ledger] == [1, 1, 1, 1]
    (line,) = [line for line in text.splitlines() if line.startswith("| B |")]
    assert [cell.strip()[:3] for cell in line.split("|")[1:4]] == ["B", "❌ n", "1 ["], (
        "claim, verdict and number first: a narrow screen shows them"
    )
    assert "1 [0.9,\N{NO-BREAK SPACE}1.1]" in line, "an interval stays on one line"


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"side": "left"}, "side='left'"), ({"kind": "x"}, "kind='x'"), ({"finding": "x"}, "notebook/name")],
)
def test_a_claim_says_what_is_wrong_with_it(fields, message):
    with pytest.raises(ValueError, match=message):
        claim(**fields)


def test_the_ledger_refuses_unknown_fields_and_doubles(tmp_path):
    row = {
        "id": "c",
        "says": "s",
        "quote": "q",
        "source": "s",
        "metric": "m",
        "falsifier": "f",
        "scale": "any",
    }
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
    assert all(c.finding or c.published for c in ledger), (
        "a claim that is not run here shows what was published"
    )


def test_readme_keeps_its_text_around_the_table():
    before = f"head\n{publish.BEGIN}\nold\n{publish.END}\ntail"
    after = publish.with_table(before, "| new |")
    assert after == f"head\n{publish.BEGIN}\n| new |\n{publish.END}\ntail"
    assert publish.with_table(after, "| new |") == after
    with pytest.raises(ValueError, match="markers"):
        publish.with_table("no markers", "t")


def test_the_ledger_ships_with_the_package_and_is_found_from_anywhere(tmp_path, monkeypatch):
    """A notebook outside a clone gets its verdict."""
    monkeypatch.chdir(tmp_path)
    assert claims.FILE.is_relative_to(PACKAGE / "data") and claims.ledger()
