"""The claims ledger, `data/claims.yml`, and the verdicts on it that findings give by `verdict_rule`."""

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sinkprune.evaluation import verdict_rule
from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion import DATA, margins
from sinkprune_companion.ledger import others

FILE = DATA / "claims.yml"
CLAIM = "claim"  # of the paper
CONDITION = "condition"  # a claim, asked under another condition: its answer counts for the claim's verdict
CONTROL = "control"  # of a claim
OTHERS = "others"  # measured by somebody else, never counted among ours
OWN = ("quote", "published", "seen_first", "read", "not_run")  # what rows beneath a row do not inherit


class Checked(BaseModel):
    """A part of a file: unknown fields, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Claim(Checked):
    """A row of the ledger. It says that a finding lies `side` of `against`."""

    id: str  # unique in the ledger
    kind: Literal["claim", "condition", "control", "question", "others"]
    says: str  # the claim in a sentence
    metric: str  # what is measured
    is_share: bool = False  # of a whole: a terminal shows it in per cent
    beneath: str | None = None  # id of the row whose control it is, or that it speaks about
    quote: str | None = None  # the paper's words
    published: str | None = None  # the paper's number
    # notebook/name; None where the claim needs a scale that is not run here
    finding: Annotated[str, Field(pattern="^[^/]+/[^/]+$")] | None = None
    side: Literal["above", "below"] = "below"
    against: float = 0.0
    family: str  # of rows whose p-values are corrected together
    looks: Annotated[int, Field(ge=1)] = 1  # how often its number could have decided
    # in units of the finding, or a rule that gives it
    margin: Annotated[float, Field(gt=0)] | Literal[margins.RULES] | None = None
    not_run: Literal["needs 8B", "no measure", "not trained"] | None = None  # why there may be none
    # of a sentence on the method: what its code was read to do, in place of a finding
    read: Literal["not what the code does"] | None = None
    seen_first: bool = False  # the row was written, or read anew, when its number had been seen
    speaks_for_paper: bool = True  # whether it would speak for the claim above a control if that were so

    @model_validator(mode="after")
    def _is_whole(self) -> "Claim":
        """Raise ValueError for a finding without what its verdict needs."""
        if self.finding is not None and self.margin is None:
            raise ValueError("margin is missing: a row with a finding needs it")
        if self.kind != CONTROL and not self.speaks_for_paper:
            raise ValueError(f"speaks_for_paper: false is for a control, and this row is a {self.kind}")
        return self

    @property
    def notebook(self) -> str:
        """The name of the notebook that decides the claim; empty where none does."""
        return "" if self.kind == OTHERS else (self.finding or "").partition("/")[0]

    def margin_of(self, estimate: Estimate | None) -> float | None:
        """Return the smallest difference that matters: the row's own, or what its rule gave the finding.

        It is None for a number that has been held against its margin already.
        """
        if self.margin == margins.IN_THE_BAR:
            return None
        return getattr(estimate, "margin", None) if isinstance(self.margin, str) else self.margin


class Ledger(Checked):
    """A ledger's file."""

    history: list[dict[str, datetime.date | str]] = []  # changes after results had been seen
    margins: dict[str, dict[str, float | str]] = {}  # smallest differences that matter
    conditions: dict[str, str] = {}  # name at the end of a finding -> its words
    claims: list[dict]


class _Findings(BaseModel):
    findings: dict[str, Estimate | None]  # beside them a file says where they come from


def _checked(check: Callable, values: object, where: str) -> object:
    """Return what `check` makes of `values`; raise ValueError, in one line, for what does not fit."""
    try:
        return check(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        field = ".".join(map(str, first["loc"]))
        raise ValueError(": ".join(filter(None, [where, field, message]))) from error


def read_ledger(file: Path = FILE) -> Ledger:
    """Return what a ledger's file holds; raise ValueError, in one line, for what is no ledger."""
    return _checked(Ledger.model_validate, yaml.safe_load(file.read_text(encoding="utf-8")), file.name)


def ledger(file: Path = FILE) -> list[Claim]:
    """Return the claims in order; raise ValueError for a row that is no `Claim`."""
    content = read_ledger(file)
    rows = [row for entry in content.claims for row in _rows(entry, {}, content)]
    return [_checked(Claim.model_validate, row, f"{file.name}, claim {row['id']!r}") for row in rows]


def _rows(entry: dict, inherited: Mapping[str, object], content: Ledger) -> Iterator[dict]:
    """Yield the rows that an entry of the ledger stands for: itself, and those beneath it."""
    fields = {**inherited, **entry}
    beneath = fields.pop("rows", [])
    conditions = fields.pop("conditions", [])
    if fields.get("margin") in content.margins:
        fields["margin"] = content.margins[fields["margin"]]["value"]

    for name in conditions:
        yield {
            **fields,
            "id": f"{fields['id']}-{name.replace('_', '-')}",
            "says": f"{fields['says']}: {content.conditions[name]}",
            "finding": f"{fields['finding']}_{name}",
        }

    passed_on = {name: value for name, value in fields.items() if "id" not in entry or name not in OWN}
    if "id" in entry or not beneath:
        if not conditions:
            yield fields
            passed_on["beneath"] = fields["id"]
        if fields["kind"] == CLAIM:
            passed_on |= {"kind": CONTROL, "family": f"{fields['family']}, controls"}

    for row in beneath:
        is_condition = row.get("kind") == CONDITION and "family" not in row
        family = {"family": f"{fields['id']}, conditions"} if is_condition else {}
        yield from _rows({**family, **row}, passed_on, content)


def controls_of(claim: Claim, ledger: Sequence[Claim]) -> list[Claim]:
    """Return conditions and controls beneath a claim, and beneath its controls, as the ledger has them."""
    above = {claim.id}
    controls = []
    for row in ledger:
        if row.kind in (CONDITION, CONTROL) and row.beneath in above:
            above.add(row.id)
            controls.append(row)
    return controls


def findings_file(folder: Path, notebook: str) -> Path:
    """Return where a run in `folder` keeps what a notebook found."""
    return folder / "findings" / f"{notebook}.json"


def findings(folder: Path) -> dict[str, Estimate]:
    """Return the findings below a folder, by `notebook/name`.

    Raises ValueError for a file that is none, or a value that is no estimate.
    """
    estimates = {}
    for file in sorted((folder / "findings").glob("*.json")):
        estimates |= findings_in(file)
    return estimates


def findings_in(file: Path) -> dict[str, Estimate]:
    """Return what one notebook found, by `notebook/name`; nothing where the file is missing.

    Raises ValueError for a file that is none, or a value that is no estimate.
    """
    if not file.exists():
        return {}
    check = partial(_Findings.model_validate_json, strict=True)
    named = _checked(check, file.read_bytes(), str(file)).findings
    return {f"{file.stem}/{name}": found for name, found in named.items() if found is not None}


def verdicts(claims: list[Claim], estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return the claims table; every p counts looks (Bonferroni) and a family's rows (Holm), run or not.

    The verdict on a claim of the paper takes the conditions beneath it into account; `alone` has the verdict
    on each row by itself.
    """
    known = {**others.findings(), **estimates}
    asked = [claim for claim in claims if claim.finding]

    p_values = {claim.id: _p_value(claim, known.get(claim.finding)) for claim in asked}
    p_matters = {claim.id: _p_of_a_difference(claim, known.get(claim.finding)) for claim in asked}
    corrected = _corrected(p_values, asked)
    corrected_matters = _corrected(p_matters, asked)

    rows = [
        _row(claim, known.get(claim.finding), corrected.get(claim.id), corrected_matters.get(claim.id))
        for claim in claims
    ]
    table = pd.DataFrame(rows).set_index("id")

    alone = table.alone.to_dict()
    for claim in claims:
        if claim.kind == CLAIM:
            conditions = [
                alone[row.id] for row in claims if row.kind == CONDITION and row.beneath == claim.id
            ]
            table.loc[claim.id, "verdict"] = verdict_rule.over_conditions([alone[claim.id], *conditions])

    return table


def _p_value(claim: Claim, estimate: Estimate | None) -> float:
    """Return the p-value of no difference of one row, which counts looks and not its family."""
    return 1.0 if estimate is None else claim.looks * estimate.p_value(claim.against)


def _p_of_a_difference(claim: Claim, estimate: Estimate | None) -> float:
    """Return the p-value of a difference that matters, which counts looks and not its family."""
    if estimate is None:
        return 1.0
    return claim.looks * estimate.p_of_a_difference(claim.margin_of(estimate), claim.against)


def _corrected(p_values: Mapping[str, float], claims: Sequence[Claim]) -> pd.Series:
    """Return p-values by the claim's id, corrected over each family (Holm)."""
    families = {claim.id: claim.family for claim in claims}
    return pd.Series(p_values, dtype=float).groupby(families).transform(verdict_rule.holm)


def _row(
    claim: Claim, estimate: Estimate | None, p: float | None, p_matters: float | None
) -> dict[str, object]:
    """Return a row of the claims table."""
    margin = claim.margin_of(estimate)
    outcome = verdict_rule.verdict(estimate, margin, claim.against, p, p_matters)
    alone = claim.read or verdict_rule.on_claim(outcome, claim.side)
    if claim.read:
        notes = []
    elif estimate is None:
        notes = [claim.not_run or "not yet run"]
    else:
        seen_first = "asked, or read anew, when its number had been seen" if claim.seen_first else ""
        notes = [verdict_rule.note(estimate, outcome, claim.against, margin), seen_first]

    return {
        "id": claim.id,
        "claim": claim.says,
        "kind": claim.kind,
        "beneath": claim.beneath or "",
        "family": claim.family,
        "metric": claim.metric,
        "is_share": claim.is_share,
        "published": claim.published or "",
        "here": f"{estimate.value:.3g}" if estimate else "",
        "interval": f"[{estimate.low:.3g}, {estimate.high:.3g}]" if estimate else "",
        "claimed": f"{claim.side} {claim.against:g}" if claim.finding else "",
        "verdict": alone,
        "alone": alone,
        "margin": margin,
        "p_holm": p if estimate else None,
        "p_matters_holm": p_matters if estimate else None,
        "draws": getattr(estimate, "draws", None),
        "half_width": getattr(estimate, "half_width", None),
        "smallest_effect": verdict_rule.smallest_effect(estimate) if estimate else None,
        "error_draws": getattr(estimate, "error_draws", None),
        "error_sequences": getattr(estimate, "error_sequences", None),
        "note": "; ".join(filter(None, notes)),
        "notebook": claim.notebook,
    }
