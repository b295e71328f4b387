"""Turn a causal language model into a masked diffusion model with a LoRA adapter, or train a small one from
scratch, resumably.

Attention becomes bidirectional, a reserved vocabulary entry the absorbing mask token, logits stay shifted
(position i-1 predicts token i), as Dream was adapted from Qwen2.5. The next-token loss and causal attention
give an autoregressive twin, which by the same settings sees the same text in the same order. Data, learning
rate and stopping are chosen by held-out loss alone.

Dimensions: B batch, N sequences, T sequence position.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sinkprune.evaluation.likelihood import score
from sinkprune.files import held, make_folder, write_json
from sinkprune.models.adapters import open_adapter
from sinkprune.models.devices import choose_dtype
from sinkprune.recovery.checkpoint import Checkpoint
from sinkprune.recovery.objectives import exercise, loss_of, precision
from sinkprune.recovery.trainer import take_steps
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.training import settings as kept
from sinkprune_companion.training.base import EMBEDDED_BASE, FACTS, SHAPE, Base, InTraining, open_base
from sinkprune_companion.training.crops import crop_batch, make_vocabulary, prepare_data
from sinkprune_companion.training.settings import Training
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, checked_arguments

MEASURES = {"diffusion": "nelbo", "autoregressive": "nll"}  # what the log calls the loss of a kind
CHECKPOINT = "checkpoint"  # the folder in that of a run with its newest state
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
    """Train what is in `folder`, going on from its checkpoint if there is one; return the folder.

    `begin_with` is an exported adapter that was trained with other settings, on other text say: the run
    begins at step 0 with its weights instead of fresh ones, and keeps among its settings how many tokens it
    has seen. `text` and `wikitext` are what `prepare_data` takes. Every `check_every` steps the log receives
    training loss since the last row, held-out loss (both in nats per token) and learning rate; every
    `save_every` steps, and at the end, the checkpoint is replaced. Raises ValueError when `folder` holds
    another run, RuntimeError when another process trains there, and what `open_base` and `prepare_data`
    raise.
    """
    make_folder(folder)

    with held(folder):
        base = open_base(config.base, config.mask_token, max(config.lengths), config.kind)
        if begin_with is not None:
            config = kept.going_on(config, base, begin_with)

        kept.check_settings(config, folder)
        checkpoint = checkpoint_of(folder, base)
        progress = checkpoint.progress
        if progress.step >= config.steps and Training(**kept.settings_of(folder / kept.SETTINGS)) != config:
            raise ValueError(f"{folder} holds a run that is done, with other settings: use another folder")

        if config.from_scratch:
            base = base.from_scratch(make_vocabulary(folder, text, wikitext))

        is_embedded = config.base == EMBEDDED_BASE
        by_source, held_out = prepare_data(
            base.tokenizer(), folder, is_embedded, config.lengths, text, base.mask_token_id, wikitext
        )
        streams = list(by_source.values())
        keep_freed_memory()
        model, lm = trainable(config, base, begin_with, device)
        write_json(folder / kept.SETTINGS, asdict(config))

        def loss_of_step(step: int) -> torch.Tensor:
            ids_BT = crop_batch(streams, config.lengths, config.batch_tokens, config.seed, step)
            task = exercise(lm, ids_BT, generator(config.seed, "train", step), config.noise_level(step))
            with precision(lm, config.dtype):
                return loss_of(lm, task)

        def measure(step: int) -> dict[str, float]:
            return {"learning_rate": config.rate(step), **held_out_losses(lm, held_out, config.dtype)}

        with disable_input_dtype_casting(lm.model):  # of adapters, to float32 and back
            take_steps(
                config,
                trained_in(model),
                loss_of_step,
                progress,
                measure=measure,
                measured_after={*range(check_every, config.steps, check_every), config.steps},
                checkpoint=checkpoint,
                save_every=save_every,
                title="train",
            )

    return folder


def checkpoint_of(folder: Path, base: Base) -> Checkpoint:
    """Return the checkpoint of the run in a folder; raise ValueError where that began with another base."""
    return Checkpoint(folder / CHECKPOINT, {"base": base.fingerprint()})


def trained_in(model: PeftModel | PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return what is trained of a model, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def trainable(
    config: Training, base: Base, begin_with: Path | None = None, device: str = "cpu"
) -> tuple[PeftModel | PreTrainedModel, LanguageModel]:
    """Return the model to be trained, float32 on a base of the settings' dtype, also as a language model.

    What is trained is fresh, or the adapter that the run begins with.
    """
    if config.from_scratch:
        ends = base.tokenizer()
        shape = LlamaConfig(**SHAPE, bos_token_id=ends.bos_token_id, eos_token_id=ends.eos_token_id)
        torch.manual_seed(config.seed)
        model = network = LlamaForCausalLM(shape)
    else:
        network = base.checkpoint.load(choose_dtype(config.dtype))
        if begin_with is None:
            torch.manual_seed(config.seed)  # LoRA's own initialisation draws from the global generator
            plain = {"r": config.rank, "lora_alpha": config.alpha, "target_modules": FACTS["linears"]}
            model = get_peft_model(network, LoraConfig(**plain, task_type="CAUSAL_LM"))
        else:
            model = open_adapter(network, begin_with, trainable=True)

    if torch.device(device).type == "cpu":
        network.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's

    model.to(device)
    return model, base.member(network, config.kind, InTraining)


def held_out_losses(lm: LanguageModel, held_out: dict[str, torch.Tensor], dtype: str) -> dict[str, float]:
    """Return the mean NELBO or negative log-likelihood of sequences, int64 (N, T), by `{measure}_{name}`."""
    found = {}
    with precision(lm, dtype):
        for name, ids_NT in held_out.items():
            scored = score(lm, ids_NT[:LOGGED_SEQUENCES], LOGGED_DRAWS, seed=0)
            found[f"{MEASURES[lm.kind]}_{name}"] = float(scored.value.mean())

    return found
