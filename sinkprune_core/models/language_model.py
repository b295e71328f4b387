"""Language models under one small interface, whatever their direction.

A diffusion language model (DLM) here is a native transformers causal-LM class whose attention is bidirectional
(`is_causal=False`) and whose vocabulary has a mask token: no remote code, no forked modeling file.

Dimensions: B batch, T sequence position (tokens), D hidden width, V vocabulary, N selected positions.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkprune_core.files import atomic, write_json
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models import embedded
from sinkprune_core.models.catalog import EMBEDDED, MODELS, REFUSED, KnownModel
from sinkprune_core.models.formats import FormatError
from sinkprune_core.models.hub import Requirements, choose_dtype, fetch, parse, requirements
from sinkprune_core.models.placement import DeviceMap, device_of, dispatch, place
from sinkprune_core.models.reader import CARD, DTYPES, LARGE, Checkpoint, part_name, set_direction

__all__ = [
    "CARD",
    "DTYPES",
    "EMBEDDED",
    "KINDS",
    "MODELS",
    "REFUSED",
    "Checkpoint",
    "FormatError",
    "KnownModel",
    "LanguageModel",
    "Requirements",
    "check_name",
    "from_folder",
    "language_model",
    "load",
    "open_checkpoint",
    "requirements",
    "set_direction",
    "weight_OI",
]

KINDS = ("autoregressive", "diffusion")


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
            raise ValueError(
                f"mask_token_id={self.mask_token_id} does not fit kind={self.kind!r}: a diffusion model has one, an autoregressive model has none"
            )
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if self.mask_token_id is not None and not 0 <= self.mask_token_id < vocabulary:
            raise ValueError(
                f"mask_token_id={self.mask_token_id} is outside the vocabulary of {vocabulary} tokens"
            )

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
        return part_name(self.model, self.blocks)

    is_streamed = False  # whether blocks come from disk one at a time (see streaming.py)

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Yield a block with its weights in memory; here they always are, in a streamed model only meanwhile."""
        yield self.blocks[layer]

    def linears(self, block: nn.Module) -> dict[str, nn.Linear | Conv1D]:
        """Return the prunable linear maps of a block by name: what a stated sparsity is a share of."""
        return {
            name: module for name, module in block.named_modules() if isinstance(module, (nn.Linear, Conv1D))
        }

    def hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), without the output head."""
        ids_BT = ids_BT.to(self.device)
        return self.model.base_model(
            ids_BT,
            attention_mask=None if attention_mask_BT is None else attention_mask_BT.to(self.device),
            use_cache=False,
        ).last_hidden_state.to(self.device)

    def logits_at(
        self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits that predict the tokens at the positions `where_BT` (bool), float32 (N, V), in row-major order."""
        return self.head(self.hidden_at(ids_BT, where_BT, attention_mask_BT))

    def hidden_at(
        self, ids_BT: torch.Tensor, where_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
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
        return self.model.get_output_embeddings()(hidden_ND).float().to(hidden_ND.device)

    def next_logits(self, fresh_BT: torch.Tensor, cache, **padding: torch.Tensor) -> torch.Tensor:
        """Feed new tokens to an autoregressive model with a KV cache; return the logits of the next token, float32 (B, V).

        Padded rows come with `attention_mask` of all tokens so far and `position_ids` of the new ones.
        """
        hidden_BTD = self.model.base_model(
            fresh_BT.to(self.device), cache=cache, use_cache=True, **padding
        ).last_hidden_state
        return self.head(hidden_BTD[:, -1].contiguous().to(self.device))

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
            self.model.save_pretrained(
                partial, save_original_format=False
            )  # native names, whatever format was read
            self.tokenizer.save_pretrained(partial)
            write_json(
                partial / CARD,
                {
                    "name": self.name,
                    "kind": self.kind,
                    "mask_token_id": self.mask_token_id,
                    "logits_shifted": self.logits_shifted,
                    **card,
                },
            )
        return folder


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the transformer blocks of a native model; GPT-2 calls them h."""
    base = model.base_model
    return base.h if hasattr(base, "h") else base.layers


def weight_OI(linear: nn.Linear | Conv1D) -> torch.Tensor:
    """Return the weight as (output, input) features, a view that writes through: GPT-2's Conv1D stores the transpose."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def from_folder(
    folder: Path | str, dtype: torch.dtype, causal: bool | None = None
) -> tuple[PreTrainedModel, object]:
    """Load a folder strictly: any missing, unexpected or mismatched key is an error that lists them."""
    checkpoint = Checkpoint(folder, causal=causal)
    return checkpoint.load(dtype), checkpoint.tokenizer()


def check_name(name: str | os.PathLike) -> None:
    """Raise ValueError unless `name` is in the table of models or a folder of weights."""
    parse(name)


def open_checkpoint(name: str | os.PathLike) -> Checkpoint:
    """Return the weights behind a name without reading them: for work that goes block by block.

    A hub id of the table is downloaded first. Raises ValueError for an unknown name, and for a base with an adapter, which
    exists only once that is merged: load and save it, then give the folder.
    """
    row, revision = parse(name)
    if row is None:
        return Checkpoint(name)
    if row.id in embedded.ADAPTERS:
        raise ValueError(
            f"{row.id} is a base with an adapter, not a folder: save it with load({row.id!r}).save(folder) and give that folder"
        )
    if row.id == "smol-ar":
        return Checkpoint(embedded.base_folder(), causal=True, row=row)
    folder, tokenizer = fetch(row, revision)
    return Checkpoint(folder, row.family, row.file, row=row, tokenizer=tokenizer)


def language_model(
    checkpoint: Checkpoint, model: PreTrainedModel, tokenizer: object | None = None, name: str | None = None
) -> LanguageModel:
    """Return `model`, loaded or a skeleton, with what the checkpoint says about its logits and its mask token.

    Raises FormatError where two sources name different mask tokens, none names one, or the shift of logits is not known.
    """
    tokenizer = tokenizer or checkpoint.tokenizer()
    name = (
        name
        or checkpoint.card.get("name")
        or (checkpoint.row.id if checkpoint.row else checkpoint.folder.name)
    )
    return LanguageModel(
        model,
        tokenizer,
        name,
        checkpoint.kind,
        checkpoint.mask_token_id(tokenizer),
        checkpoint.logits_shifted,
    )


def with_adapter(row: KnownModel, adapter: Path, dtype: torch.dtype) -> LanguageModel:
    """Return the embedded base with an adapter of a row's kind merged into it, its parameters in `dtype`."""
    causal = row.kind == "autoregressive"
    model, tokenizer = from_folder(embedded.base_folder(), torch.bfloat16, causal=causal)  # as it is stored
    model = embedded.merge_adapter(model, adapter, dtype)
    return LanguageModel(
        set_direction(model, causal=causal),
        tokenizer,
        row.id,
        row.kind,
        row.mask_token_id,
        row.logits_shifted,
    )


def load(
    name: str | os.PathLike,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    device_map: DeviceMap | None = None,
) -> LanguageModel:
    """Load a model by its name in the table (`"smol-dlm"`, a hub id, a hub id with `@revision`) or from a folder.

    A folder is in the public format of a family, in transformers' own, or written by `LanguageModel.save`. `dtype`:
    float32, bfloat16, float16, or `auto`, what the device is best at. `device_map` spreads it over several devices
    instead of one (`auto`, or part -> device, see `placement.place`); every weight is read straight to its place.

    Raises ValueError for an unknown name or dtype and for weights that do not fit, RuntimeError for a machine without the
    memory or disk it takes (before any download), and `embedded.FetchError` when files cannot be fetched.
    """
    if device_map is not None and torch.cuda.is_available():
        device = "cuda"  # what `auto` is about
    dtype = choose_dtype(dtype, device)
    row, _ = parse(name)
    if row is None or row.id not in EMBEDDED:
        lacking = [
            lack
            for lack in requirements(name, dtype, device).missing
            if device_map is None or "of disk" in lack
        ]
        if lacking:
            raise RuntimeError(f"{os.fspath(name)} cannot be loaded here; missing: {'; '.join(lacking)}")
    release_freed_memory()  # what earlier work freed in pieces too small for a model
    places = None
    if row is not None and row.id in embedded.ADAPTERS:
        lm = with_adapter(row, embedded.ADAPTERS[row.id], dtype)
        if device_map is not None:
            places = place(lm.model, lm.blocks_name, device_map, dtype)
    else:
        checkpoint = open_checkpoint(name)
        lm = language_model(
            checkpoint, checkpoint.skeleton()
        )  # every error that needs no weights comes before them
        if device_map is not None:
            places = place(lm.model, lm.blocks_name, device_map, dtype)
        checkpoint.fill(
            lm.model,
            dtype=dtype,
            device=device if places is None else lambda part: device_of(part, places),
            progress=checkpoint.bytes > LARGE,
        )
    lm.model.requires_grad_(False)
    if places is None:
        lm.model.to(device)
    else:
        dispatch(lm.model, places)
    release_freed_memory()  # what conversion and merging needed
    return lm
