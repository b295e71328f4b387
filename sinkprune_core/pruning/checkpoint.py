"""What a pruning run keeps on disk, so that a kill at any moment loses at most the block that is being
pruned.

A work folder belongs to one model and one calibration text. It holds the statistics of the dense model, which
serve every sparsity and pattern, and per recipe the finished blocks and the hidden states before the next
one.

Dimensions: R calibration rows, T position, D hidden width.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
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
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.dense_statistics import DenseStatistics
from sinkprune_core.pruning.input_statistics import InputStatistics
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.token_weights import StatisticsKey, choice_identity

FIELDS = ("norm_I", "summed_I", "mean_I", "variance_I")  # of InputStatistics: its tensors on disk


def _digest(settings: Recipe | StatisticsKey) -> str:
    """Return a SHA-256 prefix over all fields."""
    fields = asdict(settings) | {"exclude": choice_identity(settings.exclude)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


@dataclass
class RunState:
    """How far a pruning run has come."""

    done: int = 0  # finished blocks
    table: list[dict] = field(default_factory=list)  # a row per pruned linear
    kept_units: list[dict[str, list[int]]] = field(default_factory=list)  # per block of a structured recipe


class PruningCheckpoint:
    """The state of one pruning run in a work folder; made, or found and checked.

    Raises ValueError, naming what differs, when the folder belongs to another model, calibration text or
    version.
    """

    def __init__(self, root: Path, lm: LanguageModel, recipe: Recipe, calibration: Calibration | None):
        _claim(root, lm, calibration)
        self.root = root
        self.folder = root / f"job-{_digest(recipe)}"
        self.folder.mkdir(exist_ok=True)
        self.state = RunState()
        self._progress = self.folder / "progress.json"
        if self._progress.exists():
            self.state = RunState(**json.loads(self._progress.read_text(encoding="utf-8")))
        if lm.is_streamed:  # until `restore`, what compares all blocks must find the dense ones
            for layer in range(self.state.done):
                lm.finished.pop(layer, None)

    # what is computed once

    def rows(self, compute: Callable[[], Rows]) -> Rows:
        """Return the calibration rows of this run, computed once."""
        file = self.folder / "rows.safetensors"
        if not file.exists():
            rows = compute()
            tensors = {"ids": rows.ids_RT.contiguous()}
            if rows.weight_RT is not None:
                tensors["weight"] = rows.weight_RT.contiguous()
            with atomic(file) as partial:
                save_file(tensors, partial)
        tensors = load_file(file)
        return Rows(tensors["ids"], tensors.get("weight"))

    def statistics(self, key: StatisticsKey, compute: Callable[[], DenseStatistics]) -> DenseStatistics:
        """Return the statistics of the dense model under one key, computed once for all recipes."""
        file = self.root / f"statistics-{_digest(key)}.safetensors"
        if not file.exists():
            _save_statistics(compute(), file)
        return _load_statistics(file)

    # hidden states before a block, in two files that take turns

    def hidden_store(self, lm: LanguageModel, rows: Rows) -> Callable[[int], torch.Tensor]:
        """Return a function from a layer to the tensor (R, T, D) for the hidden states before it."""
        shape = (*rows.ids_RT.shape, lm.model.config.hidden_size)
        dtype = lm.model.dtype
        size = int(np.prod(shape))

        def hidden_before(layer: int, create: bool = True) -> torch.Tensor:
            file = self.folder / f"hidden-{layer % 2}.bin"
            if create and (not file.exists() or file.stat().st_size != size * dtype.itemsize):
                with file.open("wb") as handle:
                    handle.truncate(size * dtype.itemsize)
            return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)

        return hidden_before

    def inputs(self, lm: LanguageModel, rows: Rows, batch: int) -> list[BlockInput]:
        """Return the inputs of the next block to be pruned, in memory-mapped files."""
        hidden_before = self.hidden_store(lm, rows)
        if self.state.done == 0:
            return block_inputs(lm, rows, batch, hidden_before(0))
        # masks and positions are wanted; the hidden states go where the next block's output will
        inputs = block_inputs(lm, rows, batch, hidden_before(self.state.done + 1))
        hidden = hidden_before(self.state.done, create=False).split([len(each.hidden_BTD) for each in inputs])
        return [replace(each, hidden_BTD=hidden_BTD) for each, hidden_BTD in zip(inputs, hidden, strict=True)]

    def forget_hidden(self) -> None:
        """Remove the hidden states, the bulk of the folder, when no block is left to prune."""
        for file in self.folder.glob("hidden-*.bin"):
            file.unlink()

    # finished blocks

    def block_file(self, layer: int) -> Path:
        """Return the file of a finished block."""
        return self.folder / "blocks" / f"{layer:05d}.safetensors"

    def finish(self, lm: LanguageModel, layer: int, block: nn.Module) -> None:
        """Write a finished block under its native names, then the progress that makes it count."""
        prefix = f"{lm.blocks_name}.{layer}."
        tensors = {prefix + name: value.contiguous() for name, value in block.named_parameters()}
        with atomic(self.block_file(layer)) as partial:
            save_file(tensors, partial, metadata={"format": "pt"})
        if lm.is_streamed:
            lm.finished[layer] = self.block_file(layer)
        self.state.done = layer + 1
        write_json(self._progress, asdict(self.state))

    def restore(self, lm: LanguageModel) -> None:
        """Put the finished blocks back into the model; a streamed one reads them when it comes to them."""
        for layer in range(self.state.done):
            if lm.is_streamed:
                lm.finished[layer] = self.block_file(layer)
                continue
            prefix = f"{lm.blocks_name}.{layer}."
            for name, value in load_file(self.block_file(layer)).items():
                parent, _, leaf = name.removeprefix(prefix).rpartition(".")
                parameter = nn.Parameter(value.clone(), requires_grad=False)
                setattr(
                    lm.blocks[layer].get_submodule(parent), leaf, parameter
                )  # a compensating bias may be new


def _claim(root: Path, lm: LanguageModel, calibration: Calibration | None) -> None:
    """Make the work folder of a model and its text, or check that the one that is there is theirs."""
    mine = {
        "model": lm.fingerprint(),
        "calibration": calibration and calibration.fingerprint,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    file = root / "work.json"
    if not file.exists():
        write_json(file, mine)
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    if there != mine:
        differing = ", ".join(
            f"{name} ({there.get(name)} there, {mine[name]} here)"
            for name in mine
            if there.get(name) != mine[name]
        )
        raise ValueError(
            f"the work folder {root} belongs to another run; it differs in {differing}: "
            "use another folder, or remove it to start anew"
        )


def _save_statistics(statistics: DenseStatistics, file: Path) -> None:
    tensors = {}
    counts = {}
    for layer, linears in enumerate(statistics.layers):
        for name, inputs in linears.items():
            counts[f"{layer} {name}"] = inputs.count
            for statistic in FIELDS:  # copied, since linears may share them
                tensors[f"{layer} {name} {statistic}"] = getattr(inputs, statistic).clone()
    cost = [statistics.tokens, statistics.left_out_share, statistics.seconds]
    with atomic(file) as partial:
        save_file(tensors, partial, metadata={"counts": json.dumps(counts), "cost": json.dumps(cost)})


def _load_statistics(file: Path) -> DenseStatistics:
    with safe_open(file, "pt") as handle:
        counts = json.loads(handle.metadata()["counts"])
        cost = json.loads(handle.metadata()["cost"])
        layers: list[dict[str, InputStatistics]] = []
        for key, count in counts.items():
            layer, name = key.split(" ")
            if int(layer) == len(layers):
                layers.append({})
            tensors = [handle.get_tensor(f"{key} {statistic}") for statistic in FIELDS]
            layers[-1][name] = InputStatistics(*tensors, count)
    return DenseStatistics(layers, *cost)
