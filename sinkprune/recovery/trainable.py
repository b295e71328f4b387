"""What is changed on a model while it is trained, and restored afterwards, after an exception, too."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.zeros import adapted_linears, zeros_held
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.model_checks import RATES_OF_DROPOUT
from sinkprune_core.seeds import seed_of


@contextmanager
def in_float32(lm: LanguageModel) -> Iterator[None]:
    """Hold all parameters in float32, and give each its own dtype back."""
    dtypes = {parameter: parameter.dtype for parameter in lm.model.parameters()}
    dtype_of_config = lm.model.config.dtype

    try:
        for parameter in dtypes:
            parameter.data = parameter.data.float()
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
    with ExitStack() as stack:
        stack.enter_context(_attention_for_training(lm))
        if settings.method == "full":
            parameters = stack.enter_context(_held_weights(lm))
        else:
            parameters = stack.enter_context(_held_products(lm, settings))

        if settings.gradient_checkpointing:  # last: PEFT would hook the embedding once more, for good
            stack.enter_context(_blocks_computed_twice(lm))

        yield parameters


@contextmanager
def _attention_for_training(lm: LanguageModel) -> Iterator[None]:
    """Take the attention whose backward pass is the faster one; on a CPU that is not the fused one's."""
    former = lm.model.config._attn_implementation or "eager"
    try:
        if lm.device.type == "cpu":
            lm.model.set_attn_implementation("eager")
        yield
    finally:
        lm.model.set_attn_implementation(former)


@contextmanager
def _blocks_computed_twice(lm: LanguageModel) -> Iterator[None]:
    """Let blocks keep nothing for the backward pass and compute it again, which they do in training mode.

    That is the mode of the block alone, so that the dropout below it stays off, and rates are zero meanwhile.
    """
    was_training = {block: block.training for block in lm.blocks}
    lm.model.activation_checkpointing_enable({"use_reentrant": False})

    try:
        with _without_dropout(lm.model.config, *lm.blocks):
            for block in was_training:
                block.training = True
            yield
    finally:
        for block, mode in was_training.items():
            block.training = mode
        lm.model.activation_checkpointing_disable()
        lm.model.disable_input_require_grads()  # which enabling it has put on the embedding


@contextmanager
def _without_dropout(*owners: object) -> Iterator[None]:
    """Hold all rates of dropout that are attributes of some objects at zero."""
    rates = [
        (owner, name, value)
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, float) and name.endswith(RATES_OF_DROPOUT)
    ]
    for owner, name, _ in rates:
        setattr(owner, name, 0.0)

    try:
        yield
    finally:
        for owner, name, rate in rates:
            setattr(owner, name, rate)


@contextmanager
def _held_weights(lm: LanguageModel) -> Iterator[dict[str, nn.Parameter]]:
    """Train the blocks and the last norm: embeddings and head, which no recipe prunes, stay."""
    kept = set(lm.model.parameters()) - set(lm.model.base_model.parameters())
    kept |= {module.weight for module in lm.model.modules() if isinstance(module, nn.Embedding)}

    parameters = {name: parameter for name, parameter in lm.model.named_parameters() if parameter not in kept}
    for parameter in parameters.values():
        parameter.requires_grad_(True)

    with zeros_held(lm):
        yield parameters


@contextmanager
def _held_products(lm: LanguageModel, settings: Recovery) -> Iterator[dict[str, nn.Parameter]]:
    """Train LoRA's matrices beside every linear of the blocks, and merge what they learned."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules=[f"{lm.blocks_name}.{layer}.{name}" for layer, name in lm.all_linears()],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, "LoRA"))  # its first matrices come from the global generator
        wrapped = get_peft_model(lm.model, config)

    for layer in adapted_linears(wrapped):
        layer.eval()  # as all else is: new layers come in training mode

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
