"""Turn a causal language model into a masked diffusion model with a LoRA adapter, or train a small one from
scratch, resumably.

Attention becomes bidirectional, a reserved vocabulary entry the absorbing mask token, logits stay shifted
(position i-1 predicts token i), as Dream was adapted from Qwen2.5. The next-token loss and causal attention
give an autoregressive twin, which by the same settings sees the same text in the same order. Data, learning
rate and stopping are chosen by held-out loss alone.

Dimensions: B batch, N sequences or predicted positions, T sequence position, V vocabulary.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy
from tqdm.auto import trange
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sinkprune.evaluation.likelihood import score
from sinkprune.files import locked, make_folder
from sinkprune.models.adapters import open_adapter
from sinkprune.models.devices import choose_dtype
from sinkprune.recovery.objectives import exercise
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.training import settings as kept
from sinkprune_companion.training.base import EMBEDDED_BASE, FACTS, SHAPE, Base, InTraining, open_base
from sinkprune_companion.training.crops import crop_batch, make_vocabulary, prepare_data
from sinkprune_companion.training.settings import Training
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, checked_arguments

MEASURES = {"diffusion": "nelbo", "autoregressive": "nll"}  # what the log calls the loss of a kind
LOGGED_SEQUENCES = 32  # of each held-out source and kind, whose mean loss the log has
LOGGED_DRAWS = 2  # noise levels of each sequence


@checked_arguments
def train(
    config: Training,
    folder: Path,
    begin_with: Path | None = None,
    check_every: Count = 250,
    save_every: Count = 20,
    text: str | None = None,
    device: str = "cpu",
    wikitext: bool = False,
) -> Path:
    """Train what is in `folder`, going on from its checkpoint if there is one; return the checkpoint.

    `begin_with` is an exported adapter that was trained with other settings, on other text say: the run
    begins at step 0 with its weights instead of fresh ones, and keeps among its settings how many tokens it
    has seen. `text` and `wikitext` are what `prepare_data` takes. Every `check_every` steps the log receives
    training loss since the last row or start, held-out loss (both in nats per token), learning rate and
    speed; every `save_every` steps, and then too, the checkpoint is replaced. Raises ValueError when `folder`
    holds another run, RuntimeError when another process trains there, and what `open_base` and
    `prepare_data` raise.
    """
    measure = MEASURES[config.kind]
    make_folder(folder)

    with locked(folder):
        checkpoint = kept.newest_checkpoint(folder)
        resumes = checkpoint.exists()
        base = open_base(config.base, config.mask_token, max(config.lengths), config.kind)
        if begin_with is not None:
            config = kept.going_on(config, base, begin_with)

        kept.check_settings(config, folder)
        kept.check_base(base, folder)
        if config.from_scratch:
            base = base.from_scratch(make_vocabulary(folder, text, wikitext))

        is_embedded = config.base == EMBEDDED_BASE
        by_source, held_out = prepare_data(
            base.tokenizer(), folder, is_embedded, config.lengths, text, base.mask_token_id, wikitext
        )
        streams = list(by_source.values())
        keep_freed_memory()
        model, lm = trainable(config, base, checkpoint if resumes else begin_with, device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        first = kept.restore_optimizer(optimizer, checkpoint) if resumes else 0
        if first >= config.steps and Training(**kept.settings_of(folder / kept.SETTINGS)) != config:
            raise ValueError(f"{folder} holds a run that is done, with other settings: use another folder")

        kept.write_settings(config, base, folder)
        recent = []  # losses since the last row of the log
        since = time.perf_counter()

        steps = trange(first, config.steps, initial=first, total=config.steps, unit="step", desc="train")
        for number in steps:
            ids_BT = crop_batch(streams, config.lengths, config.batch_tokens, config.seed, number)
            recent.append(_step(config, lm, optimizer, ids_BT, number))
            done = number + 1

            is_logged = done % check_every == 0 or done == config.steps
            if is_logged:
                row = {
                    "step": done,
                    "tokens": done * config.batch_tokens,
                    f"train_{measure}": sum(recent) / len(recent),
                    "learning_rate": config.rate(number),
                    "tokens_per_second": len(recent) * config.batch_tokens / (time.perf_counter() - since),
                }
                row |= held_out_losses(lm, held_out, config.dtype)
                kept.add_row(folder / kept.LOG, row)
                steps.set_postfix({name: f"{value:.3f}" for name, value in row.items() if measure in name})
                recent = []
                since = time.perf_counter()

            if is_logged or done % save_every == 0:
                kept.save_checkpoint(model, optimizer, checkpoint, done)

    return checkpoint


def _step(
    config: Training, lm: LanguageModel, optimizer: torch.optim.Optimizer, ids_BT: torch.Tensor, number: int
) -> float:
    """Take optimizer step `number`; return its loss in nats per token."""
    (group,) = optimizer.param_groups
    group["lr"] = config.rate(number)

    rng = generator(config.seed, "train", number)
    with precision_of(lm, config.dtype):
        loss = LOSSES[config.kind](lm, ids_BT, rng, config.noise_level(number))

    loss.backward()
    torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    return loss.item()


def trainable(
    config: Training, base: Base, trained: Path | None = None, device: str = "cpu"
) -> tuple[PeftModel | PreTrainedModel, LanguageModel]:
    """Return the model to be trained, float32 on a base of the settings' dtype, also as a language model.

    It goes on from what was `trained`, an adapter or the weights of a model from scratch, or begins afresh.
    """
    if config.from_scratch and trained is None:
        ends = base.tokenizer()
        shape = LlamaConfig(**SHAPE, bos_token_id=ends.bos_token_id, eos_token_id=ends.eos_token_id)
        torch.manual_seed(config.seed)
        model = network = LlamaForCausalLM(shape)
    elif config.from_scratch:
        model = network = LlamaForCausalLM.from_pretrained(trained, dtype=torch.float32)
    else:
        network = base.checkpoint.load(choose_dtype(config.dtype))
        if trained is None:
            torch.manual_seed(config.seed)  # LoRA's own initialisation draws from the global generator
            plain = {"r": config.rank, "lora_alpha": config.alpha, "target_modules": FACTS["linears"]}
            model = get_peft_model(network, LoraConfig(**plain, task_type="CAUSAL_LM"))
        else:
            model = open_adapter(network, trained, trainable=True)

    if torch.device(device).type == "cpu":
        network.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's

    model.to(device)
    return model, base.member(network, config.kind, InTraining)


# losses, in nats per token


def masked_cross_entropy(
    lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator, level: float | None = None
) -> torch.Tensor:
    """Return a one-batch estimate of the NELBO in nats per token, or of the part of it at one noise `level`.

    Position 0 is masked as often as any other, and never predicted, as the twin's is not.
    """
    task = exercise(lm, ids_BT, rng, level)
    logits_NV = lm.logits_at(task.input_BT, task.where_BT)
    loss_N = cross_entropy(logits_NV, task.target_N.to(logits_NV.device), reduction="none")

    counts_B = task.where_BT.sum(1)
    masks_N = counts_B.repeat_interleave(counts_B).to(loss_N)  # masks in the sequence of each prediction
    return (loss_N / masks_N).sum() / len(ids_BT)


def next_token_cross_entropy(
    lm: LanguageModel, ids_BT: torch.Tensor, rng: torch.Generator, level: float | None = None
) -> torch.Tensor:
    """Return the mean negative log-likelihood of a batch in nats per token; `rng` and `level` do nothing."""
    where_BT = (torch.arange(ids_BT.shape[1]) > 0).expand_as(ids_BT)
    logits_NV = lm.logits_at(ids_BT, where_BT)
    return cross_entropy(logits_NV, ids_BT[where_BT].to(logits_NV.device))


LOSSES = {"diffusion": masked_cross_entropy, "autoregressive": next_token_cross_entropy}


@contextmanager
def precision_of(lm: LanguageModel, dtype: str) -> Iterator[None]:
    """Compute in `bfloat16`, without casting inputs to float32 and back, or in `float32`, on any device."""
    if dtype == "float32":
        yield
        return
    with torch.autocast(lm.device.type, dtype=torch.bfloat16), disable_input_dtype_casting(lm.model):
        yield


def held_out_losses(lm: LanguageModel, held_out: dict[str, torch.Tensor], dtype: str) -> dict[str, float]:
    """Return the mean NELBO or negative log-likelihood of sequences, int64 (N, T), by `{measure}_{name}`."""
    found = {}
    with precision_of(lm, dtype):
        for name, ids_NT in held_out.items():
            scored = score(lm, ids_NT[:LOGGED_SEQUENCES], LOGGED_DRAWS, seed=0)
            found[f"{MEASURES[lm.kind]}_{name}"] = float(scored.value.mean())

    return found
