"""What a killed recovery goes on from: weights, moments and the step, in one file that is whole or not there.

A small file beside it, the marker, says whose folder it is, which state is the newest and what its digest is;
it is written first, replaced last, and without it nothing in a folder is touched.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sinkprune.files import atomic, file_digest, write_checked
from sinkprune.models.weight_files import refused
from sinkprune.runs.resume import STATE, read_state, remove_own

OWN = re.compile(r"state\.json|step-\d{8}\.safetensors")  # names of files in the work folder of a recovery
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, by parameter


def check_work(folder: Path) -> dict:
    """Return what the marker of a recovery's work folder says, {} where the folder is empty or not there.

    Raises ValueError for a file, and for a folder that is not one of a recovery's.
    """
    known = read_state(folder)
    if known is None:
        return {}

    is_ours = isinstance(known.get("identity"), dict) and isinstance(known.get("step"), int)
    if not is_ours:
        raise ValueError(
            f"{folder / STATE} is not what a recovery has written, and nothing in its folder was touched: "
            "choose another work folder, or remove that file to begin anew"
        )

    return known


def remove_work(folder: Path) -> None:
    """Remove what a recovery has written into its work folder, and the folder where nothing else is in it."""
    with suppress(OSError):  # of a folder that cannot be removed, the working directory say
        remove_own(folder, OWN)


class RecoveryCheckpoint:
    """The newest state of one run in a work folder, which is claimed for it.

    `identity` says, in plain JSON values, all that the result depends on. Raises ValueError where the folder
    holds another run or something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))

        known = check_work(folder)
        if not known.get("file"):  # a run that kept no state has nothing to lose
            write_checked(folder / STATE, {"identity": self.identity, "step": 0, "log": []})
            return

        former = known["identity"]
        names = sorted(self.identity.keys() | former.keys())

        differing = [
            f"{name}: {former.get(name)} there, {self.identity.get(name)} here"
            for name in names
            if self.identity.get(name) != former.get(name)
        ]
        if differing:
            raise ValueError(
                f"{folder} holds another recovery ({'; '.join(differing)}): "
                "choose another work folder, or remove it to begin anew"
            )

    def save(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        step: int,
        log: list[dict],
    ) -> None:
        """Keep the state after `step` steps; the former one goes once the new one is on the disk."""
        tensors = {}
        for name, parameter in parameters.items():
            tensors[f"parameter.{name}"] = parameter.detach().cpu().contiguous()
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()

        file = self.folder / f"step-{step:08d}.safetensors"
        with atomic(file) as partial:
            save_file(tensors, partial)

        state = {
            "identity": self.identity,
            "step": step,
            "file": file.name,
            "sha256": file_digest(file),
            "log": log,
        }
        write_checked(self.folder / STATE, state)

        for former in self.folder.glob("step-*.safetensors"):
            if former != file and OWN.fullmatch(former.name):
                former.unlink()

    def restore(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[dict]]:
        """Put weights and moments back; return the number of steps that are done, and the log. (0, []) where
        there is no checkpoint.

        Raises ValueError for a file that is not what was saved.
        """
        state = check_work(self.folder)
        if not state.get("file"):
            return 0, []

        file = self.folder / state["file"]
        if not file.is_file() or file_digest(file) != state["sha256"]:
            raise ValueError(
                f"{file} is not what was saved: remove {self.folder} to begin anew, or put the file back"
            )

        fix = f"remove {self.folder} to begin anew"
        with refused(f"{file} does not fit the model", fix), safe_open(file, "pt") as handle:
            stored = set(handle.keys())
            for name, parameter in parameters.items():
                value = handle.get_tensor(f"parameter.{name}")
                with torch.no_grad():
                    parameter.copy_(value)
                moments = [moment for moment in MOMENTS if f"{moment}.{name}" in stored]
                for moment in moments:
                    value = handle.get_tensor(f"{moment}.{name}")
                    place = value.device if moment == "step" else parameter.device
                    optimizer.state[parameter][moment] = value.to(place)

        return state["step"], state["log"]
