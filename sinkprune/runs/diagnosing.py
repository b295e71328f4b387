"""A diagnosis in a work folder: of streamed models, and with norms that are taken once."""

from pathlib import Path

import torch
from pydantic import InstanceOf

from sinkprune.files import locked
from sinkprune.runs.resume import DiskStore, ResumedPass, WorkFolder, check_named, identity
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import SinkContext, TokenChoice  # noqa: F401 (of TokenChoice)
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning import diagnosis
from sinkprune_core.pruning.diagnosis import Diagnosis
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
    diagnosis.diagnosis_recipes(lm, len(calibration.ids_NT), noise_levels, sinks)  # refuses an invalid one
    with locked(root):
        folder = WorkFolder(root, identity(lm, calibration))
        name = f"norms-{sinks}-{noise_levels}"
        store = DiskStore(folder, f"{name}-passes")
        norms = store.result(
            name,
            lambda: diagnosis.norms_of(lm, calibration, noise_levels, sinks, progress, store, ResumedPass),
        )
        return diagnosis.diagnosis_from(lm, norms, sparsities)
