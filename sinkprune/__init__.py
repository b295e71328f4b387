"""Load, prune, trace and evaluate diffusion language models: the method of `sinkprune_core` with its tools.

Names are found when first asked for: a command without a model does without torch's seconds and 300 MB.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from sinkprune.evaluation.likelihood import nelbo, nll, score
    from sinkprune.models.loading import load
    from sinkprune.runs.pruning import prune
    from sinkprune_core import (
        DREAM_SAMPLER,
        LLADA_SAMPLER,
        PRESETS,
        Calibration,
        LanguageModel,
        Recipe,
        Report,
        Sampler,
        Trace,
        generate,
        preset,
        trace,
        weights_kept,
    )
    from sinkprune_core.pruning.shrink import shrink

__all__ = [
    "DREAM_SAMPLER",
    "LLADA_SAMPLER",
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
    "shrink",
    "trace",
    "weights_kept",
]

_HOMES = {  # where `__getattr__` finds them
    "sinkprune.evaluation.likelihood": ("nelbo", "nll", "score"),
    "sinkprune.models.loading": ("load",),
    "sinkprune.runs.pruning": ("prune",),
    "sinkprune_core": (
        "DREAM_SAMPLER",
        "LLADA_SAMPLER",
        "PRESETS",
        "Calibration",
        "LanguageModel",
        "Recipe",
        "Report",
        "Sampler",
        "Trace",
        "generate",
        "preset",
        "trace",
        "weights_kept",
    ),
    "sinkprune_core.pruning.shrink": ("shrink",),
}


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
