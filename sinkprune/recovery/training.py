"""The loop that recovers a pruned model in memory: its zeros are held, and a kill costs a few steps.

Dimensions: B batch, N sequences, T sequence position.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import trange

from sinkprune.evaluation.likelihood import score
from sinkprune.memory import peak_memory
from sinkprune.models.devices import device_name
from sinkprune.models.meta_model import MetaModel
from sinkprune.recovery.checkpoint import RecoveryCheckpoint
from sinkprune.recovery.objectives import exercise, loss_of, precision
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText
from sinkprune.recovery.trainable import in_float32, trained
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

REVISION = 1  # of all that decides a result; a checkpoint of another one is refused
CLIPPED = 1.0  # the norm that all gradients together are clipped to
BETAS = (0.9, 0.95)  # of AdamW, which decays no weights here
MEASUREMENTS = 10  # of the held-out loss during a run
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
    memory: int  # bytes at the peak: of the GPU, or of the whole process where there is none
    log: tuple[dict, ...]  # rows of step, tokens, training loss and held-out loss

    def __str__(self) -> str:
        return (
            f"{self.settings.tokens:,} tokens in {self.settings.steps:,} steps; held-out loss "
            f"{self.before:.4f} before and {self.after:.4f} after, in nats per token; zeros "
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
    if work is not None:
        checkpoint = RecoveryCheckpoint(work, _identity(lm, settings, text, teacher))

    started = time.perf_counter()
    cores_started = time.process_time()
    if lm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(lm.device)

    zeros_before = lm.count_zeros()
    with in_float32(lm), trained(lm, settings) as parameters:
        log = _all_steps(lm, settings, text, teacher, parameters, checkpoint, save_every, progress)

    return Recovered(
        settings=settings,
        text=text.fingerprint,
        teacher=None if teacher is None else teacher.name,
        before=log[0]["held_out"],
        after=log[-1]["held_out"],
        zeros_before=zeros_before,
        zeros_after=lm.count_zeros(),
        seconds=time.perf_counter() - started,
        core_seconds=time.process_time() - cores_started,
        memory=_peak_memory(lm),
        log=tuple(log),
    )


def _all_steps(
    lm: LanguageModel,
    settings: Recovery,
    text: TrainingText,
    teacher: LanguageModel | None,
    parameters: Mapping[str, nn.Parameter],
    checkpoint: RecoveryCheckpoint | None,
    save_every: int,
    progress: bool,
) -> list[dict]:
    """Take the steps that are left, and keep the state as often as asked; return the rows of the log."""
    optimizer = torch.optim.AdamW(parameters.values(), settings.rate(0), betas=BETAS, weight_decay=0.0)

    done, log = 0, []
    if checkpoint is not None:
        done, log = checkpoint.restore(parameters, optimizer)
    if not log:
        log = [{"step": 0, "tokens": 0, "loss": None, "held_out": held_out_loss(lm, settings, text)}]

    steps = trange(
        done,
        settings.steps,
        initial=done,
        total=settings.steps,
        desc=f"recover {lm.name}",
        disable=not progress,
    )
    measure_every = math.ceil(settings.steps / MEASUREMENTS)

    with steps:
        for step in steps:
            loss = one_step(lm, settings, text, teacher, parameters, optimizer, step)
            done = step + 1
            is_last = done == settings.steps

            if is_last or done % measure_every == 0:
                row = {
                    "step": done,
                    "tokens": done * settings.batch_tokens,
                    "loss": loss,
                    "held_out": held_out_loss(lm, settings, text),
                }
                log.append(row)

            if checkpoint is not None and (is_last or done % save_every == 0):
                checkpoint.save(parameters, optimizer, done, log)

            steps.set_postfix(loss=f"{loss:.3f}", held_out=f"{log[-1]['held_out']:.3f}")

    return log


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


def held_out_loss(lm: LanguageModel, settings: Recovery, text: TrainingText) -> float:
    """Return the mean loss on what is held out, in nats per token, under noise that is always the same."""
    with precision(lm, settings.dtype):
        scores = score(lm, text.held_out_NT, DRAWS, seed=0, batch=settings.batch)
    return float(scores.value.mean())


def _identity(
    lm: LanguageModel, settings: Recovery, text: TrainingText, teacher: LanguageModel | None
) -> dict[str, object]:
    """Return all that the result of a run depends on, as plain JSON values."""
    return {
        "revision": REVISION,
        "model": lm.fingerprint(),
        "text": text.fingerprint,
        "teacher": None if teacher is None else teacher.fingerprint(),
        "device": device_name(lm.device),
        "sinkprune": version("sinkprune"),
        "torch": version("torch"),
        "transformers": version("transformers"),
        **asdict(settings),
    }


def one_step(
    lm: LanguageModel,
    settings: Recovery,
    text: TrainingText,
    teacher: LanguageModel | None,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> float:
    """Take an optimizer step; return its loss in nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(step)

    ids_BT = text.crops(settings.batch, settings.length, settings.seed, step)
    task = exercise(lm, ids_BT, generator(settings.seed, "recovery noise", step))
    with precision(lm, settings.dtype):
        loss = loss_of(lm, task, teacher, settings.distillation)

    loss.backward()

    norm = nn.utils.clip_grad_norm_(list(parameters.values()), CLIPPED)
    if not bool(torch.isfinite(norm)):
        raise ValueError(
            f"step {step + 1}: the gradient is not finite; take a smaller learning_rate than "
            f"{settings.learning_rate}"
        )

    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
