"""Peak memory of a recovery against its plan: what is held of the model, of LoRA and for the backward pass.

Libraries count on neither side: what is measured begins after a first, tiny recovery, in a process of its
own.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from benchmarks.peaks import PEAK, peak_of, resident_gigabytes
from transformers import LlamaConfig, LlamaForCausalLM

from sinkprune.memory import release_freed_memory
from sinkprune.recovery.recover import needs_of
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText
from sinkprune.recovery.training import recover_model
from sinkprune.runs.memory_and_disk import PROCESS_BYTES
from sinkprune_core import LanguageModel, preset, prune
from sinkprune_core.language_model import set_direction

TINY, SMALL = (1, 32), (4, 384)  # blocks, and their width: the small model has 9 million weights
VOCABULARY = 2000
LENGTH = 128
LOW, HIGH = 0.85, 1.2  # planned / measured


def pruned_model(blocks: int, width: int) -> LanguageModel:
    """Return a diffusion model of random weights, half of them zero."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    model = set_direction(LlamaForCausalLM(config).eval().requires_grad_(False), causal=False)
    lm = LanguageModel(model, None, "random", "diffusion", mask_token_id=0, logits_shifted=False)
    prune(lm, preset("magnitude", sparsity=0.5), progress=False)
    return lm


def memory_of(settings: Recovery) -> tuple[float, float]:
    """Return the gigabytes that a recovery of the small model takes, planned and measured in this process."""
    ids_T = torch.arange(40 * LENGTH) % (VOCABULARY - 1) + 1
    text = TrainingText((ids_T,), ids_T[: 4 * LENGTH].view(4, LENGTH))

    recover_model(pruned_model(*TINY), settings, text, progress=False)  # loads what is loaded on first use
    release_freed_memory()
    before = resident_gigabytes()

    lm = pruned_model(*SMALL)
    planned = needs_of(lm, settings).memory - PROCESS_BYTES
    measured = peak_of(lambda: recover_model(lm, settings, text, progress=False)) - before
    return planned / 1e9, measured


@pytest.mark.skipif(not PEAK.exists(), reason="reads Linux's own account of peak memory")
@pytest.mark.parametrize(
    ("method", "checkpointing"), [("full", False), ("lora", False), ("lora", True)], ids=str
)
def test_a_recovery_takes_the_memory_that_is_planned(method, checkpointing, record):
    """The ratios were 1.08, 1.05 and, in two runs, 1.01 and 0.97 when this was written.

    A plan without the products that LoRA has beside the linears would say 0.8, and one in which gradient
    checkpointing frees no activations, or none of these products, 1.6 and 1.2.
    """
    settings = Recovery(steps=2, batch=4, length=LENGTH, method=method, gradient_checkpointing=checkpointing)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        planned, measured = pool.submit(memory_of, settings).result()

    ratio = planned / measured
    how = f"{method}{', with gradient checkpointing' if checkpointing else ''}"
    record(f"planned memory of a recovery, {how}", ratio, measured, planned, ("measured", "planned"), "GB")
    assert LOW < ratio < HIGH
