"""The claims ledger: what the paper says, what was written down before, and the verdicts that findings give.

`data/claims.yml` states each claim; notebooks write findings (a number with its interval); nobody types a
verdict. The rule is `verdict_rule`, the tables for readers are `tables`.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sinkprune_companion import DATA
from sinkprune_companion.ledger import margins, others, tables, verdict_rule
from sinkprune_companion.ledger.entries import checked, read_yaml
from sinkprune_core.evaluation.intervals import CONFIDENCE, Estimate
from sinkprune_core.evaluation.significance import holm
from sinkprune_core.models.weight_files import read_json

FILE = DATA / "claims.yml"
CLAIM = "claim"  # of the paper
CONTROL = "control"  # of ours
OTHERS = "others"  # measured by somebody else, never counted among ours
KINDS = (CLAIM, CONTROL, OTHERS)
PARTS = ("history", "claims")  # of the file
SEEN_FIRST = "row added after its number had been seen"
NOT_CORRECTED = "not after correction for its family"
FEW_DRAWS = {  # calibration draws -> note
    1: "one calibration draw, whose chance is not in the interval",
    2: "two calibration draws, of whose chance the interval holds little",
}


@dataclass(frozen=True)
class Claim:
    """A row of the ledger. It says that a finding lies `side` of `against`.

    Raises ValueError for a value that is not allowed, and for a finding without a family or a margin.
    """

    id: str  # unique in the ledger
    says: str  # the claim in a sentence
    quote: str  # the paper's words
    source: str  # where they stand
    metric: str  # what is measured
    falsifier: str  # what would refute the claim
    scale: str  # of model for which it is claimed
    kind: str = CLAIM  # one of KINDS
    published: str | None = None  # the paper's number
    finding: str | None = None  # notebook/name; None where the claim needs a scale that is not run here
    side: str = "below"  # one of verdict_rule.SIDES
    against: float = 0.0
    family: str | None = None  # of rows whose p-values are corrected together
    margin: float | str | None = None  # in units of the finding, or one of margins.RULES
    margin_reason: str | None = None  # of a margin that is a number
    bears_on: str | None = None  # id of the row that a measurement by others speaks about
    first_verdict: str | None = None  # what the rule says of the first results
    seen_first: bool = False  # its number had been seen before the row was written; such a row says so
    turned: str | None = None  # why the measure was wrong, shown where the verdict is another one now
    short: str | None = None  # the claim in few words; rows that have it stand in README's table
    unit: str | None = None  # of the finding, beside its number there
    control: str | None = None  # id of the row that stands beneath it there

    def __post_init__(self):
        self._check_choice("side", verdict_rule.SIDES)
        self._check_choice("kind", KINDS)
        if self.first_verdict is not None:
            self._check_choice("first_verdict", verdict_rule.VERDICTS)
        elif self.turned:
            raise ValueError(f"claim {self.id}: turned needs first_verdict, the verdict that it was")
        if self.short and not self.unit:
            raise ValueError(f"claim {self.id}: unit is missing: name that of the number beside short")
        if self.control and not self.short:
            raise ValueError(f"claim {self.id}: short is missing: control stands beneath it in README")
        if self.finding is None:
            return
        if "/" not in self.finding:
            raise ValueError(f"claim {self.id}: finding={self.finding!r} must read notebook/name")
        if not self.family:
            raise ValueError(f"claim {self.id}: family is missing: name the rows that are read together")
        self._check_margin()
        if (self.kind == OTHERS) != (self.finding.split("/")[0] == others.SOURCE):
            raise ValueError(
                f"claim {self.id}: kind={self.kind!r} does not fit finding={self.finding!r}; "
                f"kind {OTHERS} goes with findings {others.SOURCE}/…"
            )
        if self.kind == OTHERS and not self.bears_on:
            raise ValueError(f"claim {self.id}: bears_on is missing: name the row that it speaks about")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(f"claim {self.id}: {name}={value!r} is not one of {', '.join(allowed)}")

    def _check_margin(self) -> None:
        """Raise ValueError for a margin that is neither a rule nor a positive number with its reason."""
        if self.margin is None:
            raise ValueError(
                f"claim {self.id}: margin is missing: give a number with margin_reason, or one of "
                f"{', '.join(margins.RULES)}"
            )
        if isinstance(self.margin, str):
            self._check_choice("margin", margins.RULES)
        elif not self.margin > 0:
            raise ValueError(f"claim {self.id}: margin={self.margin} must be positive")
        elif not self.margin_reason:
            raise ValueError(f"claim {self.id}: margin={self.margin} needs a margin_reason")

    @property
    def notebook(self) -> str:
        """The name of the notebook that decides the claim; empty where none does."""
        if self.finding is None or self.kind == OTHERS:
            return ""
        return self.finding.split("/")[0]

    def margin_of(self, found: Estimate | None) -> float | None:
        """Return the margin as a number: the ledger's, or that which its rule gave the finding."""
        if isinstance(self.margin, str):
            return found.margin if found else None
        return self.margin

    def verdict(self, found: Estimate | None) -> str:
        """Return one of `verdict_rule.VERDICTS`."""
        return verdict_rule.verdict(found, self.side, self.against, self.margin_of(found))


@dataclass(frozen=True)
class LedgerChange:
    """A change of the ledger after results had been seen."""

    date: datetime.date
    changed: str
    why: str
    seen: str  # what was known of the results by then


def _parts(file: Path) -> dict[str, list]:
    """Return the parts of a ledger's file; raises ValueError for an unknown one."""
    parts = read_yaml(file)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(
            f"{file.name} has unknown parts {', '.join(unknown)}; it may have {', '.join(PARTS)}"
        )
    for name in ("claims", *parts):
        if not isinstance(parts.get(name), list):
            raise ValueError(f"{file.name} has {name}={parts.get(name)!r:.60}: it must be a list")
    return parts


def ledger(file: Path = FILE) -> list[Claim]:
    """Return the claims in order.

    Raises ValueError for an unknown field, a doubled id, and a row that bears on none.
    """
    claims = []
    for row in _parts(file)["claims"]:
        name = row.get("id") if isinstance(row, dict) else None
        claims.append(checked(Claim, row, f"{file.name}, claim {name!r}"))
    ids = [claim.id for claim in claims]
    doubled = {id for id in ids if ids.count(id) > 1}
    if doubled:
        raise ValueError(f"{file.name} names a claim twice: {sorted(doubled)}")
    short = {claim.id for claim in claims if claim.short}
    for claim in claims:
        if claim.bears_on and claim.bears_on not in ids:
            raise ValueError(f"{file.name}, claim {claim.id}: bears_on={claim.bears_on!r} is no row")
        if claim.control and claim.control not in short:
            raise ValueError(
                f"{file.name}, claim {claim.id}: control={claim.control!r} is no row with a short text"
            )
    return claims


def history(file: Path = FILE) -> list[LedgerChange]:
    """Return what was changed after results had been seen, in order.

    Raises ValueError for an unknown field.
    """
    entries = _parts(file).get("history", [])
    return [
        checked(LedgerChange, entry, f"{file.name}, change {number}")
        for number, entry in enumerate(entries, 1)
    ]


def findings(folder: Path) -> dict[str, Estimate]:
    """Return every finding below `folder` (`runs/<profile>`), by `notebook/name`."""
    found = {}
    for file in sorted((folder / "findings").glob("*.json")):
        named = read_json(file).get("findings")
        if not isinstance(named, dict):
            raise ValueError(f"{file} has findings={named!r:.60}: it must be an object of findings by name")
        for name, values in named.items():
            if values is None:
                continue
            if isinstance(values, dict):
                values.pop("type", None)
            found[f"{file.stem}/{name}"] = checked(Estimate, values, f"{file}, finding {name!r}")
    return found


def verdicts(
    claims: Iterable[Claim], found: dict[str, Estimate], notebook: str | None = None
) -> pd.DataFrame:
    """Return the claims table; with `notebook`, the rows which that notebook decides.

    p-values are corrected over the whole family (Holm), of which rows without a finding count as 1: the
    correction does not depend on which notebooks ran.
    """
    claims = list(claims)
    known = {**others.findings(), **found}
    corrected = corrected_p_values(claims, known)
    rows = [
        _row(claim, known.get(claim.finding or ""), corrected.get(claim.id))
        for claim in claims
        if notebook is None or claim.notebook == notebook
    ]
    return pd.DataFrame(rows, columns=tables.COLUMNS).set_index("id")


def corrected_p_values(claims: Iterable[Claim], found: dict[str, Estimate]) -> dict[str, float]:
    """Return the p-values of rows that have a finding, by id, corrected over their family (Holm)."""
    families: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.finding:
            families.setdefault(claim.family, []).append(claim)
    corrected = {}
    for members in families.values():
        p_values = []
        for claim in members:
            estimate = found.get(claim.finding)
            p_values.append(1.0 if estimate is None else verdict_rule.p_value(estimate, claim.against))
        for claim, p in zip(members, holm(p_values), strict=True):
            if claim.finding in found:
                corrected[claim.id] = float(p)
    return corrected


def _row(claim: Claim, estimate: Estimate | None, p: float | None) -> dict[str, object]:
    """Return a row of the claims table."""
    row = {
        "id": claim.id,
        "claim": claim.says,
        "kind": claim.kind,
        "family": claim.family or "",
        "metric": claim.metric,
        "published": claim.published or "",
        "here": "",
        "interval": "",
        "claimed": f"{claim.side} {claim.against:g}" if claim.finding else "",
        "verdict": claim.verdict(estimate),
        "margin": claim.margin_of(estimate),
        "p_holm": p,
        "half_width": None,
        "smallest_effect": None,
        "error_draws": None,
        "error_sequences": None,
        "note": "",
        "first_verdict": claim.first_verdict or "",
        "turned": "",
        "notebook": claim.notebook,
    }
    if estimate is not None:
        row |= {
            "here": f"{estimate.value:.3g}",
            "interval": f"[{estimate.low:.3g}, {estimate.high:.3g}]",
            "half_width": estimate.half_width,
            "smallest_effect": verdict_rule.smallest_effect(estimate),
            "error_draws": estimate.error_draws,
            "error_sequences": estimate.error_sequences,
            "note": _note(claim, estimate, p),
            "turned": claim.turned if claim.turned and row["verdict"] != claim.first_verdict else "",
        }
    return row


def _note(claim: Claim, estimate: Estimate, p: float) -> str:
    """Return what must be said beside a row's verdict."""
    notes = [verdict_rule.note(estimate, claim.side, claim.against, claim.margin_of(estimate))]
    given = claim.verdict(estimate)
    if given in (verdict_rule.REPRODUCED, verdict_rule.CONTRADICTED) and p >= 1 - CONFIDENCE:
        notes.append(NOT_CORRECTED)
    if estimate.draws in FEW_DRAWS:
        notes.append(FEW_DRAWS[estimate.draws])
    if claim.seen_first:
        notes.append(SEEN_FIRST)
    return "; ".join(part for part in notes if part)


def without_row(claims: Iterable[Claim], found: dict[str, Estimate]) -> list[str]:
    """Return the findings whose interval leaves zero out and that no row of the ledger reads."""
    read = {claim.finding for claim in claims}
    clear = [name for name, estimate in found.items() if estimate.low > 0 or estimate.high < 0]
    return [name for name in clear if name not in read]


def shown(table: pd.DataFrame) -> object:
    """Return the table as a notebook shows it: Markdown, which wraps on a narrow screen, without links."""
    from IPython.display import Markdown

    return Markdown(tables.as_markdown(table))
