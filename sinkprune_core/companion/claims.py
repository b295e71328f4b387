"""The claims ledger: what the paper says, the rule that was written down before, and the verdict the records
give.

`data/claims.yml` states each claim; notebooks write findings (a number with its interval); nobody types a
verdict.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import PACKAGE

FILE = PACKAGE / "data" / "claims.yml"
REPRODUCED = "reproduced"
DIRECTION = "direction only"
REFUTED = "not reproduced"
NOT_RUN = "not run at this scale"
VERDICTS = (REPRODUCED, DIRECTION, REFUTED, NOT_RUN)
MARKS = {REPRODUCED: "✅", DIRECTION: "🔶", REFUTED: "❌", NOT_RUN: "▫️"}
SIDES = ("above", "below")
KINDS = ("claim", "control")
COLUMNS = ("claim", "kind", "metric", "published", "here", "interval", "claimed", "verdict", "notebook")


@dataclass(frozen=True)
class Claim:
    """A row of the ledger. It says that a finding lies `side` of `against`."""

    id: str  # unique in the ledger
    says: str  # the claim in a sentence
    quote: str  # the paper's words
    source: str  # where they stand
    metric: str  # what is measured
    falsifier: str  # what would refute the claim
    scale: str  # of model for which it is claimed
    kind: str = "claim"  # one of KINDS: the paper's claim, or a control of ours
    published: str | None = None  # the paper's number
    finding: str | None = None  # notebook/name; None where the claim needs a scale that is not run here
    side: str = "below"  # one of SIDES
    against: float = 0.0

    def __post_init__(self):
        if self.side not in SIDES:
            raise ValueError(f"claim {self.id}: side={self.side!r} is not one of {', '.join(SIDES)}")
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id}: kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if self.finding is not None and "/" not in self.finding:
            raise ValueError(f"claim {self.id}: finding={self.finding!r} must read notebook/name")

    @property
    def notebook(self) -> str:
        """The name of the notebook that decides the claim; empty where none does."""
        return (self.finding or "").split("/")[0]

    def verdict(self, found: Estimate | None) -> str:
        """Return the verdict: the whole interval on the claimed side, only the mean, or neither."""
        if found is None:
            return NOT_RUN
        sign = 1 if self.side == "above" else -1
        if min(sign * (found.low - self.against), sign * (found.high - self.against)) > 0:
            return REPRODUCED
        if sign * (found.value - self.against) > 0:
            return DIRECTION
        return REFUTED


def ledger(file: Path = FILE) -> list[Claim]:
    """Return the claims in order; raises ValueError for an unknown field or a doubled id."""
    claims = []
    for row in yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]:
        try:
            claims.append(Claim(**row))
        except TypeError as error:
            raise ValueError(f"{file.name}, claim {row.get('id')!r}: {error}") from error
    ids = [claim.id for claim in claims]
    doubled = {id for id in ids if ids.count(id) > 1}
    if doubled:
        raise ValueError(f"{file.name} names a claim twice: {sorted(doubled)}")
    return claims


def findings(folder: Path) -> dict[str, Estimate]:
    """Return every finding below `folder` (`runs/<profile>`), by `notebook/name`."""
    found = {}
    for file in sorted((folder / "findings").glob("*.json")):
        for name, values in json.loads(file.read_text(encoding="utf-8"))["findings"].items():
            if values is not None:
                values.pop("type", None)
                found[f"{file.stem}/{name}"] = Estimate(**values)
    return found


def verdicts(
    claims: Iterable[Claim], found: dict[str, Estimate], notebook: str | None = None
) -> pd.DataFrame:
    """Return the claims table; with `notebook`, the rows which that notebook decides."""
    rows = [
        _row(claim, found.get(claim.finding or ""))
        for claim in claims
        if notebook is None or claim.notebook == notebook
    ]
    return pd.DataFrame(rows, columns=["id", *COLUMNS]).set_index("id")


def _row(claim: Claim, estimate: Estimate | None) -> dict[str, str]:
    """Return a row of the claims table."""
    here = ""
    interval = ""
    if estimate:
        here = f"{estimate.value:.3g}"
        interval = f"[{estimate.low:.3g}, {estimate.high:.3g}]"
    return {
        "claim": claim.says,
        "kind": claim.kind,
        "metric": claim.metric,
        "published": claim.published or "",
        "here": here,
        "interval": interval,
        "claimed": f"{claim.side} {claim.against:g}" if claim.finding else "",
        "verdict": claim.verdict(estimate),
        "notebook": claim.notebook,
        "id": claim.id,
    }


def as_text(table: pd.DataFrame, width: int = 60) -> str:
    """Return the table for a terminal, claims cut to `width` characters."""
    lines = []
    for row in table.itertuples():
        says = row.claim if len(row.claim) <= width else row.claim[: width - 1] + "…"
        lines.append(f"  {row.verdict:<22} {says:<{width}} {row.here:>9} {row.interval}")
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame, root: str | None = "") -> str:
    """Return the table in Markdown for a page from which `root` leads to the project, with controls marked.

    Claim, verdict and number come first, so that they are what a narrow screen shows; an interval stays on
    one line. Without `root` (None) no row names its notebook.
    """
    lines = ["| claim | verdict | here (95 % interval) | measured | published |", "|---|---|---|---|---|"]
    for row in table.itertuples():
        says = row.claim if row.kind == "claim" else f"*control:* {row.claim}"
        interval = row.interval.replace(" ", "\N{NO-BREAK SPACE}")
        here = f"{row.here} {interval}" if row.here else "–"
        measured = row.metric
        if row.claimed:
            measured += f" (claimed: {row.claimed})"
        if row.notebook and root is not None:
            measured += f" [{row.notebook[:2]}]({root}notebooks/{row.notebook}.ipynb)"
        cells = [says, f"{MARKS[row.verdict]} {row.verdict}", here, measured, row.published or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(table: pd.DataFrame) -> object:
    """Return the table as a notebook shows it: Markdown, which wraps on a narrow screen, without links."""
    from IPython.display import Markdown

    return Markdown(as_markdown(table, None))


def counted(table: pd.DataFrame, what: str) -> str:
    """Return one sentence: how many of the rows of a table have which verdict."""
    counts = table.verdict.value_counts()
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    return f"Of {len(table)} {what}: {', '.join(parts)}."


def for_readme(table: pd.DataFrame) -> str:
    """Return the claims with their count in Markdown, and our own controls folded away below them."""
    claimed = table[table.kind == "claim"]
    controls = table[table.kind != "claim"]
    return "\n".join(
        [
            f"**{counted(claimed, 'claims of the paper')}**",
            "",
            as_markdown(claimed),
            "",
            "<details>",
            f"<summary>{counted(controls, 'controls of ours')}</summary>",
            "",
            as_markdown(controls),
            "",
            "</details>",
        ]
    )
