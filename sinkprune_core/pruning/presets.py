"""The recipes of the literature, and their controls, as fields of `recipe.Recipe` that are not its defaults.

Read without torch, so that a command's help can list them.
"""

_DENSE_NOISED = {"inputs": "noised", "propagation": "dense"}
_PAPER = {**_DENSE_NOISED, "noise": "official", "noise_levels": 10, "norm_reduction": "sum"}
_SPARSEGPT = {"criterion": "sparsegpt", "pattern": "layer"}

PRESETS: dict[str, dict] = {
    "recommended": _SPARSEGPT,
    "magnitude": {"criterion": "magnitude"},
    "wanda": {},
    "dwanda": {"inputs": "noised"},
    "sparsegpt": _SPARSEGPT,
    "noised-dense": _DENSE_NOISED,
    "all-sinks": {**_DENSE_NOISED, "exclude": "all"},
    "unstable": {**_DENSE_NOISED, "exclude": "unstable"},
    "stable": {**_DENSE_NOISED, "exclude": "stable"},
    "random": {**_DENSE_NOISED, "exclude": "random"},
    "only-sinks": {**_DENSE_NOISED, "exclude": "non-sinks"},
    "paper": {**_PAPER, "exclude": "official"},
    "paper-sinks-kept": _PAPER,
    "paper-dream": {**_PAPER, "noise": "dream", "exclude": "official"},
    "paper-sparsegpt": {**_SPARSEGPT, "noise": "official", "noise_levels": 10, "exclude": "official"},
    "sparsegpt-noised": {**_SPARSEGPT, "inputs": "noised"},
    "sparsegpt-unstable": {**_SPARSEGPT, "exclude": "unstable"},
    "structured-magnitude": {"criterion": "magnitude", "pattern": "structured"},
    "structured": {"pattern": "structured"},
    "structured-sink": {**_PAPER, "exclude": "official", "pattern": "structured"},
    "structured-sinks-kept": {**_PAPER, "pattern": "structured"},
    "flap": {"criterion": "flap", "pattern": "structured", "compensate": True},
}
"""Fields of a `Recipe` that are not its defaults, by the name of the preset."""

_HALF_NOISED = {"inputs": "noised", "noise": "half-clean", "noise_levels": 2}

PRESETS_FROM_SPARSITY: dict[str, dict[float, dict]] = {
    "recommended": {0.5: _HALF_NOISED, 0.75: {**_HALF_NOISED, "allocation": "owl"}},
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
    "paper-sinks-kept": "paper with all tokens counted; its control",
    "paper-dream": "the paper's official code for Dream",
    "paper-sparsegpt": "the paper's official code with SparseGPT",
    "sparsegpt-noised": "SparseGPT on noised text; better than clean text from 70 % on here",
    "sparsegpt-unstable": "SparseGPT without the sinks that move",
    "structured-magnitude": "the smallest attention groups and MLP channels; no calibration text",
    "structured": "whole attention groups and MLP channels by Wanda's score",
    "structured-sink": "structured as the paper's official code calibrates",
    "structured-sinks-kept": "structured-sink with all tokens counted; its control",
    "flap": "FLAP, with the mean of what is removed given back as a bias",
}
"""What each preset is, in a few words."""
