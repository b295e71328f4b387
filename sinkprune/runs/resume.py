"""What a killed run resumes from: a work folder with one `state.json`, and files whose digests stand in it.

The state names checkpoints: results that are computed once, a pass over the text after every block, a pruning
run after every block. Files are written first, then the state that names them, and what it no longer names is
removed last; a file that it names is never written to. So a kill at any moment costs the block at work.

Dimensions: R calibration rows, T position, D hidden width, W choices of token weights, B batch, I features.
"""

import copy
import hashlib
import io
import json
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from sinkprune.files import (
    FULL,
    atomic,
    bytes_below,
    file_digest,
    flush,
    free_disk_at,
    json_digest,
    make_folder,
    read_checked,
    room_needed,
    write_checked,
)
from sinkprune.models.streaming import METADATA, FinishedBlock, StreamedModel, assign_stored, stored_block
from sinkprune.scratch import SUFFIX
from sinkprune_core.blocks import BlockInput, Rows
from sinkprune_core.calibration.dense_statistics import (
    DensePass,
    DenseStatistics,
    Origin,
    Seen,
    row_bytes,
    sinks_show,
)
from sinkprune_core.calibration.input_statistics import InputStatistics, Observer, RunningStatistics
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import StatisticsKey, choice_name
from sinkprune_core.calibration.waiting_store import Hidden, PassState, inputs_before
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.diagnosis import Norms
from sinkprune_core.pruning.pruning_run import Progress, PruningRun
from sinkprune_core.pruning.recipe import Recipe, as_settings

STATE = "state.json"
OWN = re.compile(r"state\.json|(job|statistics|norms)-[\w-]+(\.pt)?")  # names of what a work folder holds
STORED = [DenseStatistics, InputStatistics, Norms, Origin, Rows, RunningStatistics, StatisticsKey]  # classes
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")  # of a configuration: no setting
EVERY = 10.0  # seconds between checkpoints of a pass that does not go block by block
SHARE_OF_DISK = 0.5  # of the free room on the disk that inputs of linears may take
CHUNK = 1 << 20  # bytes that are written at a time
LISTED = 3  # names of files that an error lists

Result = TypeVar("Result")

# identity


def identity(lm: LanguageModel, calibration: Calibration | None) -> dict[str, str | bool | None]:
    """Return what a work folder and a pruned model are made from, by name: digests and versions, and whether
    the model was streamed: digests of a streamed and of a loaded model differ.
    """
    settings = lm.model.config.to_dict()
    for name in VOLATILE:
        settings.pop(name, None)

    settings |= {"kind": lm.kind, "mask_token_id": lm.mask_token_id, "logits_shifted": lm.logits_shifted}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        "model": lm.fingerprint(),
        "streamed": not lm.has_blocks_in_memory,
        "settings": hashlib.sha256(text.encode()).hexdigest()[:16],
        "calibration": calibration and calibration.fingerprint,
        "sinkprune": version("sinkprune"),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def settings_digest(settings: Recipe | StatisticsKey) -> str:
    """Return a SHA-256 prefix over all fields of a recipe, or of the part that decides its statistics."""
    return json_digest(as_settings(settings))[:12]


def job_of(recipe: Recipe) -> str:
    """Return the name of a pruning run in a work folder, which is that of its folder there, too."""
    return f"job-{settings_digest(recipe)}"


def check_named(**choices: object) -> None:
    """Raise ValueError for a choice that is a user's function: two of one name would share their files."""
    for name, choice in choices.items():
        if callable(choice):
            raise ValueError(
                f"{name}={choice_name(choice)} is a function, and a work folder knows choices by name: "
                "leave out work=, with a model that is loaded whole, or give a choice that has a name"
            )


# the work folder


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of a work folder; None for a folder that is empty or not there.

    Raises ValueError for a file, for a folder with other files, and for a state that is not what was written.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ValueError(f"the work folder {folder} is a file: choose another folder")

    file = folder / STATE
    if file.exists():
        state = read_checked(file)
        if state is None:
            raise ValueError(
                f"{file} is damaged, or none of this program's: choose another work folder, "
                f"or remove {folder} to begin anew"
            )
        return state

    others = sorted(path.name for path in folder.iterdir() if not path.name.endswith(SUFFIX))
    if others:
        listed = ", ".join(others[:LISTED]) + (" and more" if len(others) > LISTED else "")
        raise ValueError(
            f"{folder} is not a work folder of this command, it holds {listed}: nothing in it was touched; "
            "choose another work folder"
        )
    return None


def read_identity(root: Path) -> dict[str, Any]:
    """Return the identity of the runs in a work folder, {} where none was begun.

    Raises what `read_state` raises.
    """
    return (read_state(root) or {}).get("identity", {})


def remove_own(folder: Path, own: re.Pattern = OWN) -> bool:
    """Remove from a folder what has one of a run's `own` names, its state last, and the folder where it is
    empty then; return whether the folder is gone.
    """
    paths = [path for path in folder.iterdir() if own.fullmatch(path.name) or path.name.endswith(SUFFIX)]
    for path in sorted(paths, key=lambda path: path.name == STATE):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def remove_job(root: Path, recipe: Recipe) -> None:
    """Remove a pruning run from a work folder."""
    if known := read_identity(root):
        WorkFolder(root, known).remove(job_of(recipe))


def remove_root(root: Path) -> bool:
    """Remove a work folder without pruning runs; return whether it is gone: runs and files of others stay."""
    has_jobs = any(path.name.startswith("job-") for path in root.iterdir())
    return not has_jobs and remove_own(root)


class WorkFolder:
    """The checkpoints of the runs of one model and one calibration text; the lock of the folder is held.

    Made, or found and checked. Raises ValueError, naming what differs, for that of another model, calibration
    text or version, and what `read_state` raises.
    """

    def __init__(self, root: Path, mine: Mapping[str, object]):
        self.root = root
        state = read_state(root)
        self.state = state or {"identity": dict(mine), "checkpoints": {}}

        there = self.state.get("identity", {})
        differing = [
            f"{name} ({there.get(name)} there, {value} here)"
            for name, value in mine.items()
            if there.get(name) != value
        ]
        if differing or "checkpoints" not in self.state:
            raise ValueError(
                f"the work folder {root} belongs to another run; it differs in {', '.join(differing)}: "
                "load the model again if it was changed since, use another folder, or remove it to start anew"
            )
        if state is None:
            self._write()

    def _write(self) -> None:
        write_checked(self.root / STATE, self.state)

    def files(self, name: str) -> dict[Path, str]:
        """Return the files of a checkpoint, and the digest of each."""
        entry = self.state["checkpoints"].get(name, {"files": {}})
        return {self.root / file: digest for file, digest in entry["files"].items()}

    def save(self, name: str, values: Mapping[str, object], files: Mapping[Path, str]) -> None:
        """Keep a checkpoint in place of the former one of that name; its files are on the disk already."""
        former = self.files(name)
        by_name = {str(file.relative_to(self.root)): digest for file, digest in files.items()}
        self.state["checkpoints"][name] = {"values": values, "files": by_name}
        self._write()
        for file in former.keys() - files.keys():
            file.unlink(missing_ok=True)

    def load(self, name: str) -> dict[str, Any] | None:
        """Return the values of a checkpoint, None where there is none; one with a damaged file is removed."""
        if name not in self.state["checkpoints"]:
            return None

        for file, digest in self.files(name).items():
            if not (file.is_file() and file_digest(file) == digest):
                warnings.warn(f"{file} is damaged: {name} begins anew", stacklevel=3)
                self.remove(name)
                return None
        return copy.deepcopy(self.state["checkpoints"][name]["values"])

    def remove(self, name: str) -> None:
        """Remove a checkpoint, those below it, and their files."""
        checkpoints = self.state["checkpoints"]
        names = [known for known in checkpoints if known == name or known.startswith(f"{name}/")]
        files = [file for known in names for file in self.files(known)]
        if names:
            self.state["checkpoints"] = {key: checkpoints[key] for key in checkpoints if key not in names}
            self._write()

        for file in files:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.root / name, ignore_errors=True)

    def result(self, name: str, compute: Callable[[], Result]) -> Result:
        """Return a result that is computed once."""
        file = self.root / f"{name}.pt"
        if self.load(name) is None:
            self.save(name, {}, {file: save_object(compute(), file)})
        return load_object(file)


def save_object(value: object, file: Path) -> str:
    """Write an object of the classes in STORED; return the SHA-256 of the file."""
    buffer = io.BytesIO()  # torch itself does not say that a disk is full
    torch.save(value, buffer)
    with atomic(file) as partial:
        partial.write_bytes(buffer.getbuffer())
        return file_digest(partial)


def load_object(file: Path) -> Any:
    """Read what `save_object` has written."""
    with torch.serialization.safe_globals(STORED):
        return torch.load(file, weights_only=True)


# a pass over the text


@dataclass(frozen=True)
class HiddenFiles:
    """The hidden states (R, T, D) before every block, memory-mapped; only two blocks' exist at a time."""

    folder: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    def __call__(self, layer: int) -> torch.Tensor:
        """Return the tensor for the hidden states before a block, in a file that is made where it is not.

        Raises OSError where the disk has no room for it.
        """
        file = self.file(layer)
        numbers = math.prod(self.shape)
        size = numbers * self.dtype.itemsize
        if not (file.is_file() and file.stat().st_size == size):
            _allocate(file, size)
        return torch.from_file(str(file), shared=True, size=numbers, dtype=self.dtype).view(self.shape)

    def file(self, layer: int) -> Path:
        """Return the file of the hidden states before a block."""
        return self.folder / f"hidden-{layer}.bin"

    def sealed(self, layer: int) -> str:
        """Return the SHA-256 of the hidden states before a block, after they have reached the disk."""
        flush(self.file(layer))
        return file_digest(self.file(layer))

    def remove_but(self, layer: int | None) -> None:
        """Remove the files of all blocks but one."""
        for file in self.folder.glob("hidden-*.bin"):
            if layer is None or file != self.file(layer):
                file.unlink()


def _allocate(file: Path, size: int) -> None:
    """Make a file of `size` bytes whose space is really its own: a mapped hole would kill the process."""
    make_folder(file.parent)
    file.unlink(missing_ok=True)  # never cut short: the former file may still be mapped
    try:
        with room_needed(f"{size / 1e9:.3g} GB of hidden states in {file}"), file.open("wb") as handle:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, size)
                return

            zeros = bytes(CHUNK)
            for start in range(0, size, CHUNK):
                handle.write(zeros[: size - start])
    except OSError:
        file.unlink(missing_ok=True)
        raise


class PassCheckpoint:
    """The checkpoint of one pass; inputs of linears wait beside it in files, as in the core's `Held`."""

    def __init__(self, work: WorkFolder, folder: str, about: tuple):
        self.work = work
        self.name = f"{folder}/pass-{json_digest(_plain(about))[:12]}"
        self.folder = work.root / folder
        self.inputs: dict[Path, str] = {}  # digests
        self.done = 0  # of what the pass counts: blocks, rows, inputs
        self.saved_at = time.monotonic()

    def restore(self, state: PassState) -> int:
        """Let a pass be as it was at its checkpoint; return how much of it is done, 0 where there is none."""
        values = self.work.load(self.name)
        if values is None:
            return 0

        self.done = values["done"]
        sums, observed = load_object(self._sums_file(self.done))
        for name, total in state.sums.items():
            total.copy_(sums[name])
        if state.observer is not None:
            state.observer.running, state.observer.waiting, state.observer.arrived = observed

        files = self.work.files(self.name).items()
        self.inputs = {file: digest for file, digest in files if file.parent.name == "inputs"}
        return self.done

    def save(
        self,
        done: int,
        sums: dict[str, torch.Tensor],
        observer: Observer | None,
        hidden: Hidden | None = None,
        is_last: bool = False,
    ) -> None:
        """Keep a checkpoint; of a pass without hidden states only every few seconds, and the last one."""
        self.done = done
        if hidden is None and not is_last and time.monotonic() - self.saved_at < EVERY:
            return

        observed = None if observer is None else (observer.running, observer.waiting, observer.arrived)
        file = self._sums_file(done)
        files = {file: save_object((sums, observed), file), **self.inputs}
        if isinstance(hidden, HiddenFiles) and not is_last:
            files[hidden.file(done)] = hidden.sealed(done)

        self.work.save(self.name, {"done": done}, files)
        if isinstance(hidden, HiddenFiles):
            hidden.remove_but(None if is_last else done)
        self.saved_at = time.monotonic()

    def _sums_file(self, done: int) -> Path:
        return self.work.root / f"{self.name}-{done}.pt"

    def __setitem__(self, number: int, input_BTI: torch.Tensor, /) -> None:
        """Write an input into a file; raises OSError where the disk has no room."""
        file = self._input_file(number)
        make_folder(file.parent)
        with room_needed(f"inputs in {file.parent}"):
            save_file({"input": input_BTI.contiguous()}, file)
        self.inputs[file] = file_digest(file)

    def pop(self, number: int, /) -> torch.Tensor:
        """Read an input; its file stays until the whole pass is removed."""
        return load_file(self._input_file(number), backend="pread")["input"]

    def _input_file(self, number: int) -> Path:
        return self.folder / "inputs" / f"{number}.safetensors"


def _plain(about: object) -> object:
    """Return what tells a pass from others as values of JSON."""
    if isinstance(about, torch.Tensor):
        return hashlib.sha256(about.numpy().tobytes()).hexdigest()
    if isinstance(about, StatisticsKey):
        return as_settings(about)
    if isinstance(about, (tuple, list)):
        return [_plain(part) for part in about]
    return about


class ResumedSteps:
    """The steps of a pass that are left; a checkpoint follows each of them."""

    def __init__(self, checkpoint: PassCheckpoint, steps: range, state: PassState):
        self.checkpoint = checkpoint
        self.state = state
        self.start = checkpoint.restore(state) or steps.start
        self.stop = steps.stop
        self.step = steps.step

    def __iter__(self) -> Iterator[int]:
        """Yield the steps."""
        state = self.state
        for step in range(self.start, self.stop, self.step):
            yield step
            done = step + self.step
            self.checkpoint.save(done, state.sums, state.observer, state.hidden, is_last=done >= self.stop)


@dataclass(frozen=True)
class DiskStore:
    """The store of passes in a folder of a work folder (`sinkprune_core.calibration.waiting_store.Store`)."""

    work: WorkFolder
    name: str  # of the folder

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.work.root / self.name

    def hidden(self, lm: LanguageModel, rows: Rows) -> HiddenFiles:
        """Return the files of the hidden states of some rows."""
        count, length = rows.ids_RT.shape
        return HiddenFiles(self.folder, (count, length, lm.model.config.hidden_size), lm.model.dtype)

    def steps(self, steps: range, state: PassState) -> ResumedSteps:
        """Return the steps from the last checkpoint of a pass on."""
        return ResumedSteps(self.checkpoint(state.about), steps, state)

    def checkpoint(self, about: tuple) -> PassCheckpoint:
        """Return the checkpoint of a pass."""
        return PassCheckpoint(self.work, self.name, about)

    def result(self, name: str, compute: Callable[[], Result]) -> Result:
        """Return a result that passes compute once; they are removed then."""
        found = self.work.result(name, compute)
        self.work.remove(self.name)
        return found


# statistics of the dense model


def bytes_that_wait(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    store: DiskStore,
    device: torch.device | str | None = None,
) -> int:
    """Return the bytes of all inputs for `keys`, where they may wait on the disk until their sinks are known.

    The text then passes once, which changes no result. It is 0 where the disk has no room for all, where
    sinks do not show in these forwards, and on a GPU, which computes inputs again sooner.
    """
    first = keys[0]
    is_on_cpu = torch.device(device or lm.device).type == "cpu"
    if not is_on_cpu or not sinks_show(lm, keys, calibration):
        return 0

    sequences, length = calibration.ids_NT.shape
    states = first.noise_levels if lm.is_diffusion else 1
    total = sequences * states * row_bytes(lm, length)
    room = free_disk_at(store.folder) + bytes_below(store.folder / "inputs")
    return total if total <= SHARE_OF_DISK * room else 0


@dataclass(frozen=True)
class ResumedPass(DensePass):
    """A pass of the dense model that resumes from its checkpoint, and whose inputs may wait on the disk."""

    store: DiskStore

    def run(self) -> Seen:
        """Send the rows through the model, and their inputs through the disk where these may wait there."""
        if self.joint_rows is None and bytes_that_wait(self.lm, self.keys, self.calibration, self.store):
            try:
                return self._through_disk()
            except OSError as error:  # of a quota, or of a disk that others fill
                if error.errno not in FULL:
                    raise
                self.store.work.remove(self.store.name)

        return super().run()

    def _through_disk(self) -> Seen:
        """Send all rows through block after block once; inputs wait for what the last one shows.

        The pass has two phases: blocks show the sinks, then inputs are summed with the weights that follow.
        Its checkpoint counts on from one to the other: first blocks, then all blocks and the inputs.
        """
        checkpoint = self.store.checkpoint(("sinks and inputs", self.keys))

        with self.observed(held=checkpoint) as observer:
            store = _ObservingStore(self.store.work, self.store.name, checkpoint, observer)
            ids_RT, weight_WRT = self.weighted_rows(store)

            waiting = list(observer.waiting)
            for running in tqdm(waiting, "statistics", disable=not self.progress, leave=False, unit="input"):
                observer.add_waiting(running, weight_WRT)
                checkpoint.save(checkpoint.done + 1, store.sums, observer)

            observer.forget()

        return Seen(ids_RT, weight_WRT, observer)


@dataclass(frozen=True)
class _ObservingStore(DiskStore):
    """The store of forwards that show sinks, while the inputs of all linears wait beside them."""

    of_both: PassCheckpoint
    observer: Observer
    sums: dict[str, torch.Tensor] = field(default_factory=dict)

    def steps(self, steps: range, state: PassState) -> ResumedSteps:
        """Return the steps that are left of the pass that does both."""
        self.sums.update(state.sums)
        return ResumedSteps(self.of_both, steps, replace(state, observer=self.observer))


# pruning


class ResumedRun(PruningRun):
    """A pruning run in a work folder: rows, statistics and finished blocks come back after a kill.

    Blocks of a streamed model are read when they are taken.
    """

    dense_pass = ResumedPass

    def __init__(self, work: WorkFolder, lm: LanguageModel, recipe: Recipe, *arguments: Any):
        self.work = work
        self.job = job_of(recipe)
        self.passes = DiskStore(work, f"{self.job}/passes")
        super().__init__(lm, recipe, *arguments, store=self.passes)

        self.progress = Progress(**(work.load(self.job) or {}))
        files = sorted(work.files(self.job).items())
        self.blocks = [FinishedBlock(*file) for file in files if file[0].name.startswith("block-")]
        self.hidden: HiddenFiles | None = None  # before blocks, where text goes through them

    def make_rows(self) -> Rows:
        """Return the rows of this job."""
        return self.passes.result(f"{self.job}/rows", super().make_rows)

    def take_dense(self) -> DenseStatistics:
        """Return the statistics that serve all jobs of this text."""
        name = f"statistics-{settings_digest(self.recipe.statistics_key)}"
        return self.passes.result(name, super().take_dense)

    def keep_decisions(self) -> None:
        """Write what was decided."""
        self.work.save(self.job, asdict(self.progress), self.work.files(self.job))

    def resume(self, rows: Rows | None) -> list[BlockInput]:
        """Take finished blocks back; return what the next one receives of `rows`, [] where none need run."""
        for layer, block in enumerate(self.blocks):
            self._take_back(layer, block)

        self.store = DiskStore(self.work, self.job)  # of hidden states between pruned blocks
        if rows is None or self.calibration is None:
            return []
        self.hidden = self.store.hidden(self.lm, rows)
        return inputs_before(self.lm, rows, self.calibration.batch, self.hidden, self.progress.done)

    def _take_back(self, layer: int, block: FinishedBlock) -> None:
        if isinstance(self.lm, StreamedModel):
            self.lm.finished[layer] = block
            return

        device = next(self.lm.blocks[layer].parameters()).device
        of_file = {name: value.clone() for name, value in block.tensors().items()}
        assign_stored(self.lm, layer, of_file, device)

    def finish(self, layer: int) -> None:
        """Write a pruned block as a saved model has it, and then the state, which makes it count."""
        file = self.work.root / self.job / f"block-{layer:05d}.safetensors"
        with atomic(file) as partial:
            save_file(stored_block(self.lm, layer), partial, metadata=METADATA)
            self.blocks.append(FinishedBlock(file, file_digest(partial)))
        if isinstance(self.lm, StreamedModel):
            self.lm.finished[layer] = self.blocks[layer]

        super().finish(layer)
        files = {block.file: block.sha256 for block in self.blocks}
        following = layer + 1 if layer + 1 < len(self.lm.blocks) else None
        if self.hidden is not None and following is not None:
            files[self.hidden.file(following)] = self.hidden.sealed(following)

        self.work.save(self.job, asdict(self.progress), files)
        if self.hidden is not None:
            self.hidden.remove_but(following)
