"""Notebooks run in this process, cell by cell, on parameters so small that each takes seconds."""

import re
import shutil
from pathlib import Path

import jupytext
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sinkprune.models.embedded import MASK_TOKEN_ID, START_TOKEN_ID
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.saving import save
from sinkprune_companion.experiments import parameters
from sinkprune_core.language_model import LanguageModel, set_direction

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {
    "calibration": 1,
    "length": 48,
    "noise_levels": 2,
    "prompts": 2,
    "seeds": 1,
    "sequences": 12,
    "steps": 4,
}  # for every notebook that has such a parameter
OWN = {  # what is not named here stays as the notebook has it
    "00_start_here": {},
    "01_do_sinks_move": {"first_tokens": [False], "trajectories": 2, "calibration": 2, "lengths": [48]},
    "02_are_sinks_needed": {
        "counts": [1, 5],
        "thirds": ["early"],
        "sequences": 2,
        "lengths": [48, 64],
        "long_sequences": 2,
        "same_share": True,
    },
    "03_leaving_sinks_out": {
        "sparsities": [0.5],
        "patterns": ["2:4"],
        "recipes": ["wanda", "noised-dense", "paper", "all-sinks", "unstable", "structured"],
    },
    "05_matched_compute": {"steps": [4], "batch": 1},
    "06_gain_at_75": {
        "calibration": 5,
        "large_calibration": 5,
        "other_sparsities": [0.25],
    },
    "08_what_results_depend_on": {
        "stability_threshold": 0.5,
    },
    "07_best_recipe": {
        "calibration": 5,
        "parts": ["weights", "other", "large", "twin"],
        "at_75": ["sparsegpt, half, owl", "sparsegpt, noised, owl"],
        "weight_sequences": [2],
        "places": ["75", "2:4"],
    },
    "09_from_scratch": {
        "tokens": 2048,
        "crop_lengths": [64],
        "batch_tokens": 1024,
        "prompt_length": 8,
        "length": 40,
    },
}
MODELS = {
    "00_start_here": ("model", "twin"),
    "01_do_sinks_move": ("model", "twin", "base"),
    "02_are_sinks_needed": ("model", "twin"),
    "03_leaving_sinks_out": ("model", "twin"),
    "05_matched_compute": ("model",),
    "06_gain_at_75": ("model",),
    "08_what_results_depend_on": ("model", "models", "twin"),
    "07_best_recipe": ("model", "twin", "other_models"),
    "09_from_scratch": (),  # trains its models
}  # parameters that name models


def tagged(name: str, tag: str) -> str:
    """Return the source of the one cell of a notebook with this tag."""
    cells = jupytext.read(NOTEBOOKS / f"{name}.py").cells
    (source,) = [cell.source for cell in cells if tag in cell.metadata.get("tags", [])]
    return source


def parameter_cells(name: str) -> list[str]:
    """Return the sources of both cells of parameters of a notebook; 00 has one."""
    cells = jupytext.read(NOTEBOOKS / f"{name}.py").cells
    tags = {"main-parameters", "parameters"}
    return [cell.source for cell in cells if tags & set(cell.metadata.get("tags", []))]


def tiny_values(name: str) -> dict[str, object]:
    """Return values of a notebook's parameters that let it run in seconds."""
    declared = parameters.declared(parameter_cells(name))
    return {parameter: SMALL[parameter] for parameter in declared if parameter in SMALL} | OWN[name]


TINY = {name: tiny_values(name) for name in OWN}


def save_tiny_pair(folder: Path) -> dict[str, str | list[str]]:
    """Write random models with the vocabulary of the embedded pair; return the parameters that name them."""
    tokenizer = open_checkpoint("smol-ar").tokenizer()
    folders = {"model": "diffusion", "twin": "autoregressive", "base": "autoregressive"}

    for seed, (name, kind) in enumerate(folders.items()):
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
            tie_word_embeddings=True,
            bos_token_id=START_TOKEN_ID,
            eos_token_id=START_TOKEN_ID,
        )

        torch.manual_seed(seed)
        model = set_direction(LlamaForCausalLM(config).eval(), causal=kind == "autoregressive")
        mask = MASK_TOKEN_ID if kind == "diffusion" else None
        lm = LanguageModel(model, tokenizer, f"tiny-{name}", kind, mask, logits_shifted=True)
        save(lm, folder / name)

    named = {name: str(folder / name) for name in folders}
    again = shutil.copytree(folder / "model", folder / "model-again")
    return {**named, "models": [named["model"]], "other_models": [named["model"], str(again)]}


def run_cells(name: str, folder: Path = NOTEBOOKS, /, **given: object) -> dict[str, object]:
    """Run every code cell of a notebook as papermill would with what is `given`; return its namespace."""
    namespace: dict[str, object] = {"In": [], "__name__": "__main__"}
    for cell in jupytext.read(folder / f"{name}.py").cells:
        if cell.cell_type != "code":
            continue

        sources = [re.sub(r"(?m)^!.*\n", "", cell.source)]  # for Colab's shell
        if "parameters" in cell.metadata.get("tags", []):
            injected = "".join(f"{key} = {value!r}\n" for key, value in given.items())
            sources.append(f"# Parameters\n{injected}")

        for source in sources:
            namespace["In"].append(source)
            exec(compile(source, f"{name}, cell {len(namespace['In'])}", "exec"), namespace)

    return namespace
