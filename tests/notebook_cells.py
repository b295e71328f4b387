"""Notebooks run in this process, cell by cell, on parameters so small that each takes seconds."""

from pathlib import Path

import jupytext
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sinkprune_core.models.embedded import MASK_TOKEN_ID, START_TOKEN_ID
from sinkprune_core.models.language_model import LanguageModel, set_direction
from sinkprune_core.models.loading import open_checkpoint

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TINY = {
    "00_start_here": {"sequences": 12, "draws": 1, "calibration": 1, "length": 48},
    "01_sink_variance": {
        "texts": ["natural"],
        "samplers": ["llada"],
        "first_tokens": [False],
        "prompts": 2,
        "trajectories": 2,
        "calibration": 2,
        "noise_levels": 2,
        "steps": 4,
        "lengths": [48],
    },
    "02_hiding_sinks": {
        "texts": ["natural"],
        "first_tokens": [False, True],
        "counts": [1, 5],
        "thirds": ["early"],
        "samplers": ["llada", "dream"],
        "sequences": 2,
        "draws": 1,
        "lengths": [48, 64],
        "long_sequences": 2,
        "same_share": True,
        "prompts": 2,
        "prompt_length": 24,
        "written": 16,
        "steps": 4,
    },
    "03_pruning_results": {
        "sequences": 12,
        "draws": 1,
        "items": 24,
        "blimp_pairs": 1,
        "item_draws": 1,
        "calibration": 1,
        "noise_levels": 2,
        "seeds": 1,
        "other_draws": 1,
        "sparsities": [0.5],
        "patterns": ["2:4"],
        "ratios": [0.5],
        "recipes": ["wanda", "noised-dense", "paper", "all-sinks", "unstable", "structured"],
        "twin_sparsities": [0.5],
        "length": 48,
    },
    "04_matched_compute": {
        "sequences": 12,
        "draws": 1,
        "calibration": 1,
        "noise_levels": 2,
        "seeds": 1,
        "steps": [4],
        "baselines": ["wanda"],
        "structured_recipes": ["structured-sink"],
        "batch": 1,
        "length": 48,
    },
    "05_what_does_the_work": {
        "sequences": 12,
        "draws": 1,
        "calibration": 1,
        "noise_levels": 2,
        "seeds": 1,
        "left_out": ["all", "unstable"],
        "other_noise_levels": [],
        "other_sink_std": [],
        "other_stability_thresholds": [],
        "other_noise": ["rollout"],
        "other_allocations": [],
        "reach_sequences": 1,
        "reach_layers": [0],
        "length": 48,
    },
    "06_real_models": {
        "prompts": 2,
        "steps": 4,
        "sequences": 2,
        "draws": 1,
        "limit": 1,
        "calibration": 1,
        "length": 48,
    },
    "07_robustness": {
        "calibration": [1, 2],
        "own_noise": [False, False],
        "seeds": [1, 1],
        "other_draws": [1, 1],
        "archives": ["", ""],
        "lengths": [48, 32],
        "sequences": 12,
    },
    "08_stable_sinks": {
        "restored_counts": [1, 10],
        "sequences": 12,
        "calibration": 1,
        "noise_levels": 2,
        "largest_from": 1,
        "seeds": 1,
        "length": 48,
        "stability_threshold": 0.5,
    },
    "09_best_recipe": {
        "calibration": 5,
        "factorial_sinks": True,
        "places": ["75", "2:4"],
        "noise_levels": 2,
        "seeds": 1,
        "length": 48,
    },
    "10_native_pair": {
        "tokens": 2048,
        "crop_lengths": [64],
        "batch_tokens": 1024,
        "seeds": 1,
        "prompts": 2,
        "prompt_length": 8,
        "length": 40,
        "steps": 4,
        "calibration": 1,
        "noise_levels": 2,
    },
}
MODELS = {
    "00_start_here": ("model", "twin"),
    "01_sink_variance": ("model", "twin", "base"),
    "02_hiding_sinks": ("model", "twin", "base"),
    "03_pruning_results": ("model", "twin"),
    "04_matched_compute": ("model",),
    "05_what_does_the_work": ("model",),
    "08_stable_sinks": ("models",),
    "09_best_recipe": ("model",),
    "06_real_models": (),  # random weights in the format of a published model
    "07_robustness": ("model",),
    "10_native_pair": (),  # trains its models
}  # parameters that name models


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
        LanguageModel(model, tokenizer, f"tiny-{name}", kind, mask, logits_shifted=True).save(folder / name)
    named = {name: str(folder / name) for name in folders}
    return {**named, "models": [named["model"]]}


def run_cells(name: str, folder: Path = NOTEBOOKS, /, **parameters: object) -> dict[str, object]:
    """Run every code cell of a notebook as papermill would with `parameters`; return its namespace."""
    namespace: dict[str, object] = {"In": [], "__name__": "__main__"}
    for cell in jupytext.read(folder / f"{name}.py").cells:
        if cell.cell_type != "code":
            continue
        sources = [cell.source]
        if "parameters" in cell.metadata.get("tags", []):
            given = "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
            sources.append(f"# Parameters\n{given}")
        for source in sources:
            namespace["In"].append(source)
            exec(compile(source, f"{name}, cell {len(namespace['In'])}", "exec"), namespace)
    return namespace
