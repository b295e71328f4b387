"""The recipes of the literature, and their controls, as fields of `recipe.Recipe` that are not its defaults.

Read without torch, so that a command's help can list them.
"""

PRESETS: dict[str, dict] = {
    "recommended": {"criterion": "sparsegpt", "pattern": "layer"},
    "magnitude": {"criterion": "magnitude"},
    "wanda": {},
    "dwanda": {"inputs": "noised"},
    "sparsegpt": {"criterion": "sparsegpt", "pattern": "layer"},
    "noised-dense": {"inputs": "noised", "propagation": "dense"},
    "all-sinks": {"inputs": "noised", "propagation": "dense", "exclude": "all"},
    "unstable": {"inputs": "noised", "propagation": "dense", "exclude": "unstable"},
    "stable": {"inputs": "noised", "propagation": "dense", "exclude": "stable"},
    "random": {"inputs": "noised", "propagation": "dense", "exclude": "random"},
    "only-sinks": {"inputs": "noised", "propagation": "dense", "exclude": "only"},
    "paper": {
        "inputs": "noised",
        "propagation": "dense",
        "noise": "official",
        "noise_levels": 10,
        "norm_reduction": "sum",
        "exclude": "official",
    },
    "paper-no-sinks": {
        "inputs": "noised",
        "propagation": "dense",
        "noise": "official",
        "noise_levels": 10,
        "norm_reduction": "sum",
    },
    "paper-dream": {
        "inputs": "noised",
        "propagation": "dense",
        "noise": "dream",
        "noise_levels": 10,
        "norm_reduction": "sum",
        "exclude": "official",
    },
    "paper-sparsegpt": {
        "criterion": "sparsegpt",
        "pattern": "layer",
        "noise": "official",
        "noise_levels": 10,
        "exclude": "official",
    },
    "sparsegpt-noised": {"criterion": "sparsegpt", "inputs": "noised", "pattern": "layer"},
    "sparsegpt-unstable": {"criterion": "sparsegpt", "pattern": "layer", "exclude": "unstable"},
    "structured-magnitude": {"criterion": "magnitude", "pattern": "structured"},
    "structured": {"pattern": "structured"},
    "structured-sink": {
        "inputs": "noised",
        "propagation": "dense",
        "noise": "official",
        "noise_levels": 10,
        "norm_reduction": "sum",
        "exclude": "official",
        "pattern": "structured",
    },
    "structured-no-sinks": {
        "inputs": "noised",
        "propagation": "dense",
        "noise": "official",
        "noise_levels": 10,
        "norm_reduction": "sum",
        "pattern": "structured",
    },
    "flap": {"criterion": "flap", "pattern": "structured", "compensate": True},
}
"""Fields of a `Recipe` that are not its defaults, by the name of the preset."""

FROM: dict[str, dict[float, dict]] = {
    "recommended": {
        0.5: {"inputs": "noised", "noise": "half-clean", "noise_levels": 2},
        0.75: {"inputs": "noised", "noise": "half-clean", "noise_levels": 2, "allocation": "owl"},
    },
}
"""More of them from a sparsity on, by the name of the preset, where there are some."""

ABOUT: dict[str, str] = {
    "recommended": "SparseGPT; from 50 % on with half-noised text, from 75 % on with OWL's allocation",
    "magnitude": "the smallest weights of every row; no calibration text",
    "wanda": "Wanda as published, on clean text",
    "dwanda": "Wanda on noised text, as a diffusion model sees it",
    "sparsegpt": "SparseGPT as published, on clean text",
    "noised-dense": "Wanda on noised text from the dense model; the control of the five below",
    "all-sinks": "noised-dense without all attention sinks",
    "unstable": "noised-dense without the sinks that move, as the paper's abstract says",
    "stable": "noised-dense without the sinks that stay",
    "random": "noised-dense without random tokens, as many as there are sinks",
    "only-sinks": "noised-dense calibrated on the sinks alone",
    "paper": "the paper's official code for LLaDA",
    "paper-no-sinks": "paper with all tokens counted; its control",
    "paper-dream": "the paper's official code for Dream",
    "paper-sparsegpt": "the paper's official code with SparseGPT",
    "sparsegpt-noised": "SparseGPT on noised text; better than clean text from 70 % on here",
    "sparsegpt-unstable": "SparseGPT without the sinks that move",
    "structured-magnitude": "the smallest attention groups and MLP channels; no calibration text",
    "structured": "whole attention groups and MLP channels by Wanda's score",
    "structured-sink": "structured as the paper's official code calibrates",
    "structured-no-sinks": "structured-sink with all tokens counted; its control",
    "flap": "FLAP, with the mean of what is removed given back as a bias",
}
"""What each preset is, in a few words."""
