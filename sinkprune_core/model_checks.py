"""What a model must be made of, so that tracking, hiding and pruning mean what they say of it.

No weight is read here, and nothing is computed: what a forward shows of a model is asked by `wrapping`. What
does not hold is refused by name, in a sentence with the way out.
"""

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkprune_core.values import in_short

PACKING = ("torch", "torchao", "bitsandbytes", "optimum")  # packages whose tensors are no plain weights
RATES_OF_DROPOUT = ("dropout", "pdrop", "layerdrop")  # how fields of configurations end that hold one


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of a native model: the one list of modules that is in no other one.

    Raises ValueError where there is none, or more than one.
    """
    lists = dict(_lists_in(model.base_model))
    if len(lists) == 1:
        return next(iter(lists.values()))

    name = type(model).__name__
    if lists:
        raise ValueError(
            f"{name} has {len(lists)} lists of blocks, {' and '.join(lists)}: only one stack is covered, so "
            "give a class without an encoder, or without images, beside its decoder"
        )
    raise ValueError(
        f"{name} has no list of blocks (nn.ModuleList), so its architecture is not known; a model of a "
        "published format (LLaDA's own class, say) is taken from its files: save it, and `load` the folder"
    )


def holders_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the base model and, within it, the parts that hold its blocks: OPT's `model` and `decoder`."""
    (name,) = dict(_lists_in(model.base_model))
    path = name.split(".")[:-1]
    return [model.base_model.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]


def _lists_in(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield the outermost lists of modules in a module, by name."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield prefix + name, child
        else:
            yield from _lists_in(child, f"{prefix}{name}.")


# positions


def _first_position(model: PreTrainedModel) -> int:
    """Return the position of a text's first token: RoBERTa counts from the one after its padding's."""
    for name, module in model.base_model.named_modules():
        if not isinstance(module, nn.Embedding) or "position" not in name:
            continue
        if module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def positions_of(model: PreTrainedModel) -> int | None:
    """Return how many tokens a text may have; None where no configuration says so."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else limit - _first_position(model)


def padded_positions(
    model: PreTrainedModel, attention_mask_BT: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Return the positions, int64 (B, T), that padded rows have alone, as an argument of a forward.

    Nothing is said where no padding comes before a text, nor to a model that takes no positions.
    """
    if attention_mask_BT is None or bool(attention_mask_BT[:, 0].all()):
        return {}
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}

    number_BT = attention_mask_BT.long().cumsum(1) - 1
    return {"position_ids": number_BT.clamp_min(0) + _first_position(model)}


# structure


def check_structure(model: object) -> None:
    """Raise TypeError for what is no model of transformers, and ValueError, by name, for one not covered.

    A model of transformers is one stack of blocks with an output head. All matrices of the blocks are weights
    of plain linears, each of its own.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(_no_model(model))

    name = type(model).__name__
    if model.get_output_embeddings() is None:
        raise ValueError(
            f"{name} has no output head: give the class with one, as ...ForCausalLM or ...ForMaskedLM"
        )

    if not len(blocks_of(model)):
        raise ValueError(f"{name} has no block: there is nothing to prune")

    home: dict[tuple[str, int], str] = {}  # by the memory of a weight: the linear that it was found in
    for layer, block in enumerate(blocks_of(model)):
        _check_block(f"block {layer}", block, home)


def _no_model(model: object) -> str:
    """Return why something is no model of transformers, and what to give instead."""
    name = type(model).__name__
    if hasattr(model, "merge_and_unload"):
        return f"model is a {name}, a base with an adapter: merge it first, model.merge_and_unload()"
    if hasattr(model, "_orig_mod"):
        return f"model is a {name}, a compiled model: give what was compiled, model._orig_mod"
    return f"model={in_short(model)} must be a model of transformers, a PreTrainedModel"


def _check_block(where: str, block: nn.Module, home: dict[tuple[str, int], str]) -> None:
    """Raise ValueError unless the matrices of a block are weights of plain linears that no other one has."""
    weights: set[int] = set()
    for part, module in block.named_modules():
        here = f"{part or 'the whole'} of {where}"
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"{here} is compiled, and what its linears receive cannot be seen: give the model as it was "
                "before, and compile it once it is pruned"
            )

        if not isinstance(module, nn.Linear):
            continue

        _check_linear(here, module)
        weights.add(id(module.weight))
        other = home.setdefault(_memory_of(module.weight), here)
        if other != here:
            raise ValueError(
                f"{here} has the weight of {other}: what is pruned for one would be pruned for both; give "
                "each a weight of its own"
            )

    others = {
        part: parameter
        for part, parameter in block.named_parameters()
        if parameter.dim() >= 2 and id(parameter) not in weights
    }
    if others:
        part = max(others, key=lambda name: others[name].dim())
        owner = block.get_submodule(part.rpartition(".")[0])
        raise ValueError(
            f"{part} of {where} has shape {tuple(others[part].shape)} and is the weight of no linear: "
            f"{_not_covered(part, owner)}"
        )

    if not weights:
        raise ValueError(f"{where}, a {type(block).__name__}, has no linear to prune")


def _not_covered(part: str, owner: nn.Module) -> str:
    """Return what kind of part a matrix belongs to that is no linear, and the way out."""
    if isinstance(owner, Conv1D):
        return (
            "it is stored transposed; of GPT-2, save the model with its tokenizer, and "
            "`sinkprune.load(folder)` reads plain linears"
        )
    if isinstance(owner, nn.modules.conv._ConvNd):
        return (
            "convolutions, and with them linear attention and state spaces (Mamba), are not covered; take a "
            "model whose blocks have attention"
        )
    if "expert" in part:
        return "experts in one tensor, so mixtures of experts, are not covered; take a dense model"
    return f"a {type(owner).__name__} is not covered; take a model whose blocks are made of linears"


def _memory_of(weight: torch.Tensor) -> tuple[str, int]:
    """Return what two weights that lie in the same memory have in common."""
    has_memory = type(weight.data) is torch.Tensor and not weight.is_meta and weight.numel() > 0
    if not has_memory:  # or it is shared out over several
        return "object", id(weight)
    return str(weight.device), weight.data_ptr()


def _check_linear(where: str, linear: nn.Linear) -> None:
    """Raise ValueError unless a linear is one of torch's, with a dense weight that is its own parameter."""
    is_computed = parametrize.is_parametrized(linear) or "weight" not in linear._parameters
    if is_computed:
        raise ValueError(
            f"the weight of {where} is computed from other parameters (parametrisation, weight norm, or "
            "torch.nn.utils.prune), which would undo what is pruned: make it permanent first, by "
            "parametrize.remove_parametrizations, remove_weight_norm or prune.remove"
        )

    weight = linear.weight
    kind = type(weight.data)
    # torch's own subclasses are shared out over processes, those of the others are quantised
    is_packed = kind is not torch.Tensor and kind.__module__.partition(".")[0] in PACKING
    is_plain = weight.layout == torch.strided and weight.is_floating_point() and not is_packed
    if type(linear) is not nn.Linear or not is_plain or ".base_layer" in where:
        raise ValueError(
            f"{where} is a {type(linear).__module__}.{type(linear).__name__} with a {kind.__name__} of "
            f"{weight.dtype} ({weight.layout}): only torch's own linears with dense weights of "
            "floating-point numbers are covered; merge adapters, and take weights that are not quantised"
        )


def check_mode(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError for a model whose dropout is on, if only in a part of it: forwards differ."""
    training = [module for module in model.modules() if module.training]
    if not training:
        return

    fields = model.config.to_dict().items()
    rates = [value for field, value in fields if field.endswith(RATES_OF_DROPOUT)]
    rates += [module.p for module in training if isinstance(module, nn.Dropout)]
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        raise ValueError(
            f"{name} is in training mode, where dropout is random: call model.eval(), unless you train it on "
            "`training_loss`"
        )
