"""What a killed recovery goes on from: weights, moments and the step, in one file that is whole or not there.

A small file beside it says which one is the newest and what its digest is; it is replaced last.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sinkprune.files import atomic, file_digest, write_json
from sinkprune.models.weight_files import read_json, refused

STATE = "recovery.json"  # which run it is, how far it is, and its log
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, by parameter


class RecoveryCheckpoint:
    """The newest state of one run in a work folder.

    `identity` says, in plain JSON values, all that the result depends on. Raises ValueError where the folder
    holds another run.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        known = read_json(folder / STATE)
        if not known:
            return

        former = known.get("identity", {})
        names = sorted(self.identity.keys() | former.keys())

        differing = [name for name in names if self.identity.get(name) != former.get(name)]
        if differing:
            raise ValueError(
                f"{folder} holds another recovery (differing in {', '.join(differing)}): "
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
        write_json(self.folder / STATE, state)

        for former in self.folder.glob("step-*.safetensors"):
            if former != file:
                former.unlink()

    def restore(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[dict]]:
        """Put weights and moments back; return the number of steps that are done, and the log. (0, []) where
        there is no checkpoint.

        Raises ValueError for a file that is not what was saved.
        """
        state = read_json(self.folder / STATE)
        if not state:
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
