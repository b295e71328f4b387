"""What pruning saves beside fewer denoising steps: seconds to write a text and gigabytes, in one run.

With --record the table goes into docs/performance.json, from which docs/pruning.md has it.
"""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from benchmarks.timing import in_turns

from sinkprune import Sampler, generate, load, preset, prune, shrink
from sinkprune.evaluation.savings import WRITTEN, weight_bytes
from sinkprune.models.saving import save
from sinkprune_companion.pages.sources import note_performance
from sinkprune_companion.run.records import environment

ROUNDS = 3
RECIPES = {  # which weights are zero changes no time, so magnitude will do
    "zeros": preset("magnitude", sparsity=0.5),
    "2:4": preset("magnitude", pattern="2:4"),
    "units": preset("structured-magnitude", sparsity=0.5, round_to=1),
}


def pruned(lm, recipe):
    model = replace(lm, model=copy.deepcopy(lm.model))
    report = prune(model, recipe, progress=False)
    return shrink(model, report.kept_units) if report.kept_units else model


def write(lm, steps: int) -> None:
    generate(lm, torch.zeros(1, 1, dtype=torch.long), Sampler(WRITTEN, steps, block=None))


def stored_bytes(lm, folder) -> int:
    save(lm, folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_whole_units_and_fewer_steps_save_and_zeros_do_not(request, tmp_path):
    dense = load("smol-dlm", dtype="float32")
    rows = {"dense": (dense, WRITTEN), "fewer steps": (dense, WRITTEN // 2)}
    rows |= {name: (pruned(dense, recipe), WRITTEN) for name, recipe in RECIPES.items()}

    of_dense = stored_bytes(dense, tmp_path / "alone")
    table = {}
    for name, (lm, steps) in rows.items():
        write(lm, 1)
        ratio, seconds, _ = in_turns(partial(write, lm, steps), partial(write, dense, WRITTEN), ROUNDS)
        stored = stored_bytes(lm, tmp_path / name)
        table[name] = {
            "steps": steps,
            "time": ratio,
            "memory": weight_bytes(lm) / weight_bytes(dense),
            "disk": stored / of_dense,
        }
        print(f"\n{name}: {seconds:.2f} s, {ratio:.2f} of the dense model's")

    if request.config.getoption("--record"):
        entry = {"rows": table, "threads": torch.get_num_threads(), "dtype": "float32", **environment()}
        note_performance("savings", entry)

    assert table["fewer steps"]["time"] < 0.6
    assert table["units"]["time"] < 0.75 and table["units"]["memory"] < 0.7
    for zeros in ("zeros", "2:4"):
        assert table[zeros]["time"] > 0.9
        assert table[zeros]["memory"] == table[zeros]["disk"] == pytest.approx(1.0, abs=1e-3)
