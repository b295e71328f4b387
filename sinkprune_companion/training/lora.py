"""Turn a causal language model into a masked diffusion model with a LoRA adapter, or train a small one from
scratch, resumably.

Attention becomes bidirectional, a reserved vocabulary entry becomes the absorbing mask token, logits stay
shifted (position i-1 predicts token i), as Dream was adapted from Qwen2.5. The next-token loss and causal
attention give an autoregressive twin that has seen the same text in the same order. Data, learning rate and
stopping are chosen by held-out loss and nothing else.

Dimensions: B batch, T sequence position.
"""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm.auto import trange
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.training import losses
from sinkprune_companion.training.base import EMBEDDED_BASE, LINEARS, SHAPE, Base, open_base
from sinkprune_companion.training.checkpoint import newest_checkpoint, restore_optimizer, save_checkpoint
from sinkprune_companion.training.crops import crop_batch, make_vocabulary, prepare_data
from sinkprune_companion.training.settings import LOG, SETTINGS, Training, add_row, check_settings, going_on
from sinkprune_core.files import held, make_folder, write_json
from sinkprune_core.models.adapters import open_adapter
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, checked_arguments


@checked_arguments
def train(
    config: Training,
    folder: Path,
    begin_with: Path | None = None,
    check_every: Count = 250,
    save_every: Count = 20,
    held_out_count: Count = 32,
    draws: Count = 2,
    text: str | None = None,
    device: str = "cpu",
) -> Path:
    """Train what is in `folder`, going on from its checkpoint if there is one; return the checkpoint.

    `begin_with` is an exported adapter that was trained with other settings, on other text say: the run
    begins at step 0 with its weights instead of fresh ones, and keeps among its settings how many tokens it
    has seen. `text` is what `prepare_data` takes. Every `check_every` steps `log.jsonl` receives training
    loss since the last row or start, held-out loss (nats per token; `held_out_count` sequences of each kind
    at `draws` noise levels), learning rate and speed; every `save_every` steps, and then too, the checkpoint
    is replaced. Raises ValueError when `folder` holds another run, RuntimeError when another process trains
    in `folder`, and what `open_base` and `prepare_data` raise.
    """
    measure = losses.MEASURES[config.kind]
    make_folder(folder)
    with held(folder):
        checkpoint = newest_checkpoint(folder)
        resumes = checkpoint.exists()
        base = open_base(config.base, config.mask_token, max(config.lengths))
        if begin_with is not None:
            config = going_on(config, base, begin_with)
        check_settings(config, folder)
        if config.from_scratch:
            base = base.from_scratch(make_vocabulary(folder, text))
        is_embedded = config.base == EMBEDDED_BASE
        by_source, held_out = prepare_data(base.tokenizer(), folder, is_embedded, config.lengths, text)
        streams = list(by_source.values())
        write_json(folder / SETTINGS, asdict(config))
        keep_freed_memory()
        model, lm = trainable(config, base, checkpoint if resumes else begin_with, device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        first = restore_optimizer(optimizer, checkpoint) if resumes else 0
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
                row |= losses.held_out_losses(lm, held_out, config.dtype, held_out_count, draws)
                add_row(folder / LOG, row)
                steps.set_postfix({name: f"{value:.3f}" for name, value in row.items() if measure in name})
                recent = []
                since = time.perf_counter()
            if is_logged or done % save_every == 0:
                save_checkpoint(model, optimizer, checkpoint, done)
    return checkpoint


def _step(
    config: Training, lm: LanguageModel, optimizer: torch.optim.Optimizer, ids_BT: torch.Tensor, number: int
) -> float:
    """Take optimizer step `number`; return its loss in nats per token."""
    (group,) = optimizer.param_groups
    group["lr"] = config.rate(number)
    rng = generator(config.seed, "train", number)
    with losses.precision_of(lm, config.dtype):
        loss = losses.LOSSES[config.kind](lm, ids_BT, rng, config.noise_level(number))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def trainable(
    config: Training, base: Base, trained: Path | None = None, device: str = "cpu"
) -> tuple[PeftModel | PreTrainedModel, LanguageModel]:
    """Return the model to be trained, also as a language model.

    It goes on from what was `trained`, an adapter or the weights of a model from scratch, or begins afresh. A
    base has the dtype of the settings, what is trained is float32.
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
            lora = LoraConfig(
                r=config.rank, lora_alpha=config.alpha, target_modules=list(LINEARS), task_type="CAUSAL_LM"
            )
            model = get_peft_model(network, lora)
        else:
            model = open_adapter(network, trained, trainable=True)
    if torch.device(device).type == "cpu":
        network.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's
    model.to(device)
    return model, base.member(network, config.kind)
