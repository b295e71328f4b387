"""The trainer: steps of AdamW, a log of what is measured between them, and a state that a kill leaves.

What is learned is its caller's: `recover` hands in the loss of a pruned model, and `sinkprune train` that of
an adapter or of a model from scratch.
"""

from collections.abc import Callable, Container, Mapping
from typing import Protocol

import torch
from torch import nn
from tqdm.auto import trange

from sinkprune.recovery.checkpoint import Checkpoint, Progress

CLIPPED = 1.0  # the norm that all gradients together are clipped to
BETAS = (0.9, 0.95)  # of AdamW, which decays no weights here


class Schedule(Protocol):
    """The settings of a training that decide its steps."""

    @property
    def steps(self) -> int:
        """How many there are."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of each."""
        ...

    def rate(self, step: int) -> float:
        """Return the learning rate at `step`, counted from 0."""
        ...


def take_steps(
    schedule: Schedule,
    parameters: Mapping[str, nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    progress: Progress,
    *,
    measure: Callable[[int], dict],
    measured_after: Container[int],
    checkpoint: Checkpoint | None = None,
    save_every: int = 20,
    title: str | None = None,
) -> None:
    """Take the steps that are left of a schedule, and note them in `progress`.

    `loss_of_step` returns a scalar with a gradient, in nats per token, that depends on the number of the step
    alone. After as many steps as are in `measured_after` the log gets a row: the mean `loss` since the row
    before, and what `measure` says. The state is kept every `save_every` steps and after the last one. A
    `title` shows a progress bar. Raises ValueError where a gradient is not finite.
    """
    optimizer = torch.optim.AdamW(parameters.values(), schedule.rate(0), betas=BETAS, weight_decay=0.0)
    if checkpoint is not None:
        checkpoint.restore(parameters, optimizer)

    steps = trange(
        progress.step,
        schedule.steps,
        initial=progress.step,
        total=schedule.steps,
        unit="step",
        desc=title,
        disable=title is None,
    )

    with steps:
        for step in steps:
            loss = one_step(schedule, parameters, optimizer, loss_of_step, step)
            progress.step = step + 1
            progress.recent.append(loss)

            if progress.step in measured_after:
                progress.log.append(row_of(schedule, progress) | measure(step))
                progress.recent = []

            is_last = progress.step == schedule.steps
            if checkpoint is not None and (is_last or progress.step % save_every == 0):
                checkpoint.save(parameters, optimizer, progress)

            steps.set_postfix(loss=f"{loss:.3f}")


def row_of(schedule: Schedule, progress: Progress) -> dict:
    """Return the beginning of a row of the log: how far it is, and the mean loss since the row before."""
    recent = progress.recent
    return {
        "step": progress.step,
        "tokens": progress.step * schedule.batch_tokens,
        "loss": sum(recent) / len(recent) if recent else None,
    }


def one_step(
    schedule: Schedule,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    loss_of_step: Callable[[int], torch.Tensor],
    step: int,
) -> float:
    """Take an optimizer step; return its loss in nats per token."""
    rate = schedule.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate

    loss = loss_of_step(step)
    loss.backward()

    norm = nn.utils.clip_grad_norm_(list(parameters.values()), CLIPPED)
    if not bool(torch.isfinite(norm)):
        raise ValueError(
            f"step {step + 1}: the gradient is not finite; take a smaller learning_rate, it is {rate:g} here"
        )

    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
