"""Turn a causal language model into a masked diffusion model with a LoRA adapter, or train a small one from
scratch, resumably.

Attention becomes bidirectional, a reserved vocabulary entry becomes the absorbing mask token, logits stay
shifted (position i-1 predicts token i), as Dream was adapted from Qwen2.5. The same recipe with the
next-token loss and causal attention gives an autoregressive twin that has seen the same data. The base is
the embedded one or any other that `open_base` opens. From scratch, a small Llama of either kind is trained
whole by the same loop, on the same text in the same order. Data, learning rate and stopping are chosen by
held-out loss and nothing else.

Dimensions: B batch, T sequence position.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm.auto import tqdm
from transformers import LlamaForCausalLM, PreTrainedModel

from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.training import losses
from sinkprune_companion.training.base import LINEARS, Base, open_base
from sinkprune_companion.training.checkpoint import newest_checkpoint, restore_optimizer, save_checkpoint
from sinkprune_companion.training.crops import HELD_OUT_LENGTH, Crops, prepare_data
from sinkprune_companion.training.log import add_row, held_out_losses, rows_of, sources_of
from sinkprune_companion.training.settings import (
    EXPORTED_LOG,
    LOG,
    SETTINGS,
    Training,
    check_settings,
    settings_of,
)
from sinkprune_core.files import held, make_folder, write_json
from sinkprune_core.models.adapters import CONFIG, open_adapter
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.weight_files import read_json
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, checked_arguments

EXPORTED = ("adapter_config.json", "adapter_model.safetensors", SETTINGS, EXPORTED_LOG)


@dataclass
class Trainer:
    """A run in memory: the model (around its adapter), the optimizer, and the text by step."""

    config: Training
    model: PeftModel | PreTrainedModel
    lm: LanguageModel  # the same model as a language model
    optimizer: torch.optim.Optimizer
    crops: Crops
    data: dict[str, torch.Tensor]  # of `prepare_data`
    first: int  # the step to go on from

    def step(self, number: int) -> float:
        """Take optimizer step `number`; return its loss in nats per token."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(number)
        ids_BT = self.crops.batch(number)
        loss_of = losses.LOSSES[self.config.kind]
        with losses.precision_of(self.lm, self.config.dtype):
            loss = loss_of(self.lm, ids_BT, generator(self.config.seed, "train", number))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained_parameters(self.model), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def row(self, done: int, recent: list[float], seconds: float) -> dict:
        """Return the log's row on training up to step `done`; `recent` are the losses since the last row."""
        return {
            "step": done,
            "tokens": done * self.config.batch_tokens,
            f"train_{losses.MEASURES[self.config.kind]}": sum(recent) / len(recent),
            "learning_rate": self.config.rate(done - 1),
            "tokens_per_second": len(recent) * self.config.batch_tokens / seconds,
        }


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
    make_folder(folder)
    with held(folder):
        checkpoint = newest_checkpoint(folder)
        trainer = _prepare(config, folder, checkpoint, begin_with, text, device)
        measure = losses.MEASURES[config.kind]
        recent = []  # losses since the last row of the log
        since = time.perf_counter()
        with tqdm(
            total=config.steps * config.batch_tokens,
            initial=trainer.first * config.batch_tokens,
            unit="tok",
            unit_scale=True,
            desc="train",
        ) as bar:
            for number in range(trainer.first, config.steps):
                recent.append(trainer.step(number))
                bar.update(config.batch_tokens)
                done = number + 1
                is_logged = done % check_every == 0 or done == config.steps
                if is_logged:
                    row = trainer.row(done, recent, time.perf_counter() - since)
                    row |= held_out_losses(trainer.lm, trainer.data, config.dtype, held_out_count, draws)
                    add_row(folder / LOG, row)
                    bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if measure in name})
                    recent = []
                    since = time.perf_counter()
                if is_logged or done % save_every == 0:
                    save_checkpoint(trainer.model, trainer.optimizer, checkpoint, done)
    return checkpoint


def _prepare(
    config: Training,
    folder: Path,
    checkpoint: Path,
    begin_with: Path | None,
    text: str | None,
    device: str,
) -> Trainer:
    """Return the run in memory, which goes on from its checkpoint or begins at step 0."""
    base = open_base(config.base, config.mask_token, max(config.lengths), config.from_scratch)
    if begin_with is not None:
        _check_origin(base, begin_with)
        seen = rows_of(begin_with / EXPORTED_LOG)[-1]["tokens"]
        earlier = settings_of(begin_with / SETTINGS)["earlier_tokens"]
        config = replace(config, earlier_tokens=earlier + seen)
    check_settings(config, folder)
    resumes = checkpoint.exists()
    length = min(HELD_OUT_LENGTH, max(config.lengths))
    data = prepare_data(base.checkpoint.tokenizer(), folder, base.is_embedded, text, length)
    streams = list(sources_of(data, "train").values())
    crops = Crops(streams, config.lengths, config.batch_tokens, config.seed)
    write_json(folder / SETTINGS, asdict(config))
    keep_freed_memory()

    model, lm = trainable(config, base, checkpoint if resumes else begin_with, device)
    optimizer = torch.optim.AdamW(
        trained_parameters(model), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    first = restore_optimizer(optimizer, checkpoint) if resumes else 0
    return Trainer(config, model, lm, optimizer, crops, data, first)


def trainable(
    config: Training, base: Base, trained: Path | None = None, device: str = "cpu"
) -> tuple[PeftModel | PreTrainedModel, LanguageModel]:
    """Return the model to be trained, also as a language model.

    It goes on from what was `trained`, an adapter or the weights of a model from scratch, or begins afresh. A
    base has the dtype of the settings, what is trained is float32.
    """
    if config.from_scratch:
        tokenizer = base.checkpoint.tokenizer()
        if trained is not None:
            model = LlamaForCausalLM.from_pretrained(trained, dtype=torch.float32)
        else:
            model = base.fresh(config.seed)
        network = model
    else:
        network, tokenizer = base.load(choose_dtype(config.dtype))
        if trained is not None:
            model = open_adapter(network, trained, trainable=True)
        else:
            torch.manual_seed(config.seed)  # LoRA's own initialisation draws from the global generator
            lora = LoraConfig(
                r=config.rank, lora_alpha=config.alpha, target_modules=list(LINEARS), task_type="CAUSAL_LM"
            )
            model = get_peft_model(network, lora)
    if torch.device(device).type == "cpu":
        network.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's
    model.to(device)
    return model, base.member(network, tokenizer, config.kind)


def trained_parameters(model: PeftModel | PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes: those of the adapter, or all of a model from scratch."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _check_origin(base: Base, adapter: Path) -> None:
    """Raise FileNotFoundError or ValueError unless a folder is an exported adapter of the base."""
    missing = [name for name in EXPORTED if not (adapter / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{adapter} has no {' and no '.join(missing)}: "
            "start from a folder that `sinkprune train --export` wrote"
        )
    origin = read_json(adapter / CONFIG)["base_model_name_or_path"]
    if origin != base.origin:
        raise ValueError(
            f"the adapter in {adapter} belongs to the base {origin!r}, not to {base.origin!r}: "
            "start from another, or from none"
        )
