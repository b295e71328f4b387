"""What a pruning run keeps on disk: a kill at any moment loses at most the block that is at work, or some
seconds of a pass that takes statistics before the first one is pruned.

A work folder holds the statistics of the dense model, which serve every sparsity and pattern, and per recipe
the finished blocks and the hidden states before the next one. A block counts once it is on the disk; it and
the hidden states are compared with their digests before they are used again.

Dimensions: R calibration rows, T position, D hidden width.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune.files import atomic, file_digest, make_folder
from sinkprune.models.streaming import METADATA, FinishedBlock, StreamedModel, assign_stored, stored_block
from sinkprune.runs.on_disk import OnDisk
from sinkprune.runs.waiting import HiddenFiles
from sinkprune.runs.work_folder import claim, identity, read_progress, write_progress, written_once
from sinkprune_core.blocks import BlockInput, Rows, block_inputs, run_block
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.waiting_store import inputs_before
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.pruning_run import Progress

FIELDS = ("norm_I", "summed_I", "mean_I", "variance_I")  # of InputStatistics: its tensors on disk


def job_folder(root: Path, job: str) -> Path:
    """Return the folder of a job in a work folder; `job` is the `settings_digest` of its recipe."""
    return root / f"job-{job}"


@dataclass
class RunState(Progress):
    """How far a pruning run has come, and what its files must hold."""

    digests: list[str] = field(default_factory=list)  # SHA-256 of the finished blocks' files
    hidden: str | None = None  # SHA-256 of the hidden states before the next block, where there are any

    def cut(self, done: int) -> None:
        """Forget all blocks from the one with the index `done` on."""
        self.done = done
        self.table = [row for row in self.table if row["layer"] < done]
        self.kept_units = self.kept_units[:done]
        self.digests = self.digests[:done]
        self.hidden = None


class PruningCheckpoint:
    """The state of one pruning run in a work folder, whose lock is held; made, or found and checked.

    `job` is the `settings_digest` of its recipe. A block whose file is damaged does not count, nor do those
    after it. Of a streamed model the blocks that are finished here must be out of the way. Raises ValueError,
    naming what differs, when the folder is not a work folder or belongs to another model, calibration text or
    version.
    """

    def __init__(self, root: Path, lm: LanguageModel, job: str, calibration: Calibration | None):
        self.root = root
        self.folder = job_folder(root, job)
        self.store = OnDisk(self.folder)
        claim(root, identity(lm, calibration))
        make_folder(self.folder)

        self.state = RunState(**(read_progress(self.folder) or {}))
        self._forget_damaged_blocks()
        self._carried: HiddenFiles | None = None  # hidden states that a block hands to the next one

    def _forget_damaged_blocks(self) -> None:
        for layer in range(self.state.done):
            block = self._finished(layer)
            if not block.is_whole(block.file):
                warnings.warn(
                    f"{block.file} is damaged: block {layer} and those after it are pruned again",
                    stacklevel=4,
                )
                self.state.cut(layer)
                self.write()
                return

    def _finished(self, layer: int) -> FinishedBlock:
        return FinishedBlock(self.block_file(layer), self.state.digests[layer])

    def write(self) -> None:
        """Write the state: from now on it counts."""
        write_progress(self.folder, asdict(self.state))

    # what is computed once

    def rows(self, compute: Callable[[], Rows]) -> Rows:
        """Return the calibration rows of this run, computed once."""
        file = self.folder / "rows.safetensors"
        self._written_by_pass(file, lambda target: _save_rows(compute(), target))
        tensors = load_file(file)
        return Rows(tensors["ids"], tensors.get("weight"), tensors.get("present"))

    def statistics(self, key: str, compute: Callable[[], DenseStatistics]) -> DenseStatistics:
        """Return the dense model's statistics under a `settings_digest`, computed once for all recipes."""
        file = self.root / f"statistics-{key}.safetensors"
        self._written_by_pass(file, lambda target: _save_statistics(compute(), target))
        return _load_statistics(file)

    def _written_by_pass(self, file: Path, write: Callable[[Path], object]) -> None:
        """Let a pass write a file, once; what it could have gone on from goes then."""
        is_there = file.exists()
        written_once(file, write)
        if not is_there:
            self.store.forget()

    # hidden states before a block

    def resume(self, lm: LanguageModel, rows: Rows | None, batch: int, from_dense: bool) -> list[BlockInput]:
        """Take finished blocks back, and return the inputs of the next one, in memory-mapped files.

        They are [] where no block need run. Hidden states that are lost or damaged are computed again, from
        what dense blocks make (`from_dense`) or finished ones.
        """
        done = self.state.done
        if rows is None or done == len(lm.blocks):
            self.restore(lm)
            return []

        hidden = self.store.hidden(lm, rows)
        is_lost = done > 0 and not hidden.holds(done, self.state.hidden)
        if is_lost and self.state.hidden is not None:
            warnings.warn(f"{hidden.file(done)} is damaged: hidden states are computed again", stacklevel=4)

        if not is_lost:
            self.restore(lm)
        elif from_dense:
            self._compute_hidden(lm, rows, batch, hidden)
            self.restore(lm)
        else:
            self.restore(lm)
            self._compute_hidden(lm, rows, batch, hidden)

        self._carried = hidden
        return inputs_before(lm, rows, batch, hidden, done)

    def _compute_hidden(self, lm: LanguageModel, rows: Rows, batch: int, hidden: HiddenFiles) -> None:
        """Compute the hidden states before the next block from the text."""
        states = block_inputs(lm, rows, batch, hidden(0))
        for layer in range(self.state.done):
            with lm.resident(layer) as block:
                states = run_block(block, states, store_RTD=hidden(layer + 1))

        self.state.hidden = hidden.sealed(self.state.done)
        self.write()

    def forget_hidden(self) -> None:
        """Remove the hidden states, the bulk of the folder, when no block is left to prune."""
        self.store.forget()
        self.store.forget_hidden()

    # finished blocks

    def block_file(self, layer: int) -> Path:
        """Return the file of a finished block."""
        return self.folder / "blocks" / f"{layer:05d}.safetensors"

    def finish(self, lm: LanguageModel, layer: int) -> None:
        """Write a finished block as a saved model has it, then the progress that makes it count."""
        file = self.block_file(layer)
        with atomic(file) as partial:
            save_file(stored_block(lm, layer), partial, metadata=METADATA)
            digest = file_digest(partial)

        self.state.done = layer + 1
        self.state.digests.append(digest)
        if isinstance(lm, StreamedModel):
            lm.finished[layer] = self._finished(layer)

        self.state.hidden = None
        if self._carried and layer + 1 < len(lm.blocks):
            self.state.hidden = self._carried.sealed(layer + 1)

        self.write()

    def restore(self, lm: LanguageModel) -> None:
        """Put the finished blocks back into the model; a streamed one reads them when it comes to them."""
        for layer in range(self.state.done):
            block = self._finished(layer)
            if isinstance(lm, StreamedModel):
                lm.finished[layer] = block
                continue

            device = next(lm.blocks[layer].parameters()).device
            of_file = {name: value.clone() for name, value in block.tensors().items()}
            assign_stored(lm, layer, of_file, device)


def _save_rows(rows: Rows, file: Path) -> None:
    tensors = {"ids": rows.ids_RT.contiguous()}
    if rows.weight_RT is not None:
        tensors["weight"] = rows.weight_RT.contiguous()
    if rows.present_RT is not None:
        tensors["present"] = rows.present_RT.contiguous()
    save_file(tensors, file)


def _save_statistics(statistics: DenseStatistics, file: Path) -> None:
    tensors = {}
    linears_in_order = []
    for layer, linears in enumerate(statistics.layers):
        for name, inputs in linears.items():
            linears_in_order.append(f"{layer} {name}")
            for statistic in FIELDS:  # copied, since linears may share them
                tensors[f"{layer} {name} {statistic}"] = getattr(inputs, statistic).clone()

    cost = [statistics.tokens, statistics.left_out_share, statistics.seconds]
    save_file(tensors, file, metadata={"linears": json.dumps(linears_in_order), "cost": json.dumps(cost)})


def _load_statistics(file: Path) -> DenseStatistics:
    with safe_open(file, "pt") as handle:
        cost = json.loads(handle.metadata()["cost"])
        layers: list[dict[str, InputStatistics]] = []
        for key in json.loads(handle.metadata()["linears"]):
            layer, name = key.split(" ")
            if int(layer) == len(layers):
                layers.append({})
            tensors = [handle.get_tensor(f"{key} {statistic}") for statistic in FIELDS]
            layers[-1][name] = InputStatistics(*tensors)

    return DenseStatistics(layers, *cost)
