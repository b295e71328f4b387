"""What others measured at 8B with the official code: their numbers, and findings made of them.

Nothing in this module was measured here. Values are from the section `others` of `data/published.yml`.
"""

from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel, ConfigDict
from scipy import stats

from sinkprune_companion.ledger.margins import damage_margin, published_numbers
from sinkprune_core.evaluation.intervals import CONFIDENCE, Estimate

SOURCE = "others"  # what findings of this module begin with, in place of a notebook
SINK_AWARE = "sink-aware "  # before the name of the method that it is compared with
REACH = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
UNPAIRED = "from both standard errors, as if on different items: wider than a paired interval"


class Entry(BaseModel):
    """A part of the file, without fields that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Accuracy(Entry):
    """One accuracy that others measured, in percent, beside the paper's."""

    method: str = "dense"
    sparsity: float = 0.0
    accuracy: float
    error: float  # marginal standard error, in points
    paper: float  # the paper's number, as the same source quotes it
    second_hand: bool = False  # whether the paper's number was found nowhere else

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of a normal mean."""
        return self.accuracy - REACH * self.error, self.accuracy + REACH * self.error


class OtherRun(Entry):
    """A run of the official code by somebody else."""

    id: str
    title: str
    source: str
    address: str
    files: tuple[dict, ...]  # `path` and `commit` of each file the numbers are from
    setting: str
    items: int
    dense: Accuracy
    rows: tuple[Accuracy, ...]
    more_calibration: tuple[dict, ...] = ()  # how accuracy changed with more text, in points, paired by item

    def pairs(self) -> Iterator[tuple[Accuracy, Accuracy]]:
        """Yield every sink-aware row with the row that it is compared with."""
        by_place = {(row.sparsity, row.method): row for row in self.rows}
        for row in self.rows:
            if row.method.startswith(SINK_AWARE):
                yield row, by_place[row.sparsity, row.method.removeprefix(SINK_AWARE)]

    def difference(self, row: Accuracy, baseline: Accuracy) -> Estimate:
        """Return one accuracy less another, with the margin that the baseline's damage gives."""
        value = row.accuracy - baseline.accuracy
        reach = REACH * (row.error**2 + baseline.error**2) ** 0.5
        margin = damage_margin(self.dense.accuracy - baseline.accuracy)
        return Estimate(value, value - reach, value + reach, self.items, UNPAIRED, margin)


@cache
def runs() -> tuple[OtherRun, ...]:
    """Return every run by others that the file holds."""
    return tuple(OtherRun.model_validate(entry) for entry in published_numbers()["others"])


def findings() -> dict[str, Estimate]:
    """Return the findings of all runs by others, by `others/<run>_<method>_<percent>`, as the ledger does."""
    estimates = {}
    for run in runs():
        for row, baseline in run.pairs():
            name = f"{run.id}_{baseline.method.lower()}_{100 * baseline.sparsity:.0f}"
            estimates[f"{SOURCE}/{name}"] = run.difference(row, baseline)
    return estimates
