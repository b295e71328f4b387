"""The claims ledger: what the paper says, what was written down before, and the verdicts that findings give.

`data/claims.yml` states each claim; notebooks write findings (a number with its interval); nobody types a
verdict. The rule is `verdict_rule`, the tables for readers are `tables`.
"""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sinkprune_companion import DATA
from sinkprune_companion.ledger import margins, others, verdict_rule
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.models.weight_files import read_json

FILE = DATA / "claims.yml"
ESTIMATE = TypeAdapter(Estimate)
CLAIM = "claim"  # of the paper
CONTROL = "control"  # of a claim
OTHERS = "others"  # measured by somebody else, never counted among ours
SEEN_FIRST = "row added after its number had been seen"
NOT_MEASURED = "not part of this run"
OWN = ("rows", "conditions", "quote", "published", "seen_first")  # what rows beneath a row do not inherit


class Checked(BaseModel):
    """A part of a file: unknown fields, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Claim(Checked):
    """A row of the ledger. It says that a finding lies `side` of `against`."""

    id: str  # unique in the ledger
    kind: Literal["claim", "control", "question", "others"]
    says: str  # the claim in a sentence
    metric: str  # what is measured
    beneath: str | None = None  # id of the row whose control it is, or that it speaks about
    quote: str | None = None  # the paper's words
    published: str | None = None  # the paper's number
    finding: Annotated[str, Field(pattern="^[^/]+/[^/]+$")] | None = (
        None  # notebook/name; None where the claim needs a scale that is not run here
    )
    side: Literal["above", "below"] = "below"
    against: float = 0.0
    family: str  # of rows whose p-values are corrected together
    margin: Annotated[float, Field(gt=0)] | Literal[margins.RULES] | None = (
        None  # in units of the finding, or a rule that gives it
    )
    not_run: Literal["needs 8B", "left out for time", "not yet run"] | None = None  # why there may be none
    seen_first: bool = False  # its number had been seen before the row was written

    @model_validator(mode="after")
    def _is_whole(self) -> "Claim":
        """Raise ValueError for a finding without what its verdict needs."""
        if self.finding is not None and self.margin is None:
            raise ValueError("margin is missing: a row with a finding needs it")
        return self

    @property
    def notebook(self) -> str:
        """The name of the notebook that decides the claim; empty where none does."""
        if self.finding is None or self.kind == OTHERS:
            return ""
        return self.finding.split("/")[0]

    def margin_of(self, estimate: Estimate | None) -> float | None:
        """Return the margin as a number: the ledger's, or that which its rule gave the finding."""
        if isinstance(self.margin, str):
            return estimate.margin if estimate else None
        return self.margin


class _File(Checked):
    """A ledger's file."""

    history: list[dict[str, datetime.date | str]] = []  # changes after results had been seen
    margins: dict[str, dict[str, float | str]] = {}  # smallest differences that matter
    conditions: dict[str, str] = {}  # name at the end of a finding -> its words
    claims: list[dict]


# reading


def _checked(check: Callable[[object], object], values: object, where: str) -> object:
    """Return what `check` makes of `values`; raise ValueError, in one line, for what does not fit."""
    try:
        return check(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise ValueError(f"{where}: {field + ': ' if field else ''}{message}") from error


def _content(file: Path) -> _File:
    """Return what a ledger's file holds; raise ValueError, in one line, for what is no ledger."""
    return _checked(_File.model_validate, yaml.safe_load(file.read_text(encoding="utf-8")), file.name)


def ledger(file: Path = FILE) -> list[Claim]:
    """Return the claims in order; raise ValueError for a row that is no `Claim`."""
    content = _content(file)
    rows = [row for entry in content.claims for row in _rows(entry, {}, content)]
    return [_checked(Claim.model_validate, row, f"{file.name}, claim {row['id']!r}") for row in rows]


def _rows(entry: dict, inherited: Mapping[str, object], content: _File) -> Iterator[dict]:
    """Yield the rows that an entry of the ledger stands for: itself, and those beneath it."""
    fields = {**inherited, **entry}
    beneath = fields.pop("rows", [])
    conditions = fields.pop("conditions", [])
    if fields.get("margin") in content.margins:
        fields["margin"] = content.margins[fields["margin"]]["value"]
    is_row = "id" in entry or not beneath
    if conditions:
        for name in conditions:
            yield {
                **fields,
                "id": f"{fields['id']}-{name.replace('_', '-')}",
                "says": f"{fields['says']}: {content.conditions[name]}",
                "finding": f"{fields['finding']}_{name}",
            }
    elif is_row:
        yield fields
    passed_on = {name: value for name, value in fields.items() if name not in OWN}
    if is_row:
        passed_on["beneath"] = fields["id"]
    if is_row and fields["kind"] == CLAIM:
        passed_on |= {"kind": CONTROL, "family": f"{fields['family']}, controls"}
    for row in beneath:
        yield from _rows(row, passed_on, content)


def history(file: Path = FILE) -> list[dict]:
    """Return what was changed after results had been seen, in order.

    Raises ValueError for an unknown field.
    """
    return _content(file).history


def findings(folder: Path) -> dict[str, Estimate]:
    """Return every finding below `folder` (`runs/<profile>`), by `notebook/name`.

    Raises ValueError for a file that holds none, and for a value that is no estimate.
    """
    estimates = {}
    for file in sorted((folder / "findings").glob("*.json")):
        named = read_json(file).get("findings")
        if not isinstance(named, dict):
            raise ValueError(f"{file} has findings={named!r:.60}: it must be an object of findings by name")
        for name, values in named.items():
            if values is not None:
                check = partial(ESTIMATE.validate_json, strict=True)
                where = f"{file}, finding {name!r}"
                estimates[f"{file.stem}/{name}"] = _checked(check, json.dumps(values), where)
    return estimates


# verdicts


def verdicts(claims: Iterable[Claim], estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return the claims table.

    p-values are corrected over the whole family (Holm), of which rows without a finding count as 1: the
    correction does not depend on which notebooks ran.
    """
    claims = list(claims)
    known = {**others.findings(), **estimates}
    decided = {claim.id: known[claim.finding] for claim in claims if claim.finding in known}
    p_values = {claim.id: decided[claim.id].p_value(claim.against) for claim in claims if claim.id in decided}
    asked = pd.DataFrame(
        [(claim.id, claim.family, p_values.get(claim.id, 1.0)) for claim in claims if claim.finding],
        columns=["id", "family", "p"],
    ).set_index("id")
    corrected = asked.groupby("family").p.transform(lambda p: verdict_rule.holm(p.tolist()))
    rows = [
        _row(claim, decided.get(claim.id), float(corrected[claim.id]) if claim.id in decided else None)
        for claim in claims
    ]
    return pd.DataFrame(rows).set_index("id")


def _row(claim: Claim, estimate: Estimate | None, p: float | None) -> dict[str, object]:
    """Return a row of the claims table."""
    margin = claim.margin_of(estimate)
    outcome = verdict_rule.verdict(estimate, margin, claim.against, p)
    notes = [verdict_rule.note(estimate, outcome, claim.against, margin)]
    if outcome == verdict_rule.NOT_RUN:
        notes = [claim.not_run or NOT_MEASURED]
    if claim.seen_first and estimate is not None:
        notes.append(SEEN_FIRST)
    here, interval, effect = "", "", None
    if estimate is not None:
        here = f"{estimate.value:.3g}"
        interval = f"[{estimate.low:.3g}, {estimate.high:.3g}]"
        effect = verdict_rule.smallest_effect(estimate)
    return {
        "id": claim.id,
        "claim": claim.says,
        "kind": claim.kind,
        "beneath": claim.beneath or "",
        "family": claim.family,
        "metric": claim.metric,
        "published": claim.published or "",
        "here": here,
        "interval": interval,
        "claimed": f"{claim.side} {claim.against:g}" if claim.finding else "",
        "verdict": verdict_rule.on_claim(outcome, claim.side),
        "margin": margin,
        "p_holm": p,
        "draws": getattr(estimate, "draws", None),
        "half_width": getattr(estimate, "half_width", None),
        "smallest_effect": effect,
        "error_draws": getattr(estimate, "error_draws", None),
        "error_sequences": getattr(estimate, "error_sequences", None),
        "note": "; ".join(part for part in notes if part),
        "notebook": claim.notebook,
    }
