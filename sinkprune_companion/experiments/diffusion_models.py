"""Diffusion models by name, among them those that are an adapter in a folder of the project."""

from pathlib import Path

from sinkprune import load
from sinkprune.models import adapters
from sinkprune.models.catalog import MODELS
from sinkprune.models.devices import choose_dtype
from sinkprune.models.loading import with_adapter
from sinkprune_companion import project_root
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core import LanguageModel

ADAPTED = "smol-dlm"  # whose base an adapter is merged into


def diffusion_model(name: str, dtype: str = "auto", device: str = "cpu") -> LanguageModel:
    """Return a diffusion model by name or folder; a folder of the project may hold an adapter alone.

    Raises ValueError for a model of another kind.
    """
    folder = project_root() / name
    if folder.is_dir():
        name = str(folder)

    if _holds_adapter(folder):
        lm = with_adapter(MODELS[ADAPTED], folder, choose_dtype(dtype, device))
        lm.model.requires_grad_(False).to(device)
        return lm.named(folder.name)

    lm = load(name, dtype, device)
    if not lm.is_diffusion:
        raise ValueError(f"{name!r} is {lm.kind}: stable and unstable sinks are those of a diffusion model")

    return lm


def _holds_adapter(folder: Path) -> bool:
    """Return whether a folder has the adapter of a diffusion model; without settings it is one."""
    if not (folder / adapters.CONFIG).exists():
        return False
    settings = folder / SETTINGS
    return not settings.exists() or settings_of(settings)["kind"] == "diffusion"
