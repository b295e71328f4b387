"""Time of a training step against the plain loop, as a ratio measured in one run; and speeds on all cores."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from sinkprune import corpus
from sinkprune.models import embedded
from sinkprune.recovery.objectives import exercise, loss_of, precision
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.training.base import open_base
from sinkprune_companion.training.lora import trainable
from sinkprune_companion.training.settings import Training
from sinkprune_core.diffusion.noise import corrupt, random_mask, stratified_counts
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

CONFIG = Training()
SAMPLE_LENGTH = 128
ROWS = CONFIG.batch_tokens // SAMPLE_LENGTH


@pytest.fixture(scope="module")
def trainee() -> tuple[LanguageModel, list[torch.nn.Parameter]]:
    model, lm = trainable(
        CONFIG, open_base(CONFIG.base), embedded.ADAPTER
    )  # a fresh one has gradients that bfloat16 does not resolve
    return lm, [parameter for parameter in model.parameters() if parameter.requires_grad]


def masked_cross_entropy(lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The loss as training computes it."""
    return loss_of(lm, exercise(lm, ids_BT, rng))


def plain_loss(lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The loss as a plain loop computes it: logits of every position, and the unmasked ones thrown away."""
    maskable_T = torch.arange(ids_BT.shape[1]) > 0
    counts_B = stratified_counts(len(ids_BT), ids_BT.shape[1] - 1, rng)
    where_BT = torch.stack([random_mask(maskable_T, int(count), rng) for count in counts_B])
    masked_BT = where_BT.clone()
    masked_BT[:, 0] = torch.rand(len(ids_BT), generator=rng) < counts_B / (ids_BT.shape[1] - 1)
    input_BT = corrupt(ids_BT, masked_BT, lm.mask_token_id)
    logits_BTV = lm.model(input_BT, use_cache=False).logits[:, :-1].float()
    loss_BT = (
        torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
        * where_BT[:, 1:]
    )
    return (loss_BT.sum(1) / counts_B).mean()


def test_a_step_is_faster_than_the_plain_loop_and_has_its_gradients(trainee, record):
    lm, trained = trainee
    keep_freed_memory()
    ids_BT = corpus.shipped_samples(SAMPLE_LENGTH, held_out=False)[:ROWS]

    def step(loss_of) -> tuple[float, torch.Tensor]:
        begun = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(lm, ids_BT, generator(0))
        loss.backward()
        seconds = time.process_time() - begun
        gradient = torch.cat([parameter.grad.flatten() for parameter in trained])
        for parameter in trained:
            parameter.grad = None
        return seconds, gradient

    def plain() -> tuple[float, torch.Tensor]:
        former = lm.model.config._attn_implementation
        lm.model.set_attn_implementation("sdpa")
        try:
            return step(plain_loss)
        finally:
            lm.model.set_attn_implementation(former)

    first, other = step(masked_cross_entropy)[1], plain()[1]
    assert torch.nn.functional.cosine_similarity(first, other, dim=0) > 0.99
    pairs = [(step(masked_cross_entropy)[0], plain()[0]) for _ in range(5)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    after, before = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert record(
        f"a training step of {ids_BT.numel()} tokens", ratio, before, after, ("plain", "ours"), at_least=1.1
    )


@contextmanager
def all_cores() -> Iterator[None]:
    former = torch.get_num_threads()
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    try:
        yield
    finally:
        torch.set_num_threads(former)


def test_steps_on_all_cores(trainee, record):
    lm, trained = trainee
    keep_freed_memory()
    optimizer = torch.optim.AdamW(trained)
    ids_BT = corpus.shipped_samples(SAMPLE_LENGTH, held_out=False)[:ROWS]

    def step(number: int) -> None:
        with precision(lm, "bfloat16"):
            loss = masked_cross_entropy(lm, ids_BT, generator(number))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with all_cores():
        step(0)
        begun = time.perf_counter()
        for number in range(1, 6):
            step(number)
        speed = 5 * ids_BT.numel() / (time.perf_counter() - begun)
        record(
            "training tokens per second, smol-dlm", speed, None, speed, ("", "here"), "tokens/s", at_least=400
        )
