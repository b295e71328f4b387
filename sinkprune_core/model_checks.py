"""What a model must be like, so that tracking, hiding and pruning mean what they say of it.

`check_structure` looks at what a model is made of and reads no weight. `check_computation` runs a few tokens
through it and compares: does it look in the direction that its kind has, do its blocks one by one make what
the whole model makes, and does its output head alone make its logits. A model may be changed after that:
what prunes it looks at its structure again (`check_changeable`), and a forward that fails is explained by it
(`explained`). What does not hold is refused by name, each in one sentence with the way out.

Dimensions: B row, T position, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkprune_core.values import in_short

if TYPE_CHECKING:
    from sinkprune_core.language_model import LanguageModel

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Fields of configurations that count the experts of a layer."""

FIELDS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
SAMPLE = (2, 5)  # rows and tokens of the texts that `check_computation` runs
FAR_APART = 7919  # ids between two of these tokens: a prime, so that they differ in most vocabularies
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}  # of the largest number, what rounding may change
TOLERANCE_IN_FEWER_BITS = 0.05

PACKING = ("torch", "torchao", "bitsandbytes", "optimum")  # packages whose tensors are no plain weights
LONGEST_REASON = 200  # characters of another's words


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of a native model; GPT-2 calls them h. Raises ValueError where there are none."""
    for name in ("h", "layers"):
        blocks = getattr(model.base_model, name, None)
        if isinstance(blocks, nn.ModuleList):
            return blocks
    raise ValueError(
        f"{type(model).__name__} has no blocks `layers` or `h`, so its architecture is not known; a model of "
        "a published format (LLaDA's own class, say) is taken from its files: save it, and `load` the folder"
    )


# what a model is made of


def check_structure(model: object) -> None:
    """Raise TypeError for what is no model of transformers, and ValueError, by name, for one not covered."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(_no_model(model))

    name = type(model).__name__
    config = model.config
    if config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder with a decoder: only models of one stack of blocks are covered"
        )

    _check_ends(name, model)
    if getattr(model, "is_quantized", False) or getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            f"{name} is quantised, or its config says so: prune the model in {torch.bfloat16} or "
            f"{torch.float32} first, and quantise what comes out"
        )

    experts = [field for field in EXPERTS if (getattr(config, field, None) or 0) > 1]
    if experts:
        raise ValueError(
            f"{name} is a mixture of experts ({experts[0]}={getattr(config, experts[0])}): an expert sees "
            "only the tokens that are sent to it, which is not covered"
        )

    if getattr(config, "add_cross_attention", False):
        raise ValueError(f"{name} has cross-attention, which is not covered: give a model without")

    for field, needed in FIELDS.items():
        if getattr(config, field, needed) != needed:
            raise ValueError(f"config.{field} of {name} must be {needed}: set it so, nothing else changes")

    _check_layer_types(name, config)
    _check_blocks(name, model)
    _check_dtypes(name, model)


def _no_model(model: object) -> str:
    """Return why something is no model of transformers, and what to give instead."""
    name = type(model).__name__
    if hasattr(model, "merge_and_unload"):
        return f"model is a {name}, a base with an adapter: merge it first, model.merge_and_unload()"
    if hasattr(model, "_orig_mod"):
        return f"model is a {name}, a compiled model: give what was compiled, model._orig_mod"
    return f"model={in_short(model)} must be a model of transformers, a PreTrainedModel"


def _check_ends(name: str, model: PreTrainedModel) -> None:
    """Raise ValueError unless a model has an embedding and an output head with weights of plain numbers."""
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(f"{name} has no output head: give the class with one, as ...ForCausalLM")

    for what, part in (("input embedding", model.get_input_embeddings()), ("output head", head)):
        weight = getattr(part, "weight", None)
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            raise ValueError(
                f"the {what} of {name}, a {type(part).__name__}, has no weight of floating-point numbers: "
                "take weights that are not quantised"
            )


def _check_layer_types(name: str, config) -> None:
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    if len(kinds) > 1:
        raise ValueError(
            f"layer_types of {name} mixes {' and '.join(kinds)}: blocks are run one by one, which needs the "
            "same attention in all of them (`attention_mass` takes such a model as it is)"
        )


def _check_blocks(name: str, model: PreTrainedModel) -> None:
    """Raise ValueError unless all matrices of the blocks are weights of plain linears."""
    blocks = blocks_of(model)
    if not len(blocks):
        raise ValueError(f"{name} has no block: there is nothing to prune")

    stated = getattr(model.config, "num_hidden_layers", len(blocks))
    if stated != len(blocks):
        raise ValueError(
            f"{name} has {len(blocks)} blocks, and its config.num_hidden_layers is {stated}: let them agree"
        )

    home: dict[tuple[str, int], str] = {}  # by the memory of a weight: the linear that it was found in
    for layer, block in enumerate(blocks):
        known: set[int] = set()  # weights of linears
        for part, module in block.named_modules():
            where = f"{part or 'the whole'} of block {layer}"
            _check_part(where, module)
            if not isinstance(module, nn.Linear):
                continue

            known.add(id(module.weight))
            other = home.setdefault(_memory_of(module.weight), where)
            if other != where:
                raise ValueError(
                    f"{where} has the weight of {other}: what is pruned for one would be pruned for "
                    "both; give each a weight of its own"
                )

        if not known:
            raise ValueError(f"block {layer} of {name}, a {type(block).__name__}, has no linear to prune")

        for part, parameter in block.named_parameters():
            if parameter.dim() >= 2 and id(parameter) not in known:
                raise ValueError(
                    f"{part} of block {layer} of {name} has shape {tuple(parameter.shape)} and is the weight "
                    "of no linear: experts, convolutions and adapters are not covered"
                )


def _memory_of(weight: torch.Tensor) -> tuple[str, int]:
    """Return what two weights that lie in the same memory have in common."""
    has_memory = type(weight.data) is torch.Tensor and not weight.is_meta and weight.numel() > 0
    if not has_memory:  # or it is shared out over several
        return "object", id(weight)
    return str(weight.device), weight.data_ptr()


def _check_part(where: str, module: nn.Module) -> None:
    """Raise ValueError for a part of a block whose linears could not be seen, or are none of torch's."""
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        raise ValueError(
            f"{where} is compiled, and what its linears receive cannot be seen: give the model as it was "
            "before, and compile it once it is pruned"
        )

    if hasattr(module, "base_layer"):
        kind = f"{type(module).__module__}.{type(module).__name__}"
        raise ValueError(f"{where} is a {kind}, an adapter beside its linear: merge it first")

    if isinstance(module, Conv1D):
        raise ValueError(
            f"{where} is a Conv1D, whose weight is stored transposed: save the model "
            "with its tokenizer, and `sinkprune.load(folder)` reads it with plain linears"
        )

    if isinstance(module, nn.Linear):
        _check_linear(where, module)


def _check_linear(where: str, linear: nn.Linear) -> None:
    """Raise ValueError unless a linear is one of torch's, with a weight that is its own parameter."""
    is_computed = parametrize.is_parametrized(linear) or "weight" not in linear._parameters
    if is_computed:
        raise ValueError(
            f"the weight of {where} is computed from other parameters (parametrisation, weight norm, or "
            "torch.nn.utils.prune), which would undo what is pruned: make it permanent first, by "
            "parametrize.remove_parametrizations, remove_weight_norm or prune.remove"
        )

    if type(linear) is not nn.Linear:
        kind = f"{type(linear).__module__}.{type(linear).__name__}"
        raise ValueError(
            f"{where} is a {kind}: only torch's own linears are covered; merge adapters, and take weights "
            "that are not quantised"
        )

    weight = linear.weight
    size = (linear.out_features, linear.in_features)
    if tuple(weight.shape) != size:
        raise ValueError(
            f"the weight of {where} has shape {tuple(weight.shape)}, and its linear is of {size}"
        )
    if weight.layout != torch.strided:
        raise ValueError(
            f"the weight of {where} is sparse ({weight.layout}): give a dense one, weight.to_dense()"
        )

    kind = type(weight.data)
    # torch's own subclasses are shared out over processes, those of the others are quantised
    is_packed = kind is not torch.Tensor and kind.__module__.partition(".")[0] in PACKING
    if is_packed or not weight.is_floating_point():
        raise ValueError(
            f"the weight of {where} is a {kind.__name__} of {weight.dtype}: only "
            "dense weights of floating-point numbers are covered"
        )


def _check_dtypes(name: str, model: PreTrainedModel) -> None:
    """Raise ValueError where parameters differ in dtype; those without numbers yet get one with them."""
    named = [(part, parameter) for part, parameter in model.named_parameters() if not parameter.is_meta]
    for (first_name, first), (other_name, other) in pairwise(named):
        if other.dtype != first.dtype:
            raise ValueError(
                f"{name} mixes dtypes: {first_name} is {first.dtype} and {other_name} is {other.dtype}; "
                "load it in one, from_pretrained(..., dtype=...)"
            )


# a model that was changed since it was wrapped


def check_changeable(lm: LanguageModel) -> None:
    """Raise ValueError unless what is done to the weights of a model's blocks is done to them alone.

    A user may have changed the model since it was wrapped. Nothing is said of weights that are not in memory.
    """
    for name, parameter in lm.blocks.named_parameters():
        if parameter.is_meta:
            continue

        part = f"{lm.blocks_name}.{name}"
        if parameter.is_inference():
            raise ValueError(
                f"{part} of {lm.name} was made in torch.inference_mode() and cannot be changed: load the "
                "model outside of it"
            )
        has_numbers_twice = any(
            step == 0 and size > 1 for step, size in zip(parameter.stride(), parameter.shape, strict=True)
        )
        if has_numbers_twice:
            raise ValueError(
                f"{part} of {lm.name} was made by `expand`, one number stands for several weights: give "
                "each its own, weight.contiguous()"
            )


@contextmanager
def explained(lm: LanguageModel) -> Iterator[None]:
    """Say in words why a forward inside the block fails, of a model that was changed since it was wrapped."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except ValueError:
        check_structure(lm.model)
        raise
    except (RuntimeError, TypeError, AttributeError) as error:
        check_structure(lm.model)
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise RuntimeError(
            f"a forward of {lm.name} ended in {type(error).__name__} ({reason}): its parts do not fit "
            "together; load the model anew"
        ) from error


# what it computes


@torch.no_grad()
def check_computation(lm: LanguageModel) -> None:
    """Raise ValueError where a few tokens show that a model does not compute what is presumed of it.

    Nothing is said of a model whose numbers are not finite; that has errors of its own. Its weights must be
    in memory.
    """
    vocabulary = lm.vocabulary
    rows, length = SAMPLE
    length = min(length, getattr(lm.model.config, "max_position_embeddings", None) or length)
    if vocabulary < 2 or length < 2:
        return

    ids_BT = (torch.arange(rows * length) * FAR_APART % vocabulary).view(rows, length).to(lm.device)
    other_BT = ids_BT.clone()
    other_BT[:, -1] = (other_BT[:, -1] + 1 + vocabulary // 2) % vocabulary
    hidden_BTD, first, last_BTD = _captured(lm, ids_BT)
    if not bool(torch.isfinite(hidden_BTD).all()):
        return

    _check_direction(lm, hidden_BTD, lm._last_hidden(other_BT, None))
    _check_blocks_one_by_one(lm, first, last_BTD)
    _check_head(lm, ids_BT, hidden_BTD)


def _captured(lm: LanguageModel, ids_BT: torch.Tensor) -> tuple[torch.Tensor, tuple, torch.Tensor]:
    """Return the last hidden states, what the first block received and what the last block gave."""
    received = []
    given = []

    def receive(module: nn.Module, args: tuple, kwargs: dict) -> None:
        received.append((args, kwargs))

    def give(module: nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
        given.append(hidden_of(output))

    with ExitStack() as hooks:
        hooks.callback(lm.blocks[0].register_forward_pre_hook(receive, with_kwargs=True).remove)
        hooks.callback(lm.blocks[-1].register_forward_hook(give).remove)
        hidden_BTD = lm._last_hidden(ids_BT, None)

    return hidden_BTD, received[0], given[0]


def hidden_of(output: torch.Tensor | tuple) -> torch.Tensor:
    """Return the hidden states among what a block returns."""
    return output[0] if isinstance(output, tuple) else output


def _difference(lm: LanguageModel, one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference, in units of what rounding in the model's dtype may make of it."""
    scale = float(one.abs().max()) or 1.0
    allowed = TOLERANCE.get(lm.model.dtype, TOLERANCE_IN_FEWER_BITS) * scale
    return float((one.double() - other.double().to(one.device)).abs().max()) / allowed


def _check_direction(lm: LanguageModel, hidden_BTD: torch.Tensor, changed_BTD: torch.Tensor) -> None:
    """Compare outputs before the last token of texts that differ in it alone."""
    before_BTD = hidden_BTD[:, :-1]
    after_BTD = changed_BTD[:, :-1]
    if lm.is_diffusion and torch.equal(before_BTD, after_BTD):
        raise ValueError(
            f"{lm.name} is a diffusion model, and its outputs do not depend on later tokens: its attention "
            "is causal; `wrap` sets the direction where the model's class knows `is_causal`"
        )

    if not lm.is_diffusion and _difference(lm, before_BTD, after_BTD) > 1:
        raise ValueError(
            f"{lm.name} is autoregressive, and its outputs depend on later tokens: its attention is "
            "bidirectional; give its mask_token_id where it is a diffusion model"
        )


def _check_blocks_one_by_one(lm: LanguageModel, first: tuple, last_BTD: torch.Tensor) -> None:
    """Compare what the blocks make one by one, as pruning runs them, with what the whole model made."""
    (hidden_BTD, *others), arguments = first
    try:
        for block in lm.blocks:
            device = next(block.parameters()).device
            hidden_BTD = hidden_of(block(hidden_BTD.to(device), *others, **arguments))
        differs = _difference(lm, last_BTD, hidden_BTD) > 1
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError):
        differs = True

    if differs:
        raise ValueError(
            f"the blocks of {type(lm.model).__name__} run one by one do not give what the whole model gives: "
            "they receive other arguments from layer to layer, which is not covered"
        )


def _check_head(lm: LanguageModel, ids_BT: torch.Tensor, hidden_BTD: torch.Tensor) -> None:
    """Compare logits from the last hidden states with the model's own."""
    with explained(lm):
        own_BTV = lm.model(ids_BT, use_cache=False).logits
    logits_BTV = lm.raw_logits(hidden_BTD)
    if own_BTV.shape != logits_BTV.shape or _difference(lm, own_BTV, logits_BTV) > 1:
        raise ValueError(
            f"the logits of {type(lm.model).__name__} are not those of its output head: it does more to them "
            "than `logit_scale`, `logits_scaling` and `final_logit_softcapping`, which is not covered"
        )
