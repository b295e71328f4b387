"""Five headline intervals of the published run, computed anew from its records by numpy and scipy alone.

Each function below can be pasted into a Python session. They share no code with the library, whose intervals
of the same tables must agree.
"""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sinkprune_core.evaluation.intervals import crossed_interval, interval

ARCHIVE = Path(__file__).parents[2] / "figures" / "records-full.tar.xz"
DIFFERENCES = {  # of losses in notebook 03, 50 % of the weights, ten calibration draws
    "unstable sinks left out - none": ("unstable", "noised-dense"),
    "the official method - Wanda": ("paper", "wanda"),
    "SparseGPT with official sink weights - SparseGPT": ("paper-sparsegpt", "sparsegpt"),
    "SparseGPT - Wanda": ("sparsegpt", "wanda-unmatched"),
}


def records(folder: str, name: str) -> list[dict[str, str]]:
    """Return the rows of all tables of one name in one notebook's records."""
    rows = []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            path = Path(member.name)
            if path.parent.name == folder and path.name.startswith(f"{name}-") and path.suffix == ".csv":
                text = io.TextIOWrapper(archive.extractfile(member), encoding="utf-8")
                rows += csv.DictReader(text)
    return rows


def by_draw_and_sequence(rows: list[dict[str, str]], variant: str) -> np.ndarray:
    """Return the losses of a variant at 50 %, a row per calibration draw, a column per sequence."""
    losses = {}
    for row in rows:
        at_half = (row["pattern"], float(row["sparsity"]), row["model"]) == ("unstructured", 0.5, "smol-dlm")
        if row["variant"] == variant and at_half:
            losses[int(row["seed"]), int(row["sequence"])] = float(row["value"])
    draws = sorted({draw for draw, _ in losses})
    sequences = sorted({sequence for _, sequence in losses})
    return np.array([[losses[draw, sequence] for sequence in sequences] for draw in draws])


def two_way_t_interval(values_RN: np.ndarray) -> tuple[float, float, float]:
    """Return mean, low and high: random draws and sequences, Satterthwaite's degrees of freedom."""
    draws, sequences = values_RN.shape
    mean = values_RN.mean()
    by_draw = values_RN.mean(axis=1)
    by_sequence = values_RN.mean(axis=0)
    square_draws = sequences * ((by_draw - mean) ** 2).sum() / (draws - 1)
    square_sequences = draws * ((by_sequence - mean) ** 2).sum() / (sequences - 1)
    rest = values_RN - by_draw[:, None] - by_sequence[None, :] + mean
    square_rest = (rest**2).sum() / ((draws - 1) * (sequences - 1))
    variance = square_rest
    terms = []  # mean squares in the variance: factor x square, degrees of freedom
    factor_rest = 1
    for square, freedom in ((square_draws, draws - 1), (square_sequences, sequences - 1)):
        if square > square_rest:  # else the source adds nothing
            variance += square - square_rest
            terms.append((square, freedom))
            factor_rest -= 1
    terms.append((factor_rest * square_rest, (draws - 1) * (sequences - 1)))
    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    reach = stats.t.ppf(0.975, freedom) * (variance / values_RN.size) ** 0.5
    return mean, mean - reach, mean + reach


@pytest.fixture(scope="module")
def scores() -> list[dict[str, str]]:
    return records("03_pruning_results", "scores")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_headline_difference_of_pruning(name, scores):
    one, other = (by_draw_and_sequence(scores, variant) for variant in DIFFERENCES[name])
    assert one.shape == other.shape and len(one) >= 10
    estimate = crossed_interval(one - other)
    by_hand = two_way_t_interval(one - other)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(by_hand, rel=1e-9)


def test_the_headline_difference_of_hiding_in_the_middle_layers():
    rows = records("02_hiding_sinks", "hiding")
    (data,) = {row["data"] for row in rows if row["layers"] == "middle"}
    losses = {}
    for row in rows:
        if row["data"] == data and row["keys"] == "top":
            place = (row["model"], row["layers"], int(row["count"]), row["label"])
            losses.setdefault(place, {})[int(row["sequence"])] = float(row["value"])
    cost = {}
    for model in ("smol-dlm", "smol-ar-adapted"):
        hidden = losses[model, "middle", 5, "strongest"]
        whole = losses[model, "all", 0, "none"]
        cost[model] = np.array([hidden[sequence] - whole[sequence] for sequence in sorted(hidden)])
    difference_N = cost["smol-dlm"] - cost["smol-ar-adapted"]
    by_hand = stats.ttest_1samp(difference_N, 0).confidence_interval(0.95)
    estimate = interval(difference_N)
    assert (estimate.low, estimate.high) == pytest.approx((by_hand.low, by_hand.high), rel=1e-9)
    assert estimate.high < 0, "the AR model loses more"
