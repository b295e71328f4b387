"""Entries of files: what does not fit is one sentence."""

import json
from dataclasses import dataclass

import pytest

from sinkprune_companion.ledger.claims import findings, ledger
from sinkprune_companion.ledger.entries import checked


@dataclass(frozen=True)
class Row:
    name: str
    share: float = 0.5
    count: int | None = None

    def __post_init__(self):
        if self.share > 1:
            raise ValueError(f"share={self.share} must not exceed 1")


def test_what_fits_becomes_a_row():
    assert checked(Row, {"name": "a", "share": 1, "count": 3}, "row") == Row("a", 1.0, 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (3, "row is 3: it must be a mapping of name, share, count"),
        ({}, "row: name is missing"),
        ({"name": "a", "nmae": "b"}, "row: nmae is unknown; it may have name, share, count"),
        ({"name": 3}, "row: name=3: Input should be a valid string"),
        ({"name": "a", "share": "no"}, "row: share='no': Input should be a valid number"),
        ({"name": "a", "count": 1.5}, "row: count=1.5: "),
        ({"name": "a", "share": 2}, "row: share=2 must not exceed 1"),
        ({"name": "a", "share": float("nan")}, "row: share=nan must be a finite number"),
    ],
)
def test_what_does_not_fit_is_named(values, said):
    with pytest.raises(ValueError, match="row") as caught:
        checked(Row, values, "row")
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[", "claims: 3", "claims: [3]", "claims: [{id: 3}]", "claims", "- 1", "claims: {a: 1}", "\x00"],
)
def test_a_broken_ledger_is_a_sentence(tmp_path, text):
    file = tmp_path / "claims.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"claims\.yml") as caught:
        ledger(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"findings": 3}', '{"findings": {"a": 3}}', '{"findings": {"a": {"value": 1}}}', "{}"],
)
def test_a_broken_finding_is_a_sentence(tmp_path, content):
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "01.json").write_text(content)
    with pytest.raises(ValueError, match=r"01\.json") as caught:
        findings(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_sound_finding_is_read(tmp_path):
    value = {"value": 0.5, "low": 0, "high": 1, "units": 8, "method": "bootstrap"}
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "01.json").write_text(json.dumps({"findings": {"a": value, "b": None}}))
    assert list(findings(tmp_path)) == ["01/a"]
