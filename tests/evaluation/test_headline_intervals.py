"""Headline intervals of the published run, computed anew from its records by numpy and scipy alone.

Each function below can be pasted into a Python session. None shares code with the library, which must agree.
"""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from naive_interval import two_way_t_interval
from scipy import stats

pytestmark = pytest.mark.slow

FIGURES = Path(__file__).parents[2] / "figures"
FIELDS = ("criterion", "inputs", "propagation", "exclude", "noise", "noise_levels", "norm_reduction")
RECIPES = {  # values of FIELDS, and calibration tokens
    "none": ("wanda", "noised", "dense", "none", "grid", 8, "root", 131072),
    "unstable": ("wanda", "noised", "dense", "unstable", "grid", 8, "root", 131072),
    "official": ("wanda", "noised", "dense", "official", "official", 10, "sum", 130560),
    "Wanda": ("wanda", "clean", "sequential", "none", "grid", 8, "root", 131072),
    "Wanda, fewer tokens": ("wanda", "clean", "sequential", "none", "grid", 8, "root", 16384),
    "SparseGPT": ("sparsegpt", "clean", "sequential", "none", "grid", 8, "root", 16384),
    "official SparseGPT": ("sparsegpt", "clean", "sequential", "official", "official", 10, "root", 16384),
}
UNDER_THE_PROTOCOL = {  # the same on WikiText-2 alone, where every recipe sees as many tokens
    "none": ("wanda", "noised", "dense", "none", "grid", 8, "root", 16384),
    "unstable": ("wanda", "noised", "dense", "unstable", "grid", 8, "root", 16384),
    "official": ("wanda", "noised", "dense", "official", "official", 10, "sum", 15360),
    "Wanda": ("wanda", "clean", "sequential", "none", "grid", 8, "root", 16384),
    "SparseGPT": RECIPES["SparseGPT"],
    "official SparseGPT": RECIPES["official SparseGPT"],
}
PROTOCOL_DIFFERENCES = {  # in ten calibration draws
    "unstable_minus_none_wikitext": ("unstable", "none"),
    "paper_minus_wanda_wikitext": ("official", "Wanda"),
    "paper_sparsegpt_minus_sparsegpt_wikitext": ("official SparseGPT", "SparseGPT"),
    "sparsegpt_minus_wanda_wikitext": ("SparseGPT", "Wanda"),
}
DIFFERENCES = {  # of losses of the DLM, 50 % of the weights, ten calibration draws, by the finding's name
    "unstable_minus_none": ("unstable", "none"),
    "paper_minus_wanda": ("official", "Wanda"),
    "paper_sparsegpt_minus_sparsegpt": ("official SparseGPT", "SparseGPT"),
    "sparsegpt_minus_wanda": ("SparseGPT", "Wanda, fewer tokens"),
}


def published(notebook: str, name: str) -> tuple[float, float, float]:
    """Return value and ends of a published finding."""
    content = json.loads((FIGURES / "findings" / f"{notebook}.json").read_text(encoding="utf-8"))
    found = content["findings"][name]
    return found["value"], found["low"], found["high"]


def records(name: str) -> list[tuple[dict, list[dict[str, str]]]]:
    """Return what is known of every record of one name, and the rows of its table."""
    texts = {}
    with tarfile.open(FIGURES / "records-full.tar.xz") as archive:
        for member in archive:
            if Path(member.name).parent.name == name:
                texts[member.name] = archive.extractfile(member).read().decode()
    tables = sorted(file for file in texts if file.endswith(".csv"))
    rows = {file: list(csv.DictReader(io.StringIO(texts[file]))) for file in tables}
    return [(json.loads(texts[file[:-4] + ".json"]), rows[file]) for file in tables]


def by_draw_and_sequence(scores: list, wanted: tuple, kinds_of_text: int) -> np.ndarray:
    """Return the losses of a recipe at 50 %, a row per calibration draw, a column per sequence."""
    draws = {}

    for about, rows in scores:
        key = about["key"]
        recipe = key["recipe"]
        if not isinstance(recipe, dict) or key["model"] != "smol-dlm" or len(rows) != 264:
            continue

        values = (*(recipe[field] for field in FIELDS), int(rows[0]["calibration_tokens"]))
        even = recipe["sparsity"] == 0.5 and recipe["allocation"] == "uniform"
        if values != wanted or not even or recipe["pattern"] not in ("row", "layer"):
            continue

        if len({row["text"] for row in rows}) != kinds_of_text:
            continue

        losses = {int(row["sequence"]): float(row["value"]) for row in rows}
        is_grid = about["notebook"].startswith("03")  # notebook 05 scores other draws under the first noise
        if is_grid or key["evaluation_seed"] not in draws:
            draws[key["evaluation_seed"]] = [losses[sequence] for sequence in sorted(losses)]

    return np.array([draws[number] for number in sorted(draws)])


@pytest.fixture(scope="module")
def scores() -> list:
    return records("scores")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_headline_difference_of_pruning(name, scores):
    one_RN, other_RN = (by_draw_and_sequence(scores, RECIPES[recipe], 3) for recipe in DIFFERENCES[name])
    assert one_RN.shape == other_RN.shape == (10, 264)
    by_hand = two_way_t_interval(one_RN - other_RN)
    assert published("03_leaving_sinks_out", name) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("name", PROTOCOL_DIFFERENCES)
def test_a_difference_under_the_paper_s_protocol(name, scores):
    recipes = (UNDER_THE_PROTOCOL[recipe] for recipe in PROTOCOL_DIFFERENCES[name])
    one_RN, other_RN = (by_draw_and_sequence(scores, recipe, 1) for recipe in recipes)
    assert one_RN.shape == other_RN.shape == (10, 264)
    by_hand = two_way_t_interval(one_RN - other_RN)
    assert published("03_leaving_sinks_out", name) == pytest.approx(by_hand, rel=1e-9)


def test_the_headline_difference_of_hiding_in_the_middle_layers():
    rows = [(about["key"], row) for about, table in records("hiding") for row in table]
    data = {key["data"] for key, row in rows if row["layers"] == "middle"}

    losses = {}
    for key, row in rows:
        if key["data"] in data and row["keys"] == "top":
            place = (key["model"], row["layers"], int(row["count"]), row["label"])
            losses.setdefault(place, {})[key["data"], int(row["sequence"])] = float(row["value"])

    cost = {}
    for model in ("smol-dlm", "smol-ar-adapted"):
        hidden = losses[model, "middle", 5, "strongest"]
        whole = losses[model, "all", 0, "none"]
        cost[model] = np.array([hidden[unit] - whole[unit] for unit in sorted(hidden)])

    difference_N = cost["smol-dlm"] - cost["smol-ar-adapted"]
    by_hand = stats.ttest_1samp(difference_N, 0).confidence_interval(0.95)

    found = published("02_are_sinks_needed", "excess_difference_middle_layers")
    assert found == pytest.approx((difference_N.mean(), by_hand.low, by_hand.high), rel=1e-9)
    assert found[2] < 0, "the AR model loses more"
