"""What a pruning run keeps on disk, so that a kill at any moment loses at most the block in work.

A work folder belongs to one model and one calibration text. It holds the statistics of the dense model, which serve
every sparsity and pattern, and per recipe the finished blocks and the hidden states before the next one.

Dimensions: R calibration rows, T position, D hidden width.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sinkprune_core.files import atomic, write_json
from sinkprune_core.models.blocks import BlockInput, Rows, block_inputs
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.calibration import Calibration, StatisticsKey
from sinkprune_core.pruning.input_statistics import InputStatistics

FIELDS = ("norm_I", "summed_I", "mean_I", "variance_I")


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


class PruningCheckpoint:
    """The state of one pruning run in a work folder; made, or found and checked.

    Raises ValueError, naming what differs, when the folder belongs to another model, calibration text or version.
    """

    def __init__(self, folder: Path, lm: LanguageModel, recipe, calibration: Calibration | None):
        mine = {
            "model": lm.fingerprint(),
            "calibration": calibration and calibration.fingerprint,
            **{name: version(name) for name in ("torch", "transformers")},
        }
        known = folder / "work.json"
        if known.exists() and (former := json.loads(known.read_text(encoding="utf-8"))) != mine:
            differing = ", ".join(
                f"{name} ({former.get(name)} there, {mine[name]} here)"
                for name in mine
                if former.get(name) != mine[name]
            )
            raise ValueError(
                f"the work folder {folder} belongs to another run; it differs in {differing}: use another folder, or remove it to start anew"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not known.exists():
            write_json(known, mine)
        self.root, self.folder = folder, folder / f"job-{digest(asdict(recipe))}"
        self.folder.mkdir(exist_ok=True)
        progress = self.folder / "progress.json"
        state = (
            json.loads(progress.read_text(encoding="utf-8"))
            if progress.exists()
            else {"done": 0, "table": [], "kept_units": []}
        )
        self.done, self.table, self.kept_units = state["done"], state["table"], state["kept_units"]
        self._blocks_name, self._shape = lm.blocks_name, None
        if lm.is_streamed:
            lm.finished.update({layer: self.block_file(layer) for layer in range(self.done)})

    def rows(self, compute: Callable[[], Rows]) -> Rows:
        """Return the calibration rows of this run, computed once."""
        file = self.folder / "rows.safetensors"
        if not file.exists():
            rows = compute()
            tensors = {"ids": rows.ids_RT.contiguous()} | (
                {} if rows.weight_RT is None else {"weight": rows.weight_RT.contiguous()}
            )
            with atomic(file) as partial:
                save_file(tensors, partial)
        tensors = load_file(file)
        return Rows(tensors["ids"], tensors.get("weight"))

    def statistics(
        self, look: StatisticsKey, compute: Callable[[], object]
    ) -> tuple[list[dict[str, InputStatistics]], int, float, float]:
        """Return statistics of the dense model under one look, computed once for all recipes: seen, tokens, share left out, seconds."""
        file = self.root / f"statistics-{digest(asdict(look))}.safetensors"
        if not file.exists():
            found = compute()
            tensors = {
                f"{layer} {name} {field}": getattr(seen, field).contiguous()
                for layer, linears in enumerate(found.seen)
                for name, seen in linears.items()
                for field in FIELDS
            }
            counts = {
                f"{layer} {name}": seen.count
                for layer, linears in enumerate(found.seen)
                for name, seen in linears.items()
            }
            with atomic(file) as partial:
                save_file(
                    {key: value.clone() for key, value in tensors.items()},
                    partial,
                    metadata={
                        "counts": json.dumps(counts),
                        "cost": json.dumps([found.tokens, found.left_out_share, found.seconds]),
                    },
                )
        with safe_open(file, "pt") as handle:
            counts, cost = json.loads(handle.metadata()["counts"]), json.loads(handle.metadata()["cost"])
            seen: list[dict[str, InputStatistics]] = []
            for key, count in counts.items():
                layer, name = key.split(" ")
                seen += [{}] * 0 if int(layer) < len(seen) else [{}]
                seen[int(layer)][name] = InputStatistics(
                    *(handle.get_tensor(f"{key} {field}") for field in FIELDS), count
                )
        return seen, *cost

    # hidden states before a block, in two files that take turns

    def states(self, lm: LanguageModel, rows: Rows, batch: int) -> list[BlockInput]:
        """Return the inputs of the next block to be pruned, in memory-mapped files."""
        states = block_inputs(
            lm, rows, batch, self.stores(lm, rows)(self.done if self.done == 0 else self.done + 1)
        )
        if self.done == 0:
            return states
        places = self.store(self.done, fresh=False).split([len(state.hidden_BTD) for state in states])
        return [replace(state, hidden_BTD=place) for state, place in zip(states, places, strict=True)]

    def stores(self, lm: LanguageModel, rows: Rows) -> Callable[[int], torch.Tensor]:
        """Return `store` for the hidden states of `rows`."""
        self._shape, self._dtype = (*rows.ids_RT.shape, lm.model.config.hidden_size), lm.model.dtype
        return self.store

    def store(self, layer: int, fresh: bool = True) -> torch.Tensor:
        """Return the file of the hidden states before block `layer` as a tensor (R, T, D)."""
        file = self.folder / f"hidden-{layer % 2}.bin"
        count = int(np.prod(self._shape)) * self._dtype.itemsize
        if fresh and (not file.exists() or file.stat().st_size != count):
            with file.open("wb") as handle:
                handle.truncate(count)
        return torch.from_file(
            str(file), shared=True, size=count // self._dtype.itemsize, dtype=self._dtype
        ).view(self._shape)

    def forget_states(self) -> None:
        """Remove the hidden states, the bulk of the folder, when no block is left to prune."""
        for file in self.folder.glob("hidden-*.bin"):
            file.unlink()

    # finished blocks

    def block_file(self, layer: int) -> Path:
        return self.folder / "blocks" / f"{layer:05d}.safetensors"

    def finish(
        self, lm: LanguageModel, layer: int, block: nn.Module, table: list[dict], kept_units: list
    ) -> None:
        """Write a finished block under its native names, then the progress that makes it count."""
        with atomic(self.block_file(layer)) as partial:
            save_file(
                {
                    f"{self._blocks_name}.{layer}.{name}": value.contiguous()
                    for name, value in block.named_parameters()
                },
                partial,
                metadata={"format": "pt"},
            )
        if lm.is_streamed:
            lm.finished[layer] = self.block_file(layer)
        self.done, self.table, self.kept_units = layer + 1, table, kept_units
        write_json(
            self.folder / "progress.json", {"done": self.done, "table": table, "kept_units": kept_units}
        )

    def restore(self, layer: int, block: nn.Module) -> None:
        """Put a finished block's weights back into a model in memory."""
        prefix = f"{self._blocks_name}.{layer}."
        for name, value in load_file(self.block_file(layer)).items():
            parent, _, leaf = name.removeprefix(prefix).rpartition(".")
            setattr(
                block.get_submodule(parent), leaf, nn.Parameter(value.clone(), requires_grad=False)
            )  # a compensating bias may be new
