"""`--criterion MODULE:FUNCTION` prunes by a user's function, names it, and refuses what is none."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from sinkprune import load, prune
from sinkprune.cli import main
from sinkprune.runs.recipe_identity import criterion_identity
from sinkprune_core import Calibration, Recipe

MODULE = '''
import torch

def smallest_last(weight_OI, inputs):
    """Keep what is small, by the input's variance."""
    return -weight_OI.abs() * inputs.variance_I

smallest_last.needs = "moments"

def of_weights(weight_OI, inputs):
    return weight_OI.square()

of_weights.needs = None

def one(weight_OI):
    return weight_OI

def by_gram(weight_OI, inputs):
    return inputs.gram_II.diagonal() * weight_OI

def a_number(weight_OI, inputs):
    return 3.0

def taylor(weight_OI, inputs):
    return weight_OI * inputs.gradient_OI

taylor.needs = "gradients"

class Scores:
    pass

table = {}
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's module in the working directory."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    sys.modules.pop("mine", None)


@pytest.mark.slow
def test_a_function_prunes_as_it_does_from_python(model, command, drawn, mine, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("prune", "--criterion", "mine:smallest_last", "--sparsity", 0.3, "--out", out) == 0
    import mine as module

    lm = load(model)
    recipe = Recipe(module.smallest_last, 0.3)
    prune(lm, recipe, Calibration(drawn(lm, held_out=False)), progress=False)
    state = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[key], value) for key, value in lm.model.state_dict().items())

    card = json.loads((out / "sinkprune.json").read_text())
    assert card["recipe"]["criterion"] == "mine.smallest_last"
    assert "| criterion | mine.smallest_last |" in (out / "README.md").read_text()
    assert card["made_from"]["criterion"] == criterion_identity(recipe.criterion)
    assert command("prune", "--criterion", "mine:smallest_last", "--sparsity", 0.3, "--out", out) == 0
    assert "finished already" in capsys.readouterr().out

    (mine / "mine.py").write_text(MODULE.replace("-weight_OI.abs()", "weight_OI.abs()"))
    sys.modules.pop("mine")
    sys.path_importer_cache.clear()
    assert command("prune", "--criterion", "mine:smallest_last", "--sparsity", 0.3, "--out", out) == 1
    assert "exists" in capsys.readouterr().err  # another function of the same name


def test_a_function_that_reads_no_inputs_takes_no_text(mine, model, refused, tmp_path):
    words = (
        "prune",
        model,
        "--criterion",
        "mine:of_weights",
        "--dtype",
        "float32",
        "--out",
        tmp_path / "out",
    )

    assert "criterion=mine.of_weights uses no calibration text" in refused(*words, "--sequences", 3)
    assert main.main([str(word) for word in words]) == 0


REFUSED = {
    "variance": "is no criterion; choose one of magnitude, wanda, sparsegpt, flap, or write MODULE:FUNCTION",
    "wand": "is no criterion; did you mean wanda?",
    ":f": "write MODULE:FUNCTION",
    "mine:": "write MODULE:FUNCTION",
    "yours:f": "there is no module yours, neither in this folder nor installed",
    "broken:f": "broken cannot be imported (ZeroDivisionError: division by zero)",
    "needing:f": "needing needs a module that_is_nowhere: install it",
    "mine:smallest_lost": "mine has no function smallest_lost",
    "mine:Scores": "Scores is a type, not a function",
    "mine:table": "table is a dict, not a function",
    "mine:one": "one(weight_OI) cannot be called with two arguments, the weight of a linear",
    "mine:by_gram": "fails on a small linear (AttributeError: 'NoneType' object has no attribute 'diagonal')",
    "mine:taylor": "criterion.needs='gradients': statistics come from forwards, so a recipe has no gradients",
    "mine:a_number": "must return a score for every weight",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_criterion_is_refused_before_any_work(name, mine, model, refused, tmp_path, no_model):
    (mine / "broken.py").write_text("1 / 0")
    (mine / "needing.py").write_text("import that_is_nowhere")
    said = refused("prune", model, "--criterion", name, "--out", tmp_path / "out")
    assert said.startswith(f"--criterion {name}") and REFUSED[name] in said
