"""What a run has found, and what the ledger's claims come to by it."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sinkprune.evaluation import verdict_rule
from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion import project_root
from sinkprune_companion.experiments.kinds_of_text import finding_on
from sinkprune_companion.ledger import claims, draw_terms, others
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.templates import PresumedVerdictError
from sinkprune_companion.run.texts import DOMAINS


class RowByKind(NamedTuple):
    """A row of the ledger with its difference on every kind of text apart, as DOMAINS has them."""

    claim: Claim
    mean: Estimate  # over the kinds
    natural: Estimate
    samples: Estimate
    documentation: Estimate


@dataclass(frozen=True)
class Results:
    """The claims of the ledger, and the estimates of a run that decide them."""

    ledger: list[Claim]
    estimates: dict[str, Estimate]  # by notebook/name, as findings are kept; those of runs by others, too

    @cached_property
    def table(self) -> pd.DataFrame:
        """The claims table, by the claim's id."""
        return claims.verdicts(self.ledger, self.estimates)

    @cached_property
    def verdict(self) -> dict[str, str]:
        """Verdicts by the claim's id."""
        return self.table.verdict.to_dict()

    @cached_property
    def alone(self) -> dict[str, str]:
        """Verdicts by the claim's id, each without the conditions beneath it."""
        return self.table.alone.to_dict()

    def p_corrected(self, claim: str) -> float:
        """Return the p-value that a claim's verdict takes: looks and the family's rows are counted."""
        return float(self.table.p_holm[claim])

    @cached_property
    def estimate(self) -> dict[str, Estimate]:
        """Estimates by the id of the claim that they decide."""
        known = self.estimates
        return {claim.id: known[claim.finding] for claim in self.ledger if claim.finding in known}

    @cached_property
    def f(self) -> dict[str, Estimate]:
        """Estimates by the notebook's number and their name, e.g. `03/paper_minus_wanda`."""
        return {re.sub(r"^(\d\d)_\w+/", r"\1/", name): one for name, one in self.estimates.items()}

    @cached_property
    def _effects(self) -> dict[tuple[float, float, float], str]:
        """What the ledger says of differences of losses, by the value and the ends of the interval.

        Where several rows are about one number the first one counts, which stands above its controls.
        """
        known = {}
        for claim in self.ledger:
            estimate = self.estimate.get(claim.id)
            if estimate is not None and claim.against == 0:
                effect = verdict_rule.on_a_loss(self.alone[claim.id], claim.side)
                known.setdefault((estimate.value, estimate.low, estimate.high), effect)
        return known

    def on_losses(self, differences: Collection[Estimate]) -> list[str]:
        """Return HELPS, HURTS or another verdict on each difference of losses, as pictures show them.

        A difference that a row of the ledger is about, or its reverse, has that row's verdict. Of the others
        p is corrected over all that are given (Holm).
        """
        reverse = {verdict_rule.HELPS: verdict_rule.HURTS, verdict_rule.HURTS: verdict_rule.HELPS}
        effects = []

        for each, alone in zip(differences, verdict_rule.verdicts_on_losses(differences), strict=True):
            effect = self._effects.get((each.value, each.low, each.high))
            if effect is None:
                turned = self._effects.get((-each.value, -each.high, -each.low))
                effect = reverse.get(turned, turned)
            effects.append(effect or alone)

        return effects

    @cached_property
    def _with_draws_counted(self) -> dict[str, str]:
        """Verdicts by the claim's id where calibration draws that were seen to add nothing count in full."""
        widened = {name: draw_terms.counted(one) for name, one in self.estimates.items()}
        return claims.verdicts(self.ledger, widened).verdict.to_dict()

    def if_draws_counted(self, claim: str) -> str:
        """Return a claim's verdict if calibration draws that were seen to add nothing counted in full."""
        return self._with_draws_counted[claim]

    @cached_property
    def unseen_draws(self) -> list[Claim]:
        """Rows of the ledger whose calibration draws were seen to add nothing to the error."""
        return [claim for claim in self.ledger if draw_terms.is_unseen(self.estimate.get(claim.id))]

    @cached_property
    def unseen_sequences(self) -> list[Claim]:
        """Rows of the ledger whose scored sequences were seen to add nothing to the error."""
        rows = [(claim, self.estimate.get(claim.id)) for claim in self.ledger]
        return [claim for claim, found in rows if found is not None and found.error_sequences == 0]

    @cached_property
    def by_kind(self) -> list["RowByKind"]:
        """Rows of the ledger whose difference was found on every kind of text apart, a finding once."""
        rows = {}
        for claim in self.ledger:
            finding = claim.finding or ""
            apart = [self.estimates.get(finding_on(finding, kind)) for kind in DOMAINS]
            if finding in self.estimates and finding not in rows and None not in apart:
                rows[finding] = RowByKind(claim, self.estimates[finding], *apart)
        return list(rows.values())

    def controls_of(self, claim: Claim) -> list[Claim]:
        """Return the controls beneath a claim, and those beneath its controls, as the ledger has them."""
        return claims.controls_of(claim, self.ledger)

    def holds(self, claim: str, *presumed: str) -> str:
        """Return nothing; raise PresumedVerdictError unless a claim has one of the presumed verdicts."""
        present = self.verdict.get(claim, "no claim of the ledger")
        if present not in presumed:
            raise PresumedVerdictError(
                f"{claim!r} is presumed to be {' or '.join(presumed)} and is now {present}: "
                "write the sentence anew"
            )
        return ""


def results_of(folder: Path) -> Results:
    """Return the results of a run, of `runs/<profile>` or of `figures`, with what others measured."""
    return Results(claims.ledger(), others.findings() | claims.findings(folder))


def results_for(run: Run) -> Results:
    """Return what titles and tables of one notebook take: its own findings, as far as its run has them.

    In a published profile the published findings of all other notebooks stand beside them, which are declared
    inputs of its job. What this run has of other notebooks stays out: it would depend on which ran first.
    """
    known = others.findings()
    if run.profile in PUBLISHED:
        published_estimates = claims.findings(project_root() / "figures")
        prefix = f"{run.notebook}/"
        known |= {name: one for name, one in published_estimates.items() if not name.startswith(prefix)}

    known |= claims.findings_in(claims.findings_file(run.folder, run.notebook))
    return Results(claims.ledger(), known)
