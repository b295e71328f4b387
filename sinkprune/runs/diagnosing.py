"""A diagnosis in a work folder: streamed models, and norms that a run that goes on does not take again."""

from pathlib import Path

import torch
from pydantic import InstanceOf
from safetensors import safe_open
from safetensors.torch import save_file

from sinkprune.files import locked
from sinkprune.runs.dense_pass import KeptPass
from sinkprune.runs.on_disk import OnDisk
from sinkprune.runs.recipe_identity import check_named
from sinkprune.runs.work_folder import claim, identity, written_once
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import SinkContext, TokenChoice  # noqa: F401 (of TokenChoice)
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning import diagnosis
from sinkprune_core.pruning.diagnosis import Diagnosis, Norms
from sinkprune_core.pruning.recipe import ExcludeName
from sinkprune_core.values import Count, Flag, Place, checked_arguments


@checked_arguments
@torch.no_grad()
def diagnose(
    lm: InstanceOf[LanguageModel],
    calibration: InstanceOf[Calibration],
    sparsities: diagnosis.Sparsities = (0.5,),
    noise_levels: Count = 8,
    sinks: ExcludeName | TokenChoice = "all",
    progress: Flag = True,
    work: Place | None = None,
) -> Diagnosis:
    """Return what leaving sinks out can change in a model, as `sinkprune_core.diagnose` does.

    `work` is a folder in which the norms are kept: a killed run goes on within its pass, and one for another
    sparsity takes no second pass. A streamed model needs one. Raises what `sinkprune_core.diagnose` does,
    ValueError for a work folder of another run and for a user's function beside one, and RuntimeError for one
    that is in use.
    """
    if work is not None or lm.is_streamed:
        check_named(sinks=sinks)
    if work is None:
        if lm.is_streamed:
            raise ValueError(f"{lm.name} is streamed from disk: pass work=, a folder for its norms")
        return diagnosis.diagnose(lm, calibration, sparsities, noise_levels, sinks, progress)

    root = Path(work).resolve()
    diagnosis.diagnosis_recipes(lm, len(calibration.ids_NT), noise_levels, sinks)  # what is none is refused
    with locked(root):
        claim(root, identity(lm, calibration))
        store = OnDisk(root)

        def take() -> Norms:
            return diagnosis.norms_of(lm, calibration, noise_levels, sinks, progress, store, KeptPass)

        file = root / f"norms-{sinks}-{noise_levels}.safetensors"
        norms = _load(written_once(file, lambda target: _save(take(), target)))
        store.forget()
        store.forget_hidden()
        return diagnosis.diagnosis_from(lm, norms, sparsities)


def _save(norms: Norms, file: Path) -> None:
    tensors = {}
    for part, blocks in norms.by_part.items():
        for layer, block in enumerate(blocks):
            for linear, norm_I in block.items():
                tensors[f"{part}|{layer}|{linear}"] = norm_I.clone()

    save_file(tensors, file, metadata={"left_out": repr(norms.left_out)})


def _load(file: Path) -> Norms:
    by_part: dict[str, list[dict[str, torch.Tensor]]] = {}
    with safe_open(file, "pt") as handle:
        left_out = float(handle.metadata()["left_out"])
        for key in sorted(handle.keys(), key=lambda key: int(key.split("|")[1])):
            part, layer, linear = key.split("|")
            layers = by_part.setdefault(part, [])
            if int(layer) == len(layers):
                layers.append({})
            layers[-1][linear] = handle.get_tensor(key)

    return Norms(by_part, left_out)
