"""What a killed training goes on from: weights, moments, step and log, whole or not there.

A small file beside the weights, the marker, says whose folder it is and how far the training is; it carries a
digest of itself and that of the weights, is written first and replaced last, and without it nothing in a
folder is touched.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sinkprune.files import atomic, file_digest, kept, make_folder, write_checked
from sinkprune.models.weight_files import refused
from sinkprune.runs.work_folder import has_marker, remove_own

STATE = "state.json"  # the marker: which run it is, how far it is, and its log
OWN = re.compile(r"state\.json|step-\d{8}\.safetensors")  # names of files in the work folder of a training
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, by parameter


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0  # steps that are done
    log: list[dict] = field(default_factory=list)  # rows of what was measured
    recent: list[float] = field(default_factory=list)  # losses of the steps since the last row


def check_work(folder: Path) -> dict:
    """Return what the marker of a training's work folder says, {} where the folder is empty or not there.

    Raises ValueError for a file, for a folder that is not one of a training's, and for a marker that is not
    what was written.
    """
    if not has_marker(folder, STATE, OWN):
        return {}

    state = kept(folder / STATE)
    if state is None:
        raise ValueError(
            f"{folder / STATE} is not what a training has written, and nothing in its folder was touched: "
            f"choose another work folder, or remove {folder} to begin anew"
        )

    return state


def remove_work(folder: Path) -> None:
    """Remove what a training has written into its work folder, and the folder where nothing else is in it."""
    with suppress(OSError):  # of a folder that cannot be removed, the working directory say
        remove_own(folder, OWN, STATE)


class Checkpoint:
    """The newest state of one run in a work folder, which is made or claimed for it.

    `identity` says, in plain JSON values, all that the result depends on. Raises ValueError where the folder
    holds another run or something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        make_folder(folder)
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        self.state = check_work(folder)

        if not self.state.get("file"):  # a run that kept no state has nothing to lose
            write_checked(folder / STATE, {"identity": self.identity})
            return

        former = self.state["identity"]
        names = sorted(self.identity.keys() | former.keys())

        differing = [
            f"{name}: {former.get(name)} there, {self.identity.get(name)} here"
            for name in names
            if self.identity.get(name) != former.get(name)
        ]
        if differing:
            raise ValueError(
                f"{folder} holds another run ({'; '.join(differing)}): "
                "choose another work folder, or remove it to begin anew"
            )

    @property
    def progress(self) -> Progress:
        """How far the run was when its state was kept."""
        return Progress(**self.state.get("progress", {}))

    def save(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Keep the state as it is now; the former one goes once the new one is on the disk."""
        tensors = {}
        for name, parameter in parameters.items():
            tensors[f"parameter.{name}"] = parameter.detach().cpu().contiguous()
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()

        file = self.folder / f"step-{progress.step:08d}.safetensors"
        with atomic(file) as partial:
            save_file(tensors, partial)

        self.state = {
            "identity": self.identity,
            "file": file.name,
            "sha256": file_digest(file),
            "progress": asdict(progress),
        }
        write_checked(self.folder / STATE, self.state)

        for former in self.folder.glob("step-*.safetensors"):
            if former != file and OWN.fullmatch(former.name):
                former.unlink()

    def restore(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Put the weights that were kept back, and the moments of an optimizer; raise ValueError for a file
        that is not what was saved.
        """
        if not self.state.get("file"):
            return

        file = self.folder / self.state["file"]
        if not file.is_file() or file_digest(file) != self.state["sha256"]:
            raise ValueError(
                f"{file} is not what was saved: remove {self.folder} to begin anew, or put the file back"
            )

        fix = f"remove {self.folder} to begin anew"
        with refused(f"{file} does not fit the model", fix), safe_open(file, "pt") as handle:
            stored = set(handle.keys())
            for name, parameter in parameters.items():
                with torch.no_grad():
                    parameter.copy_(handle.get_tensor(f"parameter.{name}"))
                if optimizer is None:
                    continue

                moments = [moment for moment in MOMENTS if f"{moment}.{name}" in stored]
                for moment in moments:
                    value = handle.get_tensor(f"{moment}.{name}")
                    place = value.device if moment == "step" else parameter.device
                    optimizer.state[parameter][moment] = value.to(place)
