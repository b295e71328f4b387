"""What others measured: numbers as they stand in the file, and differences by hand."""

from dataclasses import replace

import pytest

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.verdict_rule import UNDECIDED
from sinkprune_companion import margins
from sinkprune_companion.ledger import claims, others

(RUN,) = others.runs()


def test_the_share_that_matters_is_half_of_what_the_paper_gives_back():
    share = margins.share_that_matters()
    assert share == pytest.approx(0.48 / 5.23 / 2)
    cost = Estimate(5.23, 0.1, 10.36, units=9, method="")
    assert margins.damage_margin(cost) == pytest.approx(0.24)
    assert margins.damage_margin(replace(cost, low=0.0)) is None, "a cost that is not told from zero"


def test_differences_by_hand():
    found = others.findings()
    assert len(found) == 6
    one = found["others/winogrande_sparsegpt_50"]
    reach = 1.959964 * (1.31**2 + 1.30**2) ** 0.5
    assert (one.value, one.low) == pytest.approx((67.72 - 68.90, 67.72 - 68.90 - reach))
    assert one.margin == pytest.approx((74.59 - 68.90) * 0.48 / 5.23 / 2)
    assert found["others/winogrande_wanda_25"].margin is None, "Wanda costs 0.08 there, give or take 3.4"


def test_rows_by_others_read_these_findings_and_bear_on_rows_of_the_ledger():
    ledger = claims.ledger()
    rows = [claim for claim in ledger if claim.kind == claims.OTHERS]
    assert {claim.finding for claim in rows} == set(others.findings())
    assert {claim.beneath for claim in rows} == {"llada-average"}
    table = claims.verdicts(ledger, {})
    assert set(table[table.kind == claims.OTHERS].verdict) == {UNDECIDED}
    assert set(table[table.kind != claims.OTHERS].here) == {""}, "nothing of theirs counts as ours"
    assert all(claim.notebook == "" for claim in rows)
