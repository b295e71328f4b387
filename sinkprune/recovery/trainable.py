"""What is changed on a model while it is trained, and restored afterwards, after an exception, too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.zeros import adapted_linears, zeros_held
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import seed_of


@contextmanager
def in_float32(lm: LanguageModel) -> Iterator[None]:
    """Hold all parameters in float32, and give each its own dtype back."""
    dtypes = {parameter: parameter.dtype for parameter in lm.model.parameters()}
    dtype_of_config = lm.model.config.dtype

    for parameter in dtypes:
        parameter.data = parameter.data.float()

    try:
        yield
    finally:
        for parameter, dtype in dtypes.items():
            parameter.grad = None
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype)
        lm.model.config.dtype = dtype_of_config


@contextmanager
def trained(lm: LanguageModel, settings: Recovery) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the parameters that are trained, by name, with zeros held; adapters are merged at the end.

    Of an unfinished run what adapters have learned is dropped.
    """
    attention = lm.model.config._attn_implementation or "eager"
    flags = [(block, block.training) for block in lm.blocks]
    if lm.device.type == "cpu":
        lm.model.set_attn_implementation("eager")  # its backward pass is faster there than the fused one's
    if settings.gradient_checkpointing:
        lm.model.activation_checkpointing_enable({"use_reentrant": False})
        for block, _ in flags:
            block.training = True  # of the block alone: its dropout stays off

    try:
        if settings.method == "full":
            yield from _held_weights(lm)
        else:
            yield from _held_products(lm, settings)
    finally:
        for block, was_training in flags:
            block.training = was_training
        if settings.gradient_checkpointing:
            lm.model.activation_checkpointing_disable()
        lm.model.set_attn_implementation(attention)


def _held_weights(lm: LanguageModel) -> Iterator[dict[str, nn.Parameter]]:
    """Train the blocks and the last norm: embeddings and head, which no recipe prunes, stay."""
    kept = {lm.output_head.weight}
    kept |= {module.weight for module in lm.model.modules() if isinstance(module, nn.Embedding)}

    parameters = {name: parameter for name, parameter in lm.model.named_parameters() if parameter not in kept}
    for parameter in parameters.values():
        parameter.requires_grad_(True)

    with zeros_held(lm):
        yield parameters


def _held_products(lm: LanguageModel, settings: Recovery) -> Iterator[dict[str, nn.Parameter]]:
    """Train LoRA's matrices beside every linear of the blocks, and merge what they learned."""
    from peft import LoraConfig, get_peft_model

    leaves = {name.rpartition(".")[2] for _, name in lm.all_linears()}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules=sorted(leaves),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, "LoRA"))  # its first matrices come from the global generator
        wrapped = get_peft_model(lm.model, config)

    is_done = False
    try:
        with zeros_held(wrapped):
            yield {name: value for name, value in lm.model.named_parameters() if value.requires_grad}
            for layer in adapted_linears(wrapped):
                layer.merge()
            is_done = True
    finally:
        wrapped.unload()
        if is_done:
            lm.model.requires_grad_(False)
