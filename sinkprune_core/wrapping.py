"""From a model of transformers to a language model: what a few tokens through it must show first.

Does it look in the direction that its kind has, does padding change nothing, does every block run once and
every linear of it see every token, do the blocks one by one make what the whole model makes, and do the
logits follow from the last hidden states? The computation is asked, and no list of architectures.

Dimensions: B row, T position, D hidden width, V vocabulary.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from sinkprune_core.blocks import Rows, block_inputs, hidden_of, run_block
from sinkprune_core.encoding import Tokenizer
from sinkprune_core.language_model import LanguageModel, set_direction
from sinkprune_core.model_checks import check_structure, positions_of
from sinkprune_core.values import Flag, Number, Text, checked_arguments, in_short

SAMPLE = (2, 5)  # rows and tokens of the texts that `check_computation` runs
FAR_APART = 7919  # ids between two of these tokens: a prime, so that they differ in most vocabularies
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}  # of the largest number, what rounding may change
TOLERANCE_IN_FEWER_BITS = 0.05
FAILURES = (RuntimeError, TypeError, LookupError, AttributeError)  # of a forward that is not meant to be


@checked_arguments
def wrap(
    model: PreTrainedModel,
    tokenizer: Tokenizer | None = None,
    *,
    mask_token_id: Number | None = None,
    logits_shifted: Flag | None = None,
    name: Text | None = None,
) -> LanguageModel:
    """Return a model of transformers as one that can be tracked, pruned and sampled; nothing is copied.

    With a `mask_token_id` it is a diffusion model, whose attention is made bidirectional; without, an
    autoregressive one, made causal. `logits_shifted` must be said of a diffusion model: True where the output
    at position i-1 predicts the token at i (Dream), False where that at i does (LLaDA). `tokenizer` is needed
    for text alone. The model is put into evaluation mode; of a compiled one (`torch.compile`) the original is
    taken.

    Raises TypeError for what is no model of transformers, and ValueError, in one sentence, for a model that
    is not covered or whose attention does not look in the direction that its kind has.
    """
    model = getattr(model, "_orig_mod", model)
    check_structure(model)

    empty = [part for part, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise ValueError(
            f"{empty[0]} of {type(model).__name__} has no weights, only a shape: load them first"
        )

    is_diffusion = mask_token_id is not None
    if logits_shifted is None and is_diffusion:
        raise ValueError(
            "logits_shifted must be said of a diffusion model: True where the output at position i-1 "
            "predicts the token at i (Dream, DiffuGPT), False where that at i does (LLaDA, A2D)"
        )

    if logits_shifted is False and not is_diffusion:
        raise ValueError(
            "logits_shifted=False does not fit an autoregressive model, which predicts the next token; give "
            "the mask_token_id of a diffusion model"
        )

    with _as_it_was_if_refused(model):
        set_direction(model.eval(), causal=not is_diffusion)
        lm = LanguageModel(
            model=model,
            tokenizer=tokenizer,
            name=name or Path(model.config.name_or_path or "").name or type(model).__name__,
            kind="diffusion" if is_diffusion else "autoregressive",
            mask_token_id=mask_token_id,
            logits_shifted=True if logits_shifted is None else logits_shifted,
        )
        check_computation(lm)
        return lm


@contextmanager
def _as_it_was_if_refused(model: PreTrainedModel) -> Iterator[None]:
    """Give a model its direction and its modes back where the block ends in an error."""
    owners = [model.config, *model.modules()]
    directions = [(owner, owner.is_causal) for owner in owners if hasattr(owner, "is_causal")]
    modes = [(module, module.training) for module in model.modules()]
    has_direction = hasattr(model.config, "is_causal")

    try:
        yield
    except BaseException:
        if not has_direction:
            vars(model.config).pop("is_causal", None)
        for owner, causal in directions:
            cast(Any, owner).is_causal = causal
        for module, training in modes:
            module.training = training
        raise


# what it computes


@torch.no_grad()
def check_computation(lm: LanguageModel) -> None:
    """Raise ValueError where a few tokens show that a model does not compute what is presumed of it.

    Of a model whose numbers are not finite only the order of its calls is looked at; the numbers have errors
    of their own. Its weights must be in memory.
    """
    vocabulary = lm.vocabulary
    rows, length = SAMPLE
    length = min(length, positions_of(lm.model) or length)
    if vocabulary < 2 or length < 2:
        return

    ids_BT = (torch.arange(rows * length) * FAR_APART % vocabulary).view(rows, length).to(lm.device)
    hidden_BTD, last_BTD = _watched(lm, ids_BT)
    if not bool(torch.isfinite(hidden_BTD).all()):
        return

    _check_direction(lm, ids_BT, hidden_BTD)
    _check_padding(lm, ids_BT, hidden_BTD)
    _check_blocks_one_by_one(lm, ids_BT, last_BTD)
    _check_head(lm, ids_BT, hidden_BTD)


def _watched(lm: LanguageModel, ids_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last hidden states and what the last block gave, (B, T, D) each, of a forward.

    Raises ValueError unless every block runs once, in order, and every linear of it receives every token.
    """
    order: list[int] = []
    given: list[torch.Tensor] = []
    tokens: Counter[tuple[int, str]] = Counter()

    def enter(layer: int, *_: object) -> None:
        order.append(layer)

    def receive(place: tuple[int, str], linear: nn.Linear, args: tuple[torch.Tensor]) -> None:
        tokens[place] += args[0].numel() // linear.in_features

    def give(block: nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
        given.append(hidden_of(output))

    with ExitStack() as hooks:
        for layer, block in enumerate(lm.blocks):
            hooks.callback(block.register_forward_pre_hook(partial(enter, layer)).remove)
        for place, linear in lm.all_linears().items():
            hooks.callback(linear.register_forward_pre_hook(partial(receive, place)).remove)
        hooks.callback(lm.blocks[-1].register_forward_hook(give).remove)
        hidden_BTD = _first_hidden(lm, ids_BT)

    name = type(lm.model).__name__
    if order != list(range(len(lm.blocks))):
        raise ValueError(
            f"a forward of {name} runs its {len(lm.blocks)} blocks in the order {order}: only models that "
            "run every block once, one after the other, are covered"
        )

    for layer, part in lm.all_linears():
        if tokens[layer, part] != ids_BT.numel():
            raise ValueError(
                f"{part} of block {layer} of {name} receives {tokens[layer, part]} of {ids_BT.numel()} "
                "tokens: linears that see only some of them, such as those of experts, are not covered"
            )

    return hidden_BTD, given[-1]


def _first_hidden(lm: LanguageModel, ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states; raise ValueError where the model cannot run in the direction it has."""
    try:
        return lm._last_hidden(ids_BT, None)
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        raise ValueError(
            f"a forward of {type(lm.model).__name__} fails inside transformers, with attention that is "
            f"{'bidirectional' if lm.is_diffusion else 'causal'}: {in_short(str(error))}; take another class"
        ) from error


def _difference(lm: LanguageModel, one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference, in units of what rounding in the model's dtype may make of it."""
    scale = float(one.abs().max()) or 1.0
    allowed = TOLERANCE.get(lm.model.dtype, TOLERANCE_IN_FEWER_BITS) * scale
    return float((one.double() - other.double().to(one.device)).abs().max()) / allowed


def _check_direction(lm: LanguageModel, ids_BT: torch.Tensor, hidden_BTD: torch.Tensor) -> None:
    """Compare outputs before the last token of texts that differ in it alone."""
    other_BT = ids_BT.clone()
    other_BT[:, -1] = (other_BT[:, -1] + 1 + lm.vocabulary // 2) % lm.vocabulary
    before_BTD = hidden_BTD[:, :-1]
    other_BTD = lm._last_hidden(other_BT, None)
    after_BTD = other_BTD[:, :-1]

    if lm.is_diffusion and torch.equal(hidden_BTD, other_BTD):
        raise ValueError(f"the outputs of {lm.name} do not depend on its tokens: weights of it are zero")

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


def _check_padding(lm: LanguageModel, ids_BT: torch.Tensor, hidden_BTD: torch.Tensor) -> None:
    """Compare outputs with those behind a token of padding, which must change nothing."""
    if lm.is_streamed:  # takes no padding
        return

    padded_BT = torch.cat([ids_BT[:, :1], ids_BT], dim=1)
    present_BT = torch.ones_like(padded_BT)
    present_BT[:, 0] = 0
    after_BTD = lm._last_hidden(padded_BT, present_BT)[:, 1:]

    if _difference(lm, hidden_BTD, after_BTD) > 1:
        raise ValueError(
            f"{lm.name} computes something else beside padding than without it, in its positions or in its "
            f"direction ({'bidirectional' if lm.is_diffusion else 'causal'}): an encoder looks in both "
            "directions, so give its mask_token_id; other such models are not covered"
        )


def _check_blocks_one_by_one(lm: LanguageModel, ids_BT: torch.Tensor, last_BTD: torch.Tensor) -> None:
    """Compare what the blocks make one by one, as pruning runs them, with what the whole model made."""
    try:
        inputs = block_inputs(lm, Rows(ids_BT, None), len(ids_BT))
        for block in lm.blocks:
            inputs = run_block(block, inputs)
        differs = _difference(lm, last_BTD, inputs[0].hidden_BTD) > 1
    except torch.OutOfMemoryError:
        raise
    except (ValueError, *FAILURES):
        differs = True

    if differs:
        raise ValueError(
            f"the blocks of {type(lm.model).__name__} run one by one do not give what the whole model gives: "
            "more than hidden states goes from one to the next, which is not covered"
        )


def _check_head(lm: LanguageModel, ids_BT: torch.Tensor, hidden_BTD: torch.Tensor) -> None:
    """Compare logits from the last hidden states with the model's own."""
    own_BTV = lm.model(ids_BT, use_cache=False).logits
    logits_NV = lm.raw_logits(hidden_BTD.flatten(0, 1))
    if own_BTV.numel() != logits_NV.numel() or _difference(lm, own_BTV.flatten(0, 1), logits_NV) > 1:
        raise ValueError(
            f"the logits of {type(lm.model).__name__} come from more than the last hidden states, which is "
            "not covered"
        )
