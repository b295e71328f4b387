"""Training that leaves a pruned model pruned: the zeros of its linears stay, whoever runs the loop.

Dimensions: O output features, I input features.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import TYPE_CHECKING, cast

import torch
from pydantic import InstanceOf
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkprune.models.streaming import StreamedModel
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.values import checked

if TYPE_CHECKING:
    from peft.tuners.lora.layer import Linear as LoraLinear

NOTABLE = 0.05  # share of exact zeros in a weight that nobody leaves by chance
OUT_OF_BASE = ("pissa", "olora", "corda", "loftq")  # starts of LoRA that change the weights beside it


@contextmanager
def zeros_held(model: nn.Module | LanguageModel) -> Iterator[dict[str, torch.Tensor]]:
    """Keep every zero of a model's linears at zero through all optimizer steps inside the block.

    Yields where the zeros are, bool of each weight's shape, by the weight's name. Linears are all `nn.Linear`
    and `Conv1D` but the output head, whose rows of unused tokens may be zero by chance. Gradients are zero
    there, so that neither momentum nor clipping sees them, and after each step of any torch optimizer the
    weights are set to zero again, so that weight decay and momentum from before change nothing.

    It works inside a loop of one's own, of accelerate, and of a Hugging Face Trainer, as long as parameters
    stay the same objects (not under FSDP, nor with float32 copies kept by an optimizer). Of a PEFT model with
    plain LoRA, made before the block begins, the product of an adapter counts only where the base is not
    zero, in the forward as in the merge: what is merged inside the block keeps the zeros.
    At its end, also by an exception, zeros are set once more and all hooks are gone. A warning names what has
    zeros that are not held: other weights than those of linears, and a base that an adapter has changed.
    Raises ValueError for a linear without a dense weight of its own in memory, and for an adapter that is not
    plain LoRA; RuntimeError at the end where parameters were replaced by others meanwhile, whose zeros nobody
    held.
    """
    if isinstance(model, LanguageModel):
        if isinstance(model, StreamedModel):
            raise ValueError(f"{model.name} is streamed from disk and cannot be trained: use `load`")
        model = model.model
    checked("model", model, InstanceOf[nn.Module])

    held = _zeros_by_name(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a shared one by each of its names
    _warn_of_others(model, parameters, held)
    zeros_of: dict[torch.Tensor, torch.Tensor] = {  # parameters are hashed by identity
        parameters[name]: zeros for name, zeros in held.items()
    }

    def restore(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in zeros_of:
                    _set_zeros(parameter, zeros_of[parameter])

    with ExitStack() as stack:
        for name, zeros in held.items():
            if parameters[name].is_floating_point():  # others take no gradient
                stack.callback(_hook_on_gradient(parameters[name], _gradient_hook(zeros)).remove)

        stack.callback(register_optimizer_step_post_hook(restore).remove)
        for layer in adapted_linears(model):
            base = cast(nn.Linear, layer.get_base_layer()).weight
            if base in zeros_of:
                stack.enter_context(_masked_adapter(layer, zeros_of[base]))

        try:
            yield held
        finally:
            for parameter, zeros in zeros_of.items():
                _set_zeros(parameter, zeros)

        _check_still_there(model, parameters, held)


def _check_still_there(
    model: nn.Module, before: Mapping[str, nn.Parameter], held: Mapping[str, torch.Tensor]
) -> None:
    """Raise RuntimeError where a parameter whose zeros were held is no part of the model any more."""
    now = set(model.parameters())
    gone = [name for name in held if before[name] not in now]
    if gone:
        raise RuntimeError(
            f"{len(gone)} parameters, {gone[0]} among them, were replaced inside `zeros_held`, as FSDP and "
            "`load_state_dict(assign=True)` do: the zeros of the new ones were not held; take a loop that "
            "keeps its parameters"
        )


def _zeros_by_name(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return where the linears have zeros, by the name of the weight; linears without any are left out."""
    left_out = _parts_of_heads(model) | _parts_of_adapters(model)

    held = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)) or module in left_out:
            continue
        _check_weight(name, module)
        zeros = module.weight.detach() == 0
        if bool(zeros.any()):
            held[f"{name}.weight" if name else "weight"] = zeros  # the model may be one linear itself

    return held


def _check_weight(name: str, linear: nn.Module) -> None:
    """Raise ValueError for a linear whose zeros cannot be held, with what to do about it."""
    weight = linear._parameters.get("weight")
    problem = None

    if weight is None:
        problem = (
            "has a weight that is computed from other parameters, as those of parametrizations and of "
            "torch.nn.utils.prune are: make it permanent first (`remove_parametrizations`, `prune.remove`)"
        )
    elif isinstance(weight, nn.UninitializedParameter):
        problem = "is lazy and has no weight yet: give the model one batch first"
    elif weight.is_meta:
        problem = "has no weights in memory: load the whole model before it is trained"
    elif weight.layout != torch.strided:
        problem = f"has a weight in the layout {weight.layout}: make it dense first (`to_dense`)"

    if problem is not None:
        raise ValueError(f"{name or 'the linear'} {problem}")


def _warn_of_others(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], held: Mapping[str, torch.Tensor]
) -> None:
    """Warn once of all zeros that seem to be meant and are not held."""
    embeddings = {module for module in model.modules() if isinstance(module, nn.Embedding)}
    left_out = embeddings | _parts_of_heads(model) | _parts_of_adapters(model)
    known = {parameter for module in left_out for parameter in module.parameters()}
    known |= {parameters[name] for name in held}

    found = []
    for name, parameter in parameters.items():
        if parameter.dim() > 1 and parameter not in known:
            share = 1 - int(parameter.detach().count_nonzero()) / parameter.numel()
            if NOTABLE <= share < 1:
                found.append(f"{name} is no weight of a linear, and {100 * share:.0f} % of it are zero")

    for name, module in model.named_modules():
        is_called_linear = type(module).__name__.endswith("Linear") and not isinstance(module, nn.Linear)
        if is_called_linear and next(module.parameters(), None) is None:
            found.append(f"{name} is quantised")

    found += [f"an adapter is merged into {layer}" for layer in _merged(model)]
    found += [f"the start {start} of an adapter changed its base" for start in _starts(model)]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        warnings.warn(f"zeros are not held everywhere: {found[0]}{more}", stacklevel=4)


def _parts_of_heads(model: nn.Module) -> set[nn.Module]:
    """Return the output head of a model, also of one in a wrapper, with what PEFT has put around it."""
    parts = set()
    for module in model.modules():
        head = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
        if head is not None:
            parts |= set(head.modules())

    return parts


def _set_zeros(parameter: torch.Tensor, zeros: torch.Tensor) -> None:
    parameter.data.masked_fill_(zeros.to(parameter.device), 0)


def _hook_on_gradient(parameter: nn.Parameter, hook: Callable[[nn.Parameter], None]) -> RemovableHandle:
    """Let a hook see the gradients of a parameter; of one that is frozen now, those that it gets later."""
    takes_gradient = parameter.requires_grad
    parameter.requires_grad_(True)  # or torch would refuse the hook
    handle = parameter.register_post_accumulate_grad_hook(hook)
    parameter.requires_grad_(takes_gradient)
    return handle


def _gradient_hook(zeros: torch.Tensor) -> Callable[[nn.Parameter], None]:
    def clear(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(zeros.to(parameter.grad.device), 0)

    return clear


# PEFT


def adapted_linears(model: nn.Module) -> list["LoraLinear"]:
    """Return the layers that PEFT has put around linears; raise ValueError for one that is not plain LoRA."""
    from peft.tuners.lora.layer import Linear as LoraLinear
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = []
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLinear) or module.lora_variant:
            raise ValueError(
                f"{name} carries a {type(module).__name__} adapter: zeros are held beside plain LoRA only"
            )
        layers.append(module)

    return layers


def _merged(model: nn.Module) -> list[str]:
    """Return the names of the layers into which an adapter is merged: zeros are those of the sum."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    return [name for name, layer in adapted.items() if layer.merged]


def _starts(model: nn.Module) -> list[str]:
    """Return the starts of adapters that take their first matrices out of the base, and so its zeros."""
    starts = [
        config.init_lora_weights
        for module in model.modules()
        if isinstance(configs := getattr(module, "peft_config", None), dict)
        for config in configs.values()
    ]
    return sorted({str(start) for start in starts if str(start).startswith(OUT_OF_BASE)})


def _parts_of_adapters(model: nn.Module) -> set[nn.Module]:
    """Return the modules that adapters consist of: a fresh one has a matrix of zeros, to be trained."""
    parts = set()
    for layer in adapted_linears(model):
        for name in layer.adapter_layer_names:
            container = getattr(layer, name, None)
            if isinstance(container, nn.Module):
                parts |= set(container.modules())

    return parts


@contextmanager
def _masked_adapter(layer: "LoraLinear", zeros: torch.Tensor) -> Iterator[None]:
    """Let a LoRA layer's product count only where its base is not zero."""
    delta = type(layer).get_delta_weight

    def masked_delta(self: "LoraLinear", adapter: str) -> torch.Tensor:
        weight = delta(self, adapter)
        return weight.masked_fill(zeros.to(weight.device), 0)

    def forward(self: "LoraLinear", x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()

        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result

        for adapter in self.active_adapters:
            if adapter in self.lora_A:
                weight = self.get_delta_weight(adapter)
                weight_OI = weight.T if self.fan_in_fan_out else weight
                bias_O = self.lora_B[adapter].bias
                if bias_O is not None:
                    bias_O = (bias_O * self.scaling[adapter]).to(x.dtype)

                product = nn.functional.linear(self.lora_dropout[adapter](x), weight_OI.to(x.dtype), bias_O)
                result = result + product.to(result.dtype)

        return result

    masked = {"get_delta_weight": MethodType(masked_delta, layer), "forward": MethodType(forward, layer)}
    former = {name: vars(layer)[name] for name in masked if name in vars(layer)}  # of a block around this one
    vars(layer).update(masked)

    try:
        yield
    finally:
        for name in masked:
            del vars(layer)[name]
        vars(layer).update(former)
