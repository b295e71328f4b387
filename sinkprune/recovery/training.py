"""The recovery of a pruned model in memory: its zeros are held, and its loss is that of what is saved.

Dimensions: B batch, T sequence position.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sinkprune.evaluation.likelihood import score
from sinkprune.memory import peak_memory
from sinkprune.models.devices import device_name
from sinkprune.models.meta_model import MetaModel
from sinkprune.recovery.checkpoint import Checkpoint, Progress
from sinkprune.recovery.objectives import exercise, loss_of, precision
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText
from sinkprune.recovery.trainable import in_float32, trained
from sinkprune.recovery.trainer import row_of, take_steps
from sinkprune.runs.work_folder import identity
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

REVISION = 1  # of all that decides a result; a checkpoint of another one is refused
MEASUREMENTS = 10  # of the held-out loss during a run, at most
APART = 20  # steps between two of them, at least: one takes about as long as three steps
DRAWS = 2  # noise levels of each held-out sequence


@dataclass(frozen=True)
class Recovered:
    """What a recovery did. Losses are held-out nats per token: a bound (NELBO) of a diffusion model."""

    settings: Recovery
    text: str  # fingerprint
    teacher: str | None  # name
    before: float  # the loss of the pruned model
    after: float
    zeros_before: int  # in the linears of the blocks
    zeros_after: int
    seconds: float  # of the steps and the measurements between them, since a run last began
    core_seconds: float  # of processors, in that time
    saved: str  # dtype of the weights, in which both losses are measured
    memory: int  # bytes at the peak: of the GPU, or of the whole process where there is none
    log: tuple[dict, ...]  # rows of step, tokens, training loss and held-out loss

    def __str__(self) -> str:
        return (
            f"{self.settings.tokens:,} tokens in {self.settings.steps:,} steps; held-out loss "
            f"{self.before:.4f} before and {self.after:.4f} after, in nats per token of the "
            f"weights in {self.saved}; zeros "
            f"{self.zeros_before:,} before and {self.zeros_after:,} after; {self.core_seconds / 60:.1f} "
            f"core-minutes, peak memory {self.memory / 1e9:.1f} GB"
        )

    def card(self) -> dict:
        """Return the report as plain JSON values."""
        return {
            **asdict(self.settings),
            "tokens": self.settings.tokens,
            "text": self.text,
            "teacher": self.teacher,
            "held_out_before": self.before,
            "held_out_after": self.after,
            "saved": self.saved,
            "zeros": self.zeros_after,
            "seconds": round(self.seconds, 1),
            "core_seconds": round(self.core_seconds, 1),
            "memory": self.memory,
            "log": list(self.log),
        }


def recover_model(
    lm: LanguageModel,
    settings: Recovery,
    text: TrainingText,
    teacher: LanguageModel | None = None,
    work: Path | None = None,
    save_every: int = 20,
    progress: bool = True,
    card: Mapping[str, object] | None = None,
) -> Recovered:
    """Train a pruned model in place with its zeros held; return what came of it.

    What is trained is float32 meanwhile; afterwards every parameter has its former dtype, and none takes a
    gradient. `work` is a folder that keeps the state every `save_every` steps: the same call goes on from
    there, with the same versions on the same device, and its result is the same to the bit. The held-out loss
    is measured before, at most ten times on the way, and after. Raises ValueError for a teacher that does not
    fit, more tokens than positions, a work folder of another run or of something else, and where a number is
    not finite; then, and when it is killed, the model's weights are those of no particular step.
    """
    check_teacher(lm, teacher, settings.distillation)
    lm.check_positions(settings.length)

    checkpoint = None
    state = Progress()
    if work is not None:
        checkpoint = Checkpoint(work, _identity(lm, settings, text, teacher, card))
        state = checkpoint.progress

    started = time.perf_counter()
    cores_started = time.process_time()
    if lm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(lm.device)

    zeros_before = lm.count_zeros()
    if not state.log:
        state.log.append(row_of(settings, state) | {"held_out": _loss_of_saved(lm, settings, text)})

    def loss_of_step(step: int) -> torch.Tensor:
        ids_BT = text.crops(settings.batch, settings.length, settings.seed, step)
        task = exercise(lm, ids_BT, generator(settings.seed, "recovery noise", step))
        with precision(lm, settings.dtype):
            return loss_of(lm, task, teacher, settings.distillation)

    measure_every = max(APART, math.ceil(settings.steps / MEASUREMENTS))
    with in_float32(lm), trained(lm, settings) as parameters:
        take_steps(
            settings,
            parameters,
            loss_of_step,
            state,
            measure=lambda _: {"held_out": held_out_loss(lm, settings, text)},
            measured_after=range(measure_every, settings.steps, measure_every),
            checkpoint=checkpoint,
            save_every=save_every,
            title=f"recover {lm.name}" if progress else None,
        )

    state.log.append(row_of(settings, state) | {"held_out": _loss_of_saved(lm, settings, text)})

    return Recovered(
        settings=settings,
        text=text.fingerprint,
        teacher=None if teacher is None else teacher.name,
        before=state.log[0]["held_out"],
        after=state.log[-1]["held_out"],
        zeros_before=zeros_before,
        zeros_after=lm.count_zeros(),
        seconds=time.perf_counter() - started,
        core_seconds=time.process_time() - cores_started,
        saved=str(lm.model.dtype).removeprefix("torch."),
        memory=_peak_memory(lm),
        log=tuple(state.log),
    )


def check_teacher(lm: LanguageModel, teacher: LanguageModel | None, distillation: float) -> None:
    """Raise ValueError for a teacher whose predictions are not about the model's tokens."""
    if teacher is None:
        if distillation > 0:
            raise ValueError(f"distillation={distillation} needs a teacher: name the dense model, or give 0")
        return

    if teacher.kind != lm.kind:
        raise ValueError(
            f"the teacher {teacher.name} is {teacher.kind} and {lm.name} is {lm.kind}: "
            "give the dense model that it was pruned from"
        )

    if not _has_same_tokens(lm, teacher):
        raise ValueError(
            f"the teacher {teacher.name} has another vocabulary or mask token than {lm.name}: "
            "give the dense model that it was pruned from"
        )


def _has_same_tokens(lm: LanguageModel, teacher: LanguageModel) -> bool:
    """Return whether a teacher's tokens are those of a model; without weights only their number is known."""
    if teacher.vocabulary != lm.vocabulary:
        return False
    if isinstance(lm, MetaModel) or isinstance(teacher, MetaModel):
        return True

    is_same_mask = teacher.mask_token_id == lm.mask_token_id
    return is_same_mask and teacher.text_tokenizer.get_vocab() == lm.text_tokenizer.get_vocab()


def _peak_memory(lm: LanguageModel) -> int:
    """Return the bytes at the peak, where a model is trained."""
    if lm.device.type == "cuda":
        return torch.cuda.max_memory_allocated(lm.device)
    return peak_memory()


def _loss_of_saved(lm: LanguageModel, settings: Recovery, text: TrainingText) -> float:
    """Return the held-out loss of the weights as they are saved, computed as while they are trained."""
    with in_float32(lm):
        return held_out_loss(lm, settings, text)


def held_out_loss(lm: LanguageModel, settings: Recovery, text: TrainingText) -> float:
    """Return the mean loss on what is held out, in nats per token, under noise that is always the same."""
    with precision(lm, settings.dtype):
        scores = score(lm, text.held_out_NT, DRAWS, seed=0, batch=settings.batch)
    return float(scores.value.mean())


def _identity(
    lm: LanguageModel,
    settings: Recovery,
    text: TrainingText,
    teacher: LanguageModel | None,
    card: Mapping[str, object] | None,
) -> dict[str, object]:
    """Return all that the result of a run depends on, as plain JSON values."""
    of_card = json.dumps(card, sort_keys=True).encode()
    return {
        **identity(lm, None),
        "revision": REVISION,
        "card": None if card is None else hashlib.sha256(of_card).hexdigest()[:16],
        "text": text.fingerprint,
        "teacher": None if teacher is None else teacher.fingerprint(),
        "device": device_name(lm.device),
        **asdict(settings),
    }
