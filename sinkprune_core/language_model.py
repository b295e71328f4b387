"""Language models under one small interface, whatever their direction: `wrap` makes one of any model.

A diffusion language model (DLM) here is a native transformers causal-LM class whose attention is
bidirectional (`is_causal=False`) and whose vocabulary has a mask token: no remote code, no forked model.

Dimensions: B batch, T sequence position (tokens), D hidden width, V vocabulary, N selected positions.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from sinkprune_core.encoding import Tokenizer, without_mask
from sinkprune_core.model_checks import (
    blocks_of,
    check_mode,
    check_structure,
    holders_of,
    padded_positions,
    positions_of,
)
from sinkprune_core.values import Flag, Number, Plain, Text, checked, in_short, is_finite

Kind = Literal["autoregressive", "diffusion"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LinearAt = tuple[int, str]  # of a linear: the number of its block, and its name there
TEXTLESS = "give the tokenizer to `wrap`, or token ids instead of text"


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A native transformers model with what is needed to read its logits; `wrap` makes one.

    Raises TypeError for what is no model of transformers. Raises ValueError for an unknown kind, for a mask
    token that does not fit the kind or the vocabulary, for a model whose dropout is on, and, by name, for one
    that is not covered (see `model_checks`). What it computes is asked by `wrap`, and by `load`.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer | None  # None: only token ids are used
    name: str
    kind: Kind
    mask_token_id: int | None  # of a diffusion model; an autoregressive one has none
    logits_shifted: bool
    """The output at position i-1 predicts the token at i: every autoregressive model, Dream-type DLMs."""

    def __post_init__(self):
        check_structure(self.model)
        self._check_kind()
        check_mode(self.model, self.name)

    def _check_kind(self) -> None:
        """Raise ValueError for a kind or a mask token that cannot be."""
        checked("kind", self.kind, Kind)
        checked("mask_token_id", self.mask_token_id, Number | None)
        checked("logits_shifted", self.logits_shifted, Flag)
        checked("name", self.name, Text)

        has_mask = self.mask_token_id is not None
        if self.is_diffusion != has_mask:
            raise ValueError(
                f"mask_token_id={self.mask_token_id} does not fit kind={self.kind!r}: "
                "a diffusion model has one, an autoregressive model has none"
            )

        vocabulary = self.vocabulary
        if self.mask_token_id is not None and not 0 <= self.mask_token_id < vocabulary:
            raise ValueError(f"mask_token_id={self.mask_token_id} is outside the vocabulary of {vocabulary}")

    def named(self, name: str) -> Self:
        """Return the same model by another name; nothing of it is copied, and no forward runs."""
        checked("name", name, Text)
        renamed = copy.copy(self)
        object.__setattr__(renamed, "name", name)
        return renamed

    @property
    def vocabulary(self) -> int:
        """How many tokens have an input embedding."""
        return self._embedding.num_embeddings

    @property
    def _embedding(self) -> nn.Embedding:
        return cast(nn.Embedding, self.model.get_input_embeddings())

    @property
    def output_head(self) -> nn.Linear:
        """What turns last hidden states into logits."""
        return cast(nn.Linear, self.model.get_output_embeddings())

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer; ValueError for a model without one, which takes token ids alone."""
        if self.tokenizer is None:
            raise ValueError(f"{self.name} has no tokenizer, which turns text into ids: {TEXTLESS}")
        return self.tokenizer

    @property
    def end_of_text(self) -> int | None:
        """Id of the token that ends a text; None where no tokenizer names one."""
        return getattr(self.tokenizer, "eos_token_id", None)

    @property
    def mask(self) -> int:
        """Id of the mask token; ValueError for an autoregressive model."""
        if self.mask_token_id is None:
            raise ValueError(f"{self.name} is {self.kind} and has no mask token")
        return self.mask_token_id

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of parameters."""
        return self._embedding.weight.dtype

    @property
    def is_diffusion(self) -> bool:
        """Whether it fills masks in both directions instead of writing from left to right."""
        return self.kind == "diffusion"

    @property
    def device(self) -> torch.device:
        """Where the input embedding lies, so where token ids go."""
        return self._embedding.weight.device

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return blocks_of(self.model)

    @property
    def blocks_name(self) -> str:
        """What the list of blocks is called in the model, e.g. `model.layers`."""
        return part_name(self.model, self.blocks)

    @property
    def is_streamed(self) -> bool:
        """Whether blocks come from disk one at a time, so that every forward reads the whole model."""
        return False

    @property
    def has_blocks_in_memory(self) -> bool:
        """Whether the weights of all blocks are in memory."""
        return not any(parameter.is_meta for parameter in self.blocks.parameters())

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory, where they are; another kind of model may read them."""
        yield self.blocks[layer]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Copy the blocks and put them back at the end; see `weights_kept`."""
        check_structure(self.model)
        self.check_loaded()
        modules = [_AsItWas(module) for module in self.blocks.modules()]

        try:
            yield
        finally:
            with torch.no_grad(), ExitStack() as each:  # all come back, even where one raises an error
                for module in modules:
                    module.put_back()
                    for parameter, numbers in module.numbers:
                        each.callback(_give_numbers, parameter, numbers)

    def value_of(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """Return the numbers of a parameter, which another kind of model may have to read first."""
        return parameter.detach()

    def linears(self, block: nn.Module) -> dict[str, nn.Linear]:
        """Return the prunable linear maps of a block by name: what a stated sparsity is a share of."""
        return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}

    def all_linears(self) -> dict[LinearAt, nn.Linear]:
        """Return the prunable linear maps of all blocks, by the number of the block and the name in it."""
        return {
            (layer, name): linear
            for layer, block in enumerate(self.blocks)
            for name, linear in self.linears(block).items()
        }

    @property
    def prunable_weights(self) -> int:
        """How many weights the linear maps of all blocks have."""
        return sum(linear.weight.numel() for linear in self.all_linears().values())

    def count_zeros(self) -> int:
        """Return how many weights of the linear maps of all blocks are zero."""
        return sum(int((linear.weight == 0).sum()) for linear in self.all_linears().values())

    # what a forward takes and gives

    def check_ids(self, ids_BT: torch.Tensor, training: bool = False) -> None:
        """Raise an error unless ids are int64 of the vocabulary; how long rows may be says `check_positions`.

        Raises TypeError for what is no tensor, ValueError for other ids, and for a model that was turned in
        the other direction since it was wrapped, or whose dropout is on, unless it is `training`.
        """
        if not isinstance(ids_BT, torch.Tensor):
            raise TypeError(f"token ids are {in_short(ids_BT)}: {self.name} takes a tensor of int64")
        if ids_BT.dtype != torch.int64:
            raise ValueError(f"token ids are {ids_BT.dtype}: {self.name} takes a tensor of int64")

        if not training:
            check_mode(self.model, self.name)
        self._check_direction()
        if not ids_BT.numel():
            return

        least, most = (int(extreme) for extreme in ids_BT.aminmax())
        if least < 0 or most >= self.vocabulary:
            raise ValueError(
                f"token id {least if least < 0 else most} is outside the vocabulary of {self.name}, "
                f"0 … {self.vocabulary - 1}: take ids of its own tokenizer"
            )

    def _check_direction(self) -> None:
        is_causal = getattr(self.model.config, "is_causal", None)
        if is_causal is not None and is_causal == self.is_diffusion:
            other = "causal" if is_causal else "bidirectional"
            raise ValueError(
                f"{self.name} is {self.kind}, and its attention was made {other} since: wrap a copy of the "
                "model for the other direction (copy.deepcopy)"
            )

    def _check_rows(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> None:
        """Raise ValueError unless ids are rows of at least a token, and for a mask of another shape."""
        shape = tuple(ids_BT.shape)
        if len(shape) != 2 or not ids_BT.numel():
            raise ValueError(
                f"ids_BT has shape {shape}: {self.name} takes (sequences, tokens), at least one of each"
            )
        if attention_mask_BT is not None and tuple(attention_mask_BT.shape) != shape:
            raise ValueError(
                f"attention_mask_BT has shape {tuple(attention_mask_BT.shape)}, and ids_BT has {shape}: "
                "give one number for every token"
            )

    def check_positions(self, tokens: int) -> None:
        """Raise ValueError for a sequence of more tokens than the model has positions."""
        limit = positions_of(self.model)
        if limit is not None and tokens > limit:
            raise ValueError(
                f"a sequence of {tokens} tokens exceeds the {limit} positions of {self.name}: "
                "shorten the prompt or what is to be written or scored"
            )

    def check_loaded(self) -> None:
        """Raise ValueError where a part has no numbers: a forward would read what lies in memory."""
        for name, parameter in self.model.named_parameters():
            _check_numbers(self.name, name, parameter)

    def check_output(self, value: torch.Tensor) -> torch.Tensor:
        """Return what the model has computed; raise ValueError where a number of it is not finite."""
        if not is_finite(value):
            raise ValueError(
                f"what {self.name} computes in {self.model.dtype} is not finite: "
                "its weights are damaged, or take a wider dtype"
            )
        return value

    def hidden(
        self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None, training: bool = False
    ) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), without the output head.

        `training` allows for dropout, which a score must not have. Raises ValueError for ids that are no
        tokens of the model, for longer rows than it has positions, where a number of the result is not
        finite, and for a model without weights.
        """
        checked("attention_mask_BT", attention_mask_BT, Plain | None)
        self.check_ids(ids_BT, training)
        self._check_rows(ids_BT, attention_mask_BT)

        longest = ids_BT.shape[1] if attention_mask_BT is None else int(attention_mask_BT.sum(1).max())
        self.check_positions(longest)
        return self.check_output(self._last_hidden(ids_BT, attention_mask_BT))

    def _last_hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> torch.Tensor:
        self.check_loaded()
        if attention_mask_BT is not None:
            attention_mask_BT = attention_mask_BT.to(self.device)

        output = self.model.base_model(
            ids_BT.to(self.device),
            attention_mask=attention_mask_BT,
            use_cache=False,
            **padded_positions(cast(PreTrainedModel, self.model.base_model), attention_mask_BT),
        )
        return output.last_hidden_state.to(self.device)

    def logits_at(
        self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits that predict the tokens at some positions, float32 (N, V), row by row.

        `where_BT` (bool) says at which.
        """
        return self.head(self.hidden_at(ids_BT, where_BT, attention_mask_BT))

    def hidden_at(
        self,
        ids_BT: torch.Tensor,
        where_BT: torch.Tensor,
        attention_mask_BT: torch.Tensor | None = None,
        training: bool = False,
    ) -> torch.Tensor:
        """Return the last hidden states that predict the tokens at some positions, (N, D), row by row.

        `where_BT` (bool) says at which, and `training` is what `hidden` takes. With shifted logits position 0
        has no predecessor and keeps its own output, as in Dream's reference sampler. Raises ValueError for
        position 0 of an autoregressive model, and unless there is a bool for every id.
        """
        checked("where_BT", where_BT, Plain)
        self.check_ids(ids_BT, training)
        self._check_rows(ids_BT, attention_mask_BT)
        if where_BT.dtype != torch.bool or where_BT.shape != ids_BT.shape:
            raise ValueError(
                f"where_BT is {where_BT.dtype} of shape {tuple(where_BT.shape)}, and ids_BT has shape "
                f"{tuple(ids_BT.shape)}: give one bool for every id"
            )

        if not self.is_diffusion and bool(where_BT[:, 0].any()):
            raise ValueError("an autoregressive model does not predict position 0: leave it out of `where`")

        hidden_BTD = self.hidden(ids_BT, attention_mask_BT, training)
        row_N, position_N = where_BT.to(self.device).nonzero(as_tuple=True)
        if self.logits_shifted:
            position_N = (position_N - 1).clamp_min(0)

        return hidden_BTD[row_N, position_N]  # (N, D)

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states, float32 (N, V); ValueError where one is not finite."""
        return self.check_output(self.raw_logits(hidden_ND)).float()

    def raw_logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states in the model's dtype, (N, V), finite or not.

        The model computes them itself, from these states in place of what its base model returns: whatever it
        does beside the output head (a scale, a soft cap, the transform of an encoder) is done.
        """
        states = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=cast(Any, hidden_ND[None]))
        with ExitStack() as stubs:
            for holder in holders_of(self.model):
                stubs.enter_context(forward_replaced(holder, lambda *_, **__: states))
            return self.model().logits[0].to(hidden_ND.device)

    def next_logits(self, fresh_BT: torch.Tensor, cache: Cache, **padding: torch.Tensor) -> torch.Tensor:
        """Feed new tokens to an autoregressive model with a KV cache; return the next token's logits.

        They are float32 (B, V). Padded rows come with `attention_mask` of all tokens so far and
        `position_ids` of the new ones.
        """
        former = cache.get_seq_length()
        if not former:
            self.check_loaded()
        tokens = former + fresh_BT.shape[1]
        if padding:
            tokens = int(padding["attention_mask"].sum(1).max())

        self.check_ids(fresh_BT)
        self.check_positions(tokens)
        output = self.model.base_model(fresh_BT.to(self.device), cache=cache, use_cache=True, **padding)
        last_BD = output.last_hidden_state[:, -1].contiguous()

        return self.head(last_BD.to(self.device))

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of `text`, int64 (T,), without special tokens around it and without a mask.

        Raises ValueError for a model without a tokenizer.
        """
        tokenizer = self.text_tokenizer
        checked("text", text, Text)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return torch.tensor(without_mask(ids, tokenizer, self.mask_token_id), dtype=torch.long)

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over every parameter's name, dtype, shape and bytes.

        Raises ValueError for a model that is not covered, or has no numbers.
        """
        digest = hashlib.sha256()
        check_structure(self.model)
        self.check_loaded()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            numbers = tensor.detach().cpu().flatten()  # a buffer may be a single number
            digest.update(numbers.view(torch.uint8).numpy())

        return digest.hexdigest()[:16]


def _check_numbers(model_name: str, name: str, value: torch.Tensor) -> None:
    """Raise ValueError for a part of a model that has a shape and no numbers."""
    if value.is_meta:
        raise ValueError(f"{name} of {model_name} has no numbers, only a shape: load the model first")


class _AsItWas:
    """A module with the parts and the parameters that it has now, and copies of their numbers."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.parts = dict(module._modules)
        self.parameters = dict(module._parameters)
        own = [parameter for parameter in self.parameters.values() if parameter is not None]
        self.numbers = [(parameter, parameter.detach().clone()) for parameter in own]

    def put_back(self) -> None:
        """Let the module have the same parts and parameters again, whatever their numbers are by now."""
        self.module._modules.clear()
        self.module._modules.update(self.parts)

        self.module._parameters.clear()
        self.module._parameters.update(self.parameters)


def _give_numbers(parameter: nn.Parameter, numbers: torch.Tensor) -> None:
    """Give a parameter its former numbers, in the same memory unless its tensor was exchanged for another."""
    now = parameter.data
    is_like_them = (now.shape, now.dtype, now.device) == (numbers.shape, numbers.dtype, numbers.device)
    if is_like_them:
        parameter.copy_(numbers)
    else:
        parameter.data = numbers


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module answer with another function inside the block."""
    former = vars(module).get("forward")  # of a module that accelerate moves it is its own
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if former is not None:
            module.forward = former


def part_name(model: PreTrainedModel, part: nn.Module) -> str:
    """Return what a part is called in its model, e.g. `model.layers.3`."""
    return next(name for name, module in model.named_modules() if module is part)


def zero_out(weight: torch.Tensor, pruned: torch.Tensor) -> None:
    """Set the weights that `pruned`, bool of their shape, marks to 0 in place, faster than `masked_fill_`."""
    whole_numbers = weight.view(getattr(torch, f"int{8 * weight.itemsize}"))
    whole_numbers.mul_(~pruned)


def set_direction(model: PreTrainedModel, causal: bool) -> PreTrainedModel:
    """Make attention causal or bidirectional for full forwards and for blocks called one by one.

    `config.is_causal` alone governs full forwards; a block called without that argument falls back on its
    attention module's own flag (SDPA with no mask would otherwise be silently causal), so both are set.
    """
    model.config.is_causal = causal
    for module in model.modules():
        if hasattr(module, "is_causal"):
            cast(Any, module).is_causal = causal
    return model


def check_finite(lm: LanguageModel, named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise ValueError, naming the first parameter without numbers, or with one that is not finite."""
    for name, parameter in named:
        value = lm.value_of(name, parameter)
        _check_numbers(lm.name, name, value)
        if not is_finite(value):
            raise ValueError(
                f"{name} of {lm.name} holds numbers that are not finite: its weights are damaged, or too "
                f"large for {parameter.dtype}; take the published files, or a wider dtype"
            )
