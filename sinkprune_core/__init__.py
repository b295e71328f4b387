"""Sink-aware pruning of diffusion language models: the small core behind the notebooks."""

from .calibration import Calibration
from .diffusion import DREAM, LLADA, Sampler, generate
from .evaluation import nelbo, nll, score
from .models import LanguageModel, load
from .pruning import PRESETS, Recipe, Report, preset, prune, weights_kept
from .traces import Trace, trace

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
