"""Load, prune, trace and evaluate diffusion language models: the method of `sinkprune_core` with its tools.

Names are found when first asked for: a command without a model does without torch's seconds and 300 MB.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from sinkprune.calibration import calibration_from
    from sinkprune.evaluation.likelihood import nelbo, nll, score
    from sinkprune.models.loading import load
    from sinkprune.models.saving import save
    from sinkprune.models.shrinking import shrink
    from sinkprune.recovery.model_card import save_model
    from sinkprune.recovery.objectives import training_loss
    from sinkprune.recovery.recover import recover
    from sinkprune.recovery.zeros import zeros_held
    from sinkprune.runs.diagnosing import diagnose
    from sinkprune.runs.pruning import prune
    from sinkprune_core import (
        DREAM_SAMPLER,
        LLADA_SAMPLER,
        PRESETS,
        Calibration,
        Diagnosis,
        LanguageModel,
        Recipe,
        Report,
        Sampler,
        Trace,
        attention_mass,
        generate,
        hide,
        preset,
        trace,
        track,
        weights_kept,
        wrap,
    )

__all__ = [
    "DREAM_SAMPLER",
    "LLADA_SAMPLER",
    "PRESETS",
    "Calibration",
    "Diagnosis",
    "LanguageModel",
    "Recipe",
    "Report",
    "Sampler",
    "Trace",
    "attention_mass",
    "calibration_from",
    "diagnose",
    "generate",
    "hide",
    "load",
    "nelbo",
    "nll",
    "preset",
    "prune",
    "recover",
    "save",
    "save_model",
    "score",
    "shrink",
    "trace",
    "track",
    "training_loss",
    "weights_kept",
    "wrap",
    "zeros_held",
]

_HOMES = {  # where `__getattr__` finds them
    "sinkprune.calibration": ("calibration_from",),
    "sinkprune.evaluation.likelihood": ("nelbo", "nll", "score"),
    "sinkprune.models.loading": ("load",),
    "sinkprune.models.saving": ("save",),
    "sinkprune.models.shrinking": ("shrink",),
    "sinkprune.recovery.model_card": ("save_model",),
    "sinkprune.recovery.recover": ("recover",),
    "sinkprune.recovery.objectives": ("training_loss",),
    "sinkprune.recovery.zeros": ("zeros_held",),
    "sinkprune.runs.diagnosing": ("diagnose",),
    "sinkprune.runs.pruning": ("prune",),
}  # all others are those of the core


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    if name in __all__:
        return getattr(import_module("sinkprune_core"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
