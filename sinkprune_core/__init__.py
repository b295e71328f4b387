"""Sink-aware pruning of diffusion language models: the method, on any model of transformers.

Names are found when first asked for: what needs no model does without torch's seconds and 300 MB.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from sinkprune_core.blocks import weights_kept
    from sinkprune_core.calibration.text import Calibration
    from sinkprune_core.diffusion.samplers import DREAM_SAMPLER, LLADA_SAMPLER, Sampler
    from sinkprune_core.diffusion.sampling import generate
    from sinkprune_core.language_model import LanguageModel
    from sinkprune_core.pruning.diagnosis import Diagnosis, diagnose
    from sinkprune_core.pruning.engine import prune
    from sinkprune_core.pruning.recipe import PRESETS, Recipe, preset
    from sinkprune_core.pruning.report import Report
    from sinkprune_core.sinks.attention import attention_mass, hide, track
    from sinkprune_core.sinks.trace import Trace, trace
    from sinkprune_core.wrapping import wrap

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
    "diagnose",
    "generate",
    "hide",
    "preset",
    "prune",
    "trace",
    "track",
    "weights_kept",
    "wrap",
]

_HOMES = {  # where `__getattr__` finds them
    "blocks": ("weights_kept",),
    "calibration.text": ("Calibration",),
    "diffusion.samplers": ("DREAM_SAMPLER", "LLADA_SAMPLER", "Sampler"),
    "diffusion.sampling": ("generate",),
    "language_model": ("LanguageModel",),
    "pruning.diagnosis": ("Diagnosis", "diagnose"),
    "pruning.engine": ("prune",),
    "pruning.recipe": ("PRESETS", "Recipe", "preset"),
    "pruning.report": ("Report",),
    "sinks.attention": ("attention_mass", "hide", "track"),
    "sinks.trace": ("Trace", "trace"),
    "wrapping": ("wrap",),
}

# transformers warns of an attribute that it reads itself where a model is saved.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
