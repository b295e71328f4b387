"""The page of promises: every promise names tests that exist, and the table holds every group of cases."""

import re
from pathlib import Path

import pytest
from hostile import fuzz_groups, report

ROOT = Path(__file__).resolve().parents[1]
TEXT = report.PAGE.read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", TEXT)))


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_the_test_of_a_promise_is_there(name, file):
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_promise_names_a_test():
    promises = [line for line in TEXT.splitlines() if re.match(r"\| [A-Z].*\.", line)]
    assert len(promises) >= 30
    assert all("[`test_" in line for line in promises)


def test_every_group_of_cases_is_in_the_table_and_none_broke():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.written(TEXT)[2:]]
    groups = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows}
    harness = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "hostile").glob("*.py"))
    for name, (cases, held, refused, broke) in groups.items():
        assert f'"{name}"' in harness, f"{name} is no group any more: take the row out"
        assert cases == held + refused and broke == 0, name
    assert set(fuzz_groups.GROUPS) <= set(groups)
