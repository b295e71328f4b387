"""The claims ledger: what the paper says, the rule that was written down before, and the verdict the records give.

`notebooks/claims.yml` states each claim; notebooks write findings (a number with its interval); nobody types a verdict.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import project_root

REPRODUCED, DIRECTION, REFUTED, NOT_RUN = (
    "reproduced",
    "direction only",
    "not reproduced",
    "not run at this scale",
)
VERDICTS = (REPRODUCED, DIRECTION, REFUTED, NOT_RUN)
SIDES = ("above", "below")
KINDS = ("claim", "control")
COLUMNS = ("claim", "kind", "metric", "published", "here", "interval", "claimed", "verdict", "notebook")


@dataclass(frozen=True)
class Claim:
    """A row of the ledger.

    `finding` is `notebook/name`, or None where the claim needs a scale that is not run here. The claim says that the
    finding lies `side` of `against`.
    """

    id: str
    says: str
    quote: str
    source: str
    metric: str
    falsifier: str
    scale: str
    kind: str = "claim"
    published: str | None = None
    finding: str | None = None
    side: str = "below"
    against: float = 0.0
    unit: str = ""

    def __post_init__(self):
        if self.side not in SIDES:
            raise ValueError(f"claim {self.id}: side={self.side!r} is not one of {', '.join(SIDES)}")
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id}: kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if self.finding is not None and "/" not in self.finding:
            raise ValueError(f"claim {self.id}: finding={self.finding!r} must read notebook/name")

    def verdict(self, found: Estimate | None) -> str:
        """Return the verdict: the whole interval on the claimed side, only the mean, or neither."""
        if found is None:
            return NOT_RUN
        sign = 1 if self.side == "above" else -1
        if min(sign * (found.low - self.against), sign * (found.high - self.against)) > 0:
            return REPRODUCED
        return DIRECTION if sign * (found.value - self.against) > 0 else REFUTED


def ledger(file: Path | None = None) -> list[Claim]:
    """Return the claims in order; raises ValueError for an unknown field or a doubled id."""
    file = file or project_root() / "notebooks" / "claims.yml"
    claims = []
    for row in yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]:
        try:
            claims.append(Claim(**row))
        except TypeError as error:
            raise ValueError(f"{file.name}, claim {row.get('id')!r}: {error}") from error
    ids = [claim.id for claim in claims]
    if len(set(ids)) != len(ids):
        raise ValueError(
            f"{file.name} names a claim twice: {sorted({id for id in ids if ids.count(id) > 1})}"
        )
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


def verdicts(claims: list[Claim], found: dict[str, Estimate], notebook: str | None = None) -> pd.DataFrame:
    """Return the claims table; with `notebook`, the rows which that notebook decides."""
    rows = []
    for claim in claims:
        if notebook is not None and not (claim.finding or "").startswith(notebook + "/"):
            continue
        estimate = found.get(claim.finding or "")
        rows.append(
            {
                "claim": claim.says,
                "kind": claim.kind,
                "metric": claim.metric,
                "published": claim.published or "",
                "here": f"{estimate.value:.3g}" if estimate else "",
                "interval": f"[{estimate.low:.3g}, {estimate.high:.3g}]" if estimate else "",
                "claimed": f"{claim.side} {claim.against:g}" if claim.finding else "",
                "verdict": claim.verdict(estimate),
                "notebook": (claim.finding or "").split("/")[0],
                "id": claim.id,
            }
        )
    return pd.DataFrame(rows, columns=["id", *COLUMNS]).set_index("id")


def as_text(table: pd.DataFrame, width: int = 60) -> str:
    """Return the table for a terminal."""
    lines = []
    for row in table.itertuples():
        says = row.claim if len(row.claim) <= width else row.claim[: width - 1] + "…"
        lines.append(f"  {row.verdict:<22} {says:<{width}} {row.here:>9} {row.interval}")
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame, root: str | None = "") -> str:
    """Return the table in Markdown for a page from which `root` leads to the project: rows as they come, controls marked.

    Claim, verdict and number come first, so that they are what a narrow screen shows; an interval stays on one line.
    Without `root` (None) no row names its notebook.
    """
    mark = {REPRODUCED: "✅", DIRECTION: "🔶", REFUTED: "❌", NOT_RUN: "▫️"}
    lines = ["| claim | verdict | here (95 % interval) | measured | published |", "|---|---|---|---|---|"]
    for row in table.itertuples():
        side = f" (claimed: {row.claimed})" if row.claimed else ""
        where = (
            f" [{row.notebook[:2]}]({root}notebooks/{row.notebook}.ipynb)"
            if row.notebook and root is not None
            else ""
        )
        says = row.claim if row.kind == "claim" else f"*control:* {row.claim}"
        interval = row.interval.replace(" ", "\N{NO-BREAK SPACE}")
        here = f"{row.here} {interval}" if row.here else "–"
        lines.append(
            f"| {says} | {mark[row.verdict]} {row.verdict} | {here} | {row.metric}{side}{where} | {row.published or '–'} |"
        )
    return "\n".join(lines)


def shown(table: pd.DataFrame) -> object:
    """Return the table as a notebook shows it: Markdown, which wraps on a narrow screen, without links to the notebook that it stands in."""
    from IPython.display import Markdown

    return Markdown(as_markdown(table, None))


def counted(table: pd.DataFrame, what: str) -> str:
    """Return one sentence: how many of the rows of a table have which verdict."""
    counts = table.verdict.value_counts()
    return (
        f"Of {len(table)} {what}: "
        + ", ".join(
            f"{counts[verdict]} {verdict}"
            for verdict in (REPRODUCED, DIRECTION, REFUTED, NOT_RUN)
            if verdict in counts
        )
        + "."
    )


def for_readme(table: pd.DataFrame) -> str:
    """Return the claims with their count in Markdown, and our own controls folded away below them."""
    claimed, controls = table[table.kind == "claim"], table[table.kind != "claim"]
    folded = [
        "<details>",
        f"<summary>{counted(controls, 'controls of ours')}</summary>",
        "",
        as_markdown(controls),
        "",
        "</details>",
    ]
    return "\n".join(
        [f"**{counted(claimed, 'claims of the paper')}**", "", as_markdown(claimed), "", *folded]
    )
