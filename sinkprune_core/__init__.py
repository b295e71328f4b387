"""Sink-aware pruning of diffusion language models: the small core behind the notebooks.

Names are found when they are first asked for: a command that needs no model does without torch, its seconds and 300 MB.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import Calibration
    from .diffusion import DREAM, LLADA, Sampler, generate
    from .evaluation import nelbo, nll, score
    from .models import LanguageModel, load
    from .pruning import PRESETS, Recipe, Report, preset, prune, weights_kept
    from .traces import Trace, trace

_HOMES = {
    "calibration": ("Calibration",),
    "diffusion": ("DREAM", "LLADA", "Sampler", "generate"),
    "evaluation": ("nelbo", "nll", "score"),
    "models": ("LanguageModel", "load"),
    "pruning": ("PRESETS", "Recipe", "Report", "preset", "prune", "weights_kept"),
    "traces": ("Trace", "trace"),
}

__all__ = [
    "DREAM",
    "LLADA",
    "PRESETS",
    "Calibration",
    "LanguageModel",
    "Recipe",
    "Report",
    "Sampler",
    "Trace",
    "generate",
    "load",
    "nelbo",
    "nll",
    "preset",
    "prune",
    "score",
    "trace",
    "weights_kept",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
