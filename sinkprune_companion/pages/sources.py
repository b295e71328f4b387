"""What pages are written from: results of a run, and tables that lie in the repository."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from sinkprune_companion import project_root
from sinkprune_companion.ledger import claims, others
from sinkprune_companion.ledger.claims import Claim
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import PACKAGE, write_json

LARGE = "large"  # the benchmark on a checkpoint of LLaDA-8B's size
ADAPTERS = {"diffusion": "smol-dlm", "autoregressive": "smol-ar-adapted"}  # of the published pair


@dataclass(frozen=True)
class Results:
    """The claims of the ledger, and the estimates of a run that decide them."""

    ledger: list[Claim]
    estimates: Mapping[str, Estimate]
    """By notebook/name, as findings are kept; those of runs by others are among them."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The claims table, by the claim's id."""
        return claims.verdicts(self.ledger, dict(self.estimates))

    @cached_property
    def verdict(self) -> dict[str, str]:
        """Verdicts by the claim's id."""
        return self.table.verdict.to_dict()

    @cached_property
    def estimate(self) -> dict[str, Estimate]:
        """Estimates by the id of the claim that they decide."""
        known = {claim.id: self.estimates.get(claim.finding or "") for claim in self.ledger}
        return {name: estimate for name, estimate in known.items() if estimate is not None}

    @cached_property
    def f(self) -> dict[str, Estimate]:
        """Estimates by the notebook's number and their name, e.g. `03/paper_minus_wanda`."""
        return {_short(name): estimate for name, estimate in self.estimates.items()}


def _short(name: str) -> str:
    """Return the name of a finding with its notebook's number alone."""
    notebook, _, finding = name.partition("/")
    return f"{notebook[:2]}/{finding}" if notebook[:2].isdigit() else name


def results_of(folder: Path) -> Results:
    """Return the results of a run, of `runs/<profile>` or of `figures`, with what others measured."""
    return Results(claims.ledger(), {**others.findings(), **claims.findings(folder)})


# what sinks do, beside the estimates


SMALL = 0.01  # squared positions: a smaller difference between two models is none


def prompt_counts() -> dict[str, int]:
    """Return in how many prompts of the main condition whose sinks move more: `dlm`, `ar`, `all`."""
    frame = pd.read_csv(project_root() / "figures" / "01_sink_variance" / "variability.csv")
    by_kind = frame.pivot(index="prompt", columns="kind", values="temporal_variance")
    difference = by_kind.diffusion - by_kind.autoregressive
    dlm, ar = (difference > SMALL).sum(), (difference < -SMALL).sum()
    return {"dlm": int(dlm), "ar": int(ar), "all": len(difference)}


def stable_shares() -> dict[str, dict[str, float]]:
    """Return the mean share of sinks at stable positions, by condition and kind of model."""
    frame = pd.read_csv(project_root() / "figures" / "01_sink_variance" / "conditions.csv")
    return frame.groupby(["condition", "kind"]).stable_share.mean().unstack().T.to_dict()


def filled_right(level: float) -> dict[str, float]:
    """Return the share of masked tokens that the DLM fills right, by kind of text, at a share of masks."""
    file = PACKAGE / "data" / "adapters" / ADAPTERS["diffusion"] / "measures.json"
    filling = json.loads(file.read_text(encoding="utf-8"))["filling"]
    return {
        text: row["dlm"]["correct"]["value"]
        for text, rows in filling.items()
        for row in rows
        if row["masked"] == level
    }


# other amounts of text, other trainings


def amounts_of_text() -> list[dict]:
    """Return every amount of calibration text that was compared: its `size` and its `f`, in order."""
    folder = project_root() / "figures" / "more_text"
    amounts = []
    for way in ("hour", "full-one-noise", "full"):
        size = json.loads((folder / way / "size.json").read_text(encoding="utf-8"))
        amounts.append({"way": way, "size": size, "f": results_of(folder / way).f})
    return amounts


def pairs() -> list[dict]:
    """Return the published pair and those of other trainings: `name`, `f`, `settings` and `logs` by kind."""
    figures = project_root() / "figures"
    folders = {kind: PACKAGE / "data" / "adapters" / name for kind, name in ADAPTERS.items()}
    about = {"settings": {}, "logs": {}}
    for kind, folder in folders.items():
        about["settings"][kind] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        last = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        about["logs"][kind] = json.loads(last)
    same_size = results_of(figures).f | results_of(figures / "more_text" / "hour").f
    found = [{"name": "published", "f": same_size, **about}]
    for file in sorted((figures / "trainings").glob("*/pair.json")):
        about = json.loads(file.read_text(encoding="utf-8"))
        found.append({"name": file.parent.name, "f": results_of(file.parent).f, **about})
    return found


# benchmarks


def _performance_file() -> Path:
    return project_root() / "docs" / "performance.json"


def performance() -> dict[str, dict]:
    """Return every benchmark, LARGE among them, by what was measured."""
    return json.loads(_performance_file().read_text(encoding="utf-8"))


def note_performance(what: str, entry: dict) -> None:
    """Put one measurement into docs/performance.json, in the place of an older one of the same name."""
    write_json(_performance_file(), {**performance(), what: entry})


def precision() -> list[dict]:
    """Return what other dtypes change, a row per model and dtype."""
    return pd.read_csv(project_root() / "docs" / "precision.csv").to_dict("records")
