"""More calibration text: the headline rows of pruning, calibrated on as much text as each profile takes.

    python -m sinkprune_companion.experiments.more_text full

measures them in one of WAYS and keeps findings and records. What is on record is read, so it goes on where
it was. Several processes share the draws, each with `--seeds`; the last call, without, keeps all.
"""

import argparse
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sinkprune_companion.experiments.headline_rows import NOTEBOOK, headline_scores, sizes_of
from sinkprune_companion.ledger import claims
from sinkprune_companion.run import record_archive
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import atomic, project_root, write_json
from sinkprune_core.models.weight_files import read_json


@dataclass(frozen=True)
class Way:
    """In which sizes the headline rows are measured, and under which noise."""

    profile: str  # whose sizes are taken
    one_noise: bool = False  # all calibration draws under one noise, whatever the profile says
    other_draws: int | None = None  # calibration draws at sparsities other than 50 %; None: the profile's

    @property
    def size(self) -> dict[str, object]:
        """The parameters of the notebook in which it is measured."""
        size = dict(sizes_of(self.profile)[NOTEBOOK])
        if self.one_noise:
            size["own_noise"] = False
        if self.other_draws is not None:
            size["other_draws"] = self.other_draws
        return size

    @property
    def own_noise(self) -> bool:
        """Whether every calibration draw has noise of its own; see `own_noise`."""
        return self.size["own_noise"]


WAYS = {  # from the least text under one noise; the name is that of the folder and of the archive of records
    "hour": Way("hour"),
    "full-one-noise": Way("full", one_noise=True, other_draws=2),
    "full": Way("full"),
}
MODEL = "smol-dlm"
SIZE = ("calibration", "noise_levels", "seeds", "sequences")  # parameters that are kept
ABOUT = "size.json"  # of a profile: SIZE
DAMAGE = "damage.csv"  # of a profile: what each recipe costs


@dataclass(frozen=True)
class Amount:
    """How much text a way calibrates on, and what was found so."""

    way: str  # of WAYS
    size: Mapping[str, int]  # SIZE
    found: Mapping[str, Estimate]  # by notebook/name
    damage: pd.DataFrame  # NELBO above the dense model's: recipe, value, low, high

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        sizes = f"{self.size['calibration']} sequences, {self.size['seeds']} draws"
        return f"{sizes}, own noise" if self.own_noise else sizes

    @property
    def own_noise(self) -> bool:
        """Whether every calibration draw has noise of its own."""
        return WAYS[self.way].own_noise


def kept_folder() -> Path:
    """Return where the findings lie, a folder per way."""
    return project_root() / "figures" / "more_text"


def amounts() -> list[Amount]:
    """Return all amounts of text that were measured, in the order of WAYS."""
    found = []
    for way in WAYS:
        folder = kept_folder() / way
        if (folder / ABOUT).exists():
            damage = pd.read_csv(folder / DAMAGE)
            found.append(Amount(way, read_json(folder / ABOUT), claims.findings(folder), damage))
    return found


def measure(way: str, seeds: Iterable[int] | None = None) -> Path:
    """Measure the headline rows in one of WAYS; return the folder of what is kept.

    With `seeds`, some calibration draws, only their records are made. Raises ValueError for another way.
    """
    from sinkprune_companion.experiments.pruning_findings import excess, likelihood_findings
    from sinkprune_companion.experiments.pruning_grid import SPARSITY
    from sinkprune_core.models.loading import load

    if way not in WAYS:
        raise ValueError(f"way={way!r} is not compared here; choose one of {', '.join(WAYS)}")
    size = WAYS[way].size
    if record_archive.archive_file(way).exists():
        record_archive.unpack(way)
    lm = load(MODEL, size["dtype"])
    run = Run(NOTEBOOK, f"{way}@headline", {name: size[name] for name in SIZE})
    target = kept_folder() / way
    if seeds is not None:
        headline_scores(run, lm, size, seeds)
        return target
    before = set(run.records.glob("*.csv"))
    scores = headline_scores(run, lm, size, range(size["seeds"]))
    run.find(likelihood_findings(scores, size["sparsities"]))
    if set(run.records.glob("*.csv")) - before or not record_archive.archive_file(way).exists():
        record_archive.pack(way)
    costs = excess(scores)
    return _keep(target, run, costs[costs.sparsity == SPARSITY])


def _keep(target: Path, run: Run, damage: pd.DataFrame) -> Path:
    """Put what was found where the project keeps it; return the folder."""
    (target / "findings").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.folder / "findings" / f"{NOTEBOOK}.json", target / "findings" / f"{NOTEBOOK}.json")
    write_json(target / ABOUT, run.parameters)
    with atomic(target / DAMAGE) as partial:
        damage[["recipe", "value", "low", "high"]].to_csv(partial, index=False)
    return target


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("way", help=f"one of {', '.join(WAYS)}")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these calibration draws, nothing kept")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    print(measure(given.way, given.seeds).relative_to(project_root()))
