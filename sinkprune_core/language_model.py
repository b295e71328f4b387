"""Language models under one small interface, whatever their direction.

A diffusion language model (DLM) here is a native transformers causal-LM class whose attention is
bidirectional (`is_causal=False`) and whose vocabulary has a mask token: no remote code, no forked model.

Dimensions: B batch, T sequence position (tokens), D hidden width, V vocabulary, N selected positions.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkprune.files import atomic, digests, write_json
from sinkprune_core.encoding import without_mask
from sinkprune_core.forwards import check_ids, check_output, is_finite

KINDS = ("autoregressive", "diffusion")
CARD = "sinkprune.json"  # written beside a saved model: what transformers' own config cannot say


@dataclass(frozen=True)
class LanguageModel:
    """A native transformers model with what is needed to read its logits.

    Raises ValueError for an unknown kind, and for a mask token that does not fit the kind or the vocabulary.
    """

    model: PreTrainedModel
    tokenizer: object
    name: str
    kind: str  # one of KINDS
    mask_token_id: int | None  # of a diffusion model; an autoregressive one has none
    logits_shifted: bool
    """The output at position i-1 predicts the token at i: every autoregressive model, Dream-type DLMs."""

    def __post_init__(self):
        blocks_of(self.model)
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {KINDS}")
        has_mask = self.mask_token_id is not None
        if self.is_diffusion != has_mask:
            raise ValueError(
                f"mask_token_id={self.mask_token_id} does not fit kind={self.kind!r}: "
                "a diffusion model has one, an autoregressive model has none"
            )
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if has_mask and not 0 <= self.mask_token_id < vocabulary:
            raise ValueError(f"mask_token_id={self.mask_token_id} is outside the vocabulary of {vocabulary}")

    @property
    def is_diffusion(self) -> bool:
        """Whether it fills masks in both directions instead of writing from left to right."""
        return self.kind == "diffusion"

    @property
    def device(self) -> torch.device:
        """Where the input embedding lies, so where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return blocks_of(self.model)

    @property
    def blocks_name(self) -> str:
        """What the list of blocks is called in the model, e.g. `model.layers`."""
        return part_name(self.model, self.blocks)

    is_streamed = False  # whether blocks come from disk one at a time (see streaming.py)

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory: here they always are, but not in a streamed model."""
        yield self.blocks[layer]

    def linears(self, block: nn.Module) -> dict[str, nn.Linear | Conv1D]:
        """Return the prunable linear maps of a block by name: what a stated sparsity is a share of."""
        return {
            name: module for name, module in block.named_modules() if isinstance(module, (nn.Linear, Conv1D))
        }

    def hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), without the output head.

        Raises ValueError for ids that are no tokens of the model, for longer rows than it has positions, and
        where a number of the result is not finite.
        """
        check_ids(self, ids_BT, None if attention_mask_BT is None else int(attention_mask_BT.sum(1).max()))
        return check_output(self, self._last_hidden(ids_BT, attention_mask_BT))

    def _last_hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> torch.Tensor:
        if attention_mask_BT is not None:
            attention_mask_BT = attention_mask_BT.to(self.device)
        output = self.model.base_model(
            ids_BT.to(self.device), attention_mask=attention_mask_BT, use_cache=False
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
        self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the last hidden states that predict the tokens at some positions, (N, D), row by row.

        `where_BT` (bool) says at which. With shifted logits position 0 has no predecessor and keeps its own
        output, as in Dream's reference sampler. Raises ValueError for position 0 of an autoregressive model.
        """
        where_BT = where_BT.to(self.device)
        if not self.is_diffusion and bool(where_BT[:, 0].any()):
            raise ValueError("an autoregressive model does not predict position 0: leave it out of `where`")
        hidden_BTD = self.hidden(ids_BT, attention_mask_BT)
        row_N, position_N = where_BT.nonzero(as_tuple=True)
        if self.logits_shifted:
            position_N = (position_N - 1).clamp_min(0)
        return hidden_BTD[row_N, position_N]  # (N, D)

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states, float32 (N, V); ValueError where one is not finite."""
        return check_output(self, self.raw_logits(hidden_ND)).float()

    def raw_logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states in the model's dtype, (N, V), finite or not."""
        return self.model.get_output_embeddings()(hidden_ND).to(hidden_ND.device)

    def next_logits(self, fresh_BT: torch.Tensor, cache, **padding: torch.Tensor) -> torch.Tensor:
        """Feed new tokens to an autoregressive model with a KV cache; return the next token's logits.

        They are float32 (B, V). Padded rows come with `attention_mask` of all tokens so far and
        `position_ids` of the new ones.
        """
        if self.is_streamed:
            raise ValueError(f"{self.name} is streamed from disk and cannot write token by token: use `load`")
        tokens = cache.get_seq_length() + fresh_BT.shape[1]
        if padding:
            tokens = int(padding["attention_mask"].sum(1).max())
        check_ids(self, fresh_BT, tokens)
        output = self.model.base_model(fresh_BT.to(self.device), cache=cache, use_cache=True, **padding)
        last_BD = output.last_hidden_state[:, -1].contiguous()
        return self.head(last_BD.to(self.device))

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of `text`, int64 (T,), without special tokens around it and without a mask."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return torch.tensor(without_mask(ids, self.tokenizer, self.mask_token_id), dtype=torch.long)

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over every parameter's name, dtype, shape and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def save(self, folder: Path | str, texts: Mapping[str, str] | None = None, **card: object) -> Path:
        """Write the model, tokenizer and card in transformers format (safetensors), atomically.

        `load(folder)` reads it back. `texts` are more files by name, `card` is more to put on the card, JSON
        values by name. Raises FileExistsError if `folder` exists, as nothing is ever overwritten, and
        ValueError for biases from `compensate` in a class without: `shrink` gives a class that has them.
        """
        folder = self._new_folder(folder)
        with torch.device("meta"):
            expected = type(self.model)(self.model.config).state_dict()
        if more := sorted(self.model.state_dict().keys() - expected.keys()):
            raise ValueError(f"{self.name} has {more[0]}, which its class cannot read: `shrink` it first")
        with atomic(folder) as partial:
            self.model.save_pretrained(partial, save_original_format=False)  # native names
            self._save_other_files(partial, texts or {}, card)
        return folder

    def _new_folder(self, folder: Path | str) -> Path:
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
        return folder

    def _save_other_files(self, folder: Path, texts: Mapping[str, str], more: dict[str, object]) -> None:
        """Write tokenizer, `texts` and card beside the weights."""
        self.tokenizer.save_pretrained(folder)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        card = {
            "name": self.name,
            "kind": self.kind,
            "mask_token_id": self.mask_token_id,
            "logits_shifted": self.logits_shifted,
            "sha256": digests(folder, "*.safetensors", "tokenizer.json"),  # what is read is what was written
            **more,
        }
        write_json(folder / CARD, card)


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of a native model; GPT-2 calls them h. Raises ValueError where there are none."""
    for name in ("h", "layers"):
        blocks = getattr(model.base_model, name, None)
        if isinstance(blocks, nn.ModuleList):
            return blocks
    raise ValueError(f"{type(model).__name__} has no blocks `layers` or `h`: this architecture is not known")


def part_name(model: PreTrainedModel, part: nn.Module) -> str:
    """Return what a part is called in its model, e.g. `model.layers.3`."""
    return next(name for name, module in model.named_modules() if module is part)


def weight_OI(linear: nn.Linear | Conv1D) -> torch.Tensor:
    """Return the weight as (output, input) features, a view that writes through.

    GPT-2's Conv1D stores the transpose.
    """
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


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
            module.is_causal = causal
    return model


def check_finite(lm: LanguageModel, named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise ValueError, naming the first of some parameters with a number that is not finite."""
    for name, parameter in named:
        value = parameter.detach()
        if value.is_meta:  # the head of a streamed model
            value = lm.checkpoint.tensor(name).to(lm.dtype)
        if not is_finite(value):
            raise ValueError(
                f"{name} of {lm.name} holds numbers that are not finite: its weights are damaged, or too "
                f"large for {parameter.dtype}; take the published files, or a wider dtype"
            )
