"""What every measuring function gives on a tiny model, kept with its revision.

A record is known by the name and the revision of the function that measured it, not by the code. Where
numbers move here, records on disk are no longer what the function gives: raise its revision, then write the
numbers anew with `SINKPRUNE_GOLDEN=1 python -m pytest tests/companion/test_golden_numbers.py`.
"""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments import (
    hiding_scores,
    masks,
    random_null,
    sink_measures,
    sink_records,
    variants,
)
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.hiding import Hiding
from sinkprune_core import Calibration, Sampler, trace
from sinkprune_core.pruning.recipe import compared_preset

FILE = Path(__file__).with_name("golden_numbers.json")
RECIPES = ("wanda", "dwanda", "paper", "unstable", "stable", "random", "sparsegpt", "paper-sparsegpt", "flap")
ROUNDING = 1e-5  # nats
SAMPLER = Sampler(length=8, steps=4, block=None, temperature=1.0)


def numbers(frame: pd.DataFrame, columns: list[str]) -> list[float]:
    """Return the mean of each column, which moves where any of its values does."""
    return [float(frame[column].astype(float).mean()) for column in columns]


def variant_scores(run, lm, make_ids) -> dict[str, list[float]]:
    texts = {"natural/crop": make_ids(3, 16, seed=9)}
    text = Calibration(make_ids(4, 16), batch=2)
    measured = {}

    for name in (None, *RECIPES):
        settings = {} if name == "flap" else {"sparsity": 0.5}
        recipe = compared_preset(name, noise_levels=3, **settings) if name else None
        with Variant(lm, "golden", recipe, text if name else None) as variant:
            frame = variant.scores(run, texts, 2, noise=5)
        measured[name or "dense"] = numbers(frame, ["value", "zeros", "calibration_tokens", "left_out_share"])

    return measured


def answers(run, lm, make_ids) -> dict[str, list[float]]:
    with Variant(lm, "golden") as dense:
        frame = variants.variant_answers(run, dense, {"suite": 24, "blimp": 1}, 2)

    # most words are unknown here, so that many endings are alike, and rounding alone makes one of them right
    frame["correct"] &= frame.margin.abs() > ROUNDING
    return {name: numbers(part, ["correct", "margin"]) for name, part in frame.groupby("benchmark")}


def hiding(run, lm, make_ids) -> dict[str, list[float]]:
    hidings = [Hiding("top", 2), Hiding("random", 2), Hiding("first", 1)]
    frame = hiding_scores.hiding_scores(run, lm, "golden", hidings, {"natural": make_ids(3, 16)}, draws=2)
    return {label: numbers(part, ["value", "attention"]) for label, part in frame.groupby("label")}


def differing(run, lm, make_ids) -> dict[str, list[float]]:
    text = Calibration(make_ids(4, 16), batch=2)
    recipes = {
        name: compared_preset(name, sparsity=0.5, noise_levels=3)
        for name in ("noised-dense", "unstable", "wanda")
    }
    named = {name: (recipe, text) for name, recipe in recipes.items()}
    frame = masks.mask_differences(lm, named, [("noised-dense", "unstable"), ("noised-dense", "wanda")])
    return {other: numbers(part, ["differ"]) for other, part in frame.groupby("other")}


def trajectory(run, lm, make_ids) -> dict[str, list[float]]:
    traced = trace(lm, make_ids(2, 8), SAMPLER, 0)
    return {"trace": [float(part.sum()) for part in (traced.mass_BSK, traced.sinks(), traced.final_BK)]}


def readings(run, lm, make_ids) -> dict[str, list[float]]:
    frame = sink_measures.by_reading(trace(lm, make_ids(2, 8), SAMPLER, 0), 1.0, 0.6).fillna(-1)
    return {name: numbers(part, ["overlap", "stable_share"]) for name, part in frame.groupby("reading")}


def stability(run, lm, make_ids) -> dict[str, list[float]]:
    text = Calibration(make_ids(3, 20), seed=4)
    frame = random_null.stability_at_noise(run, lm, "golden", text, 5, 1.0, 0.6)
    return {"stability": numbers(frame, ["temporal_variance", "sinks_per_step", "stable_share"])}


MEASURING = {  # name of a record -> its revision, and what gives its numbers here
    "scores": (variants.SCORES_REVISION, variant_scores),
    "answers": (variants.ANSWERS_REVISION, answers),
    "hiding": (hiding_scores.SCORES_REVISION, hiding),
    "masks": (1, differing),
    "trace": (1, trajectory),
    "sink-readings": (sink_records.REVISION, readings),
    "stability": (random_null.STABILITY_REVISION, stability),
}


@pytest.mark.parametrize("name", MEASURING)
def test_numbers_move_only_with_the_revision(name, run, tiny_dlm, make_ids):
    revision, measure = MEASURING[name]
    torch.manual_seed(0)
    measured = {"revision": revision, "numbers": measure(run, tiny_dlm, make_ids)}

    golden = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if os.environ.get("SINKPRUNE_GOLDEN"):
        FILE.write_text(json.dumps({**golden, name: measured}, indent=1) + "\n", encoding="utf-8")
        return

    assert revision == golden[name]["revision"], f"{name}: write the golden numbers of revision {revision}"
    for case, values in golden[name]["numbers"].items():
        assert measured["numbers"][case] == pytest.approx(values, rel=1e-4, abs=1e-6), (
            f"{name}, {case}: the numbers moved, so records of `{name}` are no longer valid: "
            f"raise its revision, which is {revision}"
        )
