"""One reader of weights, whole or block by block: a folder of safetensors under native parameter names.

Nothing is read before it is asked for, and nothing stays: files are memory-mapped, and renaming happens on
the way.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    GenerationConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sinkprune.models.card import CARD, Card
from sinkprune.models.catalog import KnownModel
from sinkprune.models.configurations import check_fields
from sinkprune.models.devices import move
from sinkprune.models.formats import detect, stored_names
from sinkprune.models.gpt2 import GPT2LMHeadModel, is_transposed, turned
from sinkprune.models.tokenizer_files import TOKENIZER, agreed_mask_token, check_size, read_tokenizer
from sinkprune.models.weight_files import (
    FormatError,
    WeightFiles,
    check_digest,
    check_files,
    hub_digests,
    read_checked,
    read_json,
    refused,
)
from sinkprune_core.language_model import Kind, set_direction

GENERATION = "generation_config.json"  # what transformers' `generate` reads beside a model
LARGE = 1 << 30  # bytes from which reading shows a bar
MAPPED = 1 << 26  # bytes that are read before a file's pages are let go
LISTED = 4  # names of parameters that an error lists


class Checkpoint:
    """A folder of weights in any public format, served under the names of its native transformers class.

    `causal`: the direction, where the folder's own is not wanted. `row`: what the table of models says.
    `name`: what the model is called, where its card does not say. Raises FormatError (a ValueError) for a
    folder that no native class can hold, saying why, and for one of another family than its row says.
    """

    def __init__(
        self,
        folder: Path | str,
        causal: bool | None = None,
        row: KnownModel | None = None,
        name: str | None = None,
    ):
        self.folder = Path(folder)
        self.row = row
        self._name = name or (row.id if row else self.folder.resolve().name)
        check_files(self.folder)
        self.card = read_checked(Card, self.folder / CARD)
        expected = hub_digests(self.folder) | self.card.sha256
        self.files = WeightFiles(self.folder, expected=expected)
        self._config_file = self.folder / "config.json"
        self.raw = read_json(self._config_file)
        self._causal = causal
        check_fields(self.raw, self._config_file, self.files.shapes)

        self.format = detect(self.raw, self.files.shapes)
        if row is not None and row.family != self.format.name:
            raise FormatError(
                f"{self.folder} was expected to be of the family {row.family!r} and looks like "
                f"{self.format.name!r}"
            )

    # what it is

    @property
    def exact_dtype(self) -> torch.dtype:
        """The smallest dtype that holds all weights as they are stored; float32 for what is stored in two."""
        kinds = set(self.files.dtypes.values())
        is_narrow = kinds in ({torch.bfloat16}, {torch.float16})
        return kinds.pop() if is_narrow else torch.float32

    @property
    def name(self) -> str:
        """Name of the model: that of its card, else what it was called, its row's, or its folder's."""
        return self.card.name or self._name

    @property
    def kind(self) -> Kind:
        """`diffusion` or `autoregressive`: what was asked for, else what card, format or config say."""
        if self._causal is not None:
            return "autoregressive" if self._causal else "diffusion"

        stated = self.card.kind or self.format.kind
        if stated:
            return stated
        looks_both_ways = self.raw.get("is_causal") is False or is_encoder(self.raw.get("architectures"))
        return "diffusion" if looks_both_ways else "autoregressive"

    @property
    def logits_shifted(self) -> bool:
        """Whether the output at position i-1 predicts the token at i.

        Raises FormatError where nothing says so.
        """
        if self.card.logits_shifted is not None:
            return self.card.logits_shifted
        if self.row is not None:
            return self.row.logits_shifted
        if self.kind == "autoregressive":
            return True
        stated = self.raw.get("logits_shifted")  # as a model of ours says that something else has saved since
        if isinstance(stated, bool):
            return stated
        if is_encoder(self.raw.get("architectures")):
            return False
        if self.format.logits_shifted is None:
            raise FormatError(
                f"{self.folder} holds a bidirectional model and no {CARD}, "
                "which says whether its logits are shifted: "
                f"add logits_shifted to {self._config_file}, true as in Dream or false as in LLaDA"
            )

        return self.format.logits_shifted

    @cached_property
    def config(self) -> PretrainedConfig:
        """The native configuration, with the direction and the tying of embeddings that the weights have."""
        with refused(f"{self._config_file} makes no configuration", "take the published file"):
            config = self.format.config(self.raw, self.files.shapes)

        if native_class(config) is None:
            raise FormatError(
                f"transformers has no causal language model for {type(config).__name__}, and its "
                "architectures name no ...ForMaskedLM"
            )
        if config.tie_word_embeddings and self._has_head_of_its_own(config):
            config.tie_word_embeddings = False  # A2D models say they are tied and are not

        config.is_causal = self.kind == "autoregressive"
        config.use_cache = config.is_causal
        config.architectures = [native_class(config).__name__]
        config._attn_implementation = "sdpa" if native_class(config)._supports_sdpa else "eager"

        return config

    def _has_head_of_its_own(self, config: PretrainedConfig) -> bool:
        """Whether an output head is stored that differs from the input embedding."""
        known = stored_names(self.format, self.files.shapes)
        for head_name, embedding_name in _tied(config).items():
            head = known.get(head_name)
            embedding = known.get(embedding_name)
            if head is None or embedding is None:
                continue
            if not torch.equal(self.files.tensor(head), self.files.tensor(embedding)):
                return True

        return False

    # tokens

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer from its own files; no remote code, whatever they ask for.

        Raises FormatError if there is none, if its special tokens do not get the ids that its files state,
        and if it has tokens that the model has no embedding for.
        """
        written = self.card.sha256.get(TOKENIZER)
        if written is not None:
            check_digest(self.folder / TOKENIZER, written)

        tokenizer = read_tokenizer(self.folder, self.format.name)
        check_size(tokenizer, self.config.vocab_size, self.folder)
        return tokenizer

    def mask_token_id(self, tokenizer) -> int | None:
        """Return the mask token of a diffusion model, None for another.

        Every source that names one must agree: else FormatError.
        """
        if self.kind == "autoregressive":
            return None
        if self.card.mask_token_id is not None:
            return self.card.mask_token_id

        vocabulary = tokenizer.get_vocab()
        spelling = self._mask_spelling(vocabulary)
        token_by_source = {
            "the table of models": None if self.row is None else self.row.mask_token_id,
            "config.json": self.raw.get("mask_token_id"),
            "the tokenizer": tokenizer.mask_token_id,
            f"the entry {spelling} of the vocabulary": vocabulary.get(spelling),
        }

        return agreed_mask_token(token_by_source, self.folder)

    def _mask_spelling(self, vocabulary: dict[str, int]) -> str | None:
        """Return the first of the mask's possible spellings that the vocabulary has."""
        spellings = list(self.format.mask_tokens)
        if self.row is not None and self.row.mask_token:
            spellings.insert(0, self.row.mask_token)
        return next((spelling for spelling in spellings if spelling in vocabulary), None)

    # parameters under their native names

    @cached_property
    def _stored(self) -> dict[str, str]:
        """What every parameter is called in the files; a tied head is left out for its embedding."""
        known = stored_names(self.format, self.files.shapes)
        for head_name, embedding_name in self._tied_heads().items():
            head = known.pop(head_name, None)
            if head is not None and embedding_name not in known:
                known[embedding_name] = head

        return known

    def _tied_heads(self) -> dict[str, str]:
        return _tied(self.config) if self.config.tie_word_embeddings else {}

    def names(self) -> list[str]:
        """Return the native names of all stored parameters; a tied output head is no parameter of its own."""
        return list(self._stored)

    def _stored_name(self, name: str) -> str:
        return self._stored[self._tied_heads().get(name, name)]

    def __contains__(self, name: str) -> bool:
        return self._tied_heads().get(name, name) in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the native shape of a parameter, from the headers alone."""
        stored = self.files.shapes[self._stored_name(name)]
        return stored[::-1] if is_transposed(self.config, name) else stored

    def tensor(self, name: str) -> torch.Tensor:
        """Read one parameter by its native name, in the dtype in which it is stored.

        A tied head reads the embedding. The tensor may share memory with the mapped file: not to be written
        to (`fill` copies).
        """
        return turned(self.config, name, self.files.tensor(self._stored_name(name)))

    @property
    def bytes(self) -> int:
        """Size of all stored tensors."""
        return self.files.bytes

    @property
    def parameters(self) -> int:
        """How many parameters the native model has, tied ones once."""
        return sum(torch.Size(self.shape(name)).numel() for name in self._stored)

    # models

    def skeleton(self) -> PreTrainedModel:
        """Return the native model in evaluation mode, direction set, without its weights.

        What the folder says of `generate` is kept for whoever saves the model.

        Parameters are on the meta device. Buffers (rotary frequencies) are real, float32, and stay so:
        casting a finished model would round them.
        """
        config = deepcopy(self.config)  # each model switches its own
        with refused(f"{self._config_file} makes no model", "take the published file"):
            with init_empty_weights():
                model = native_class(config)(config)
            model.tie_weights()

        stated = self.folder / GENERATION
        if stated.is_file():
            try:
                model.generation_config = GenerationConfig.from_pretrained(self.folder, local_files_only=True)
            except Exception as error:  # any at all: weights do not need it
                warnings.warn(f"{stated} is left out, as it cannot be read: {error}", stacklevel=2)

        return set_direction(model.eval(), causal=self.kind == "autoregressive")

    def fill(
        self,
        module: nn.Module,
        prefix: str = "",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | Callable[[str], torch.device] = "cpu",
        progress: bool = False,
    ) -> nn.Module:
        """Read the parameters of `module`, which the native model calls `prefix` (e.g. `model.layers.3`).

        `device` is one for all, or a function of a parameter's native name. Strict: one FormatError lists
        every parameter that is missing, not expected, or of another shape, and one says that a file has
        changed meanwhile. Buffers are left alone; give the module back with `module.to("meta")`.
        """
        self.check_fits(module, prefix)
        label = f"load {prefix or self.folder.name}"
        parameters = list(module.named_parameters())

        unreleased = 0  # bytes whose pages of the file are still in memory
        for name, parameter in tqdm(parameters, desc=label, unit="tensor", disable=not progress, leave=False):
            native = _join(prefix, name)
            place = device(native) if callable(device) else device
            value = self.tensor(native).to(
                device=place, dtype=dtype, copy=True, memory_format=torch.contiguous_format
            )  # never the file's own pages
            parent, _, leaf = name.rpartition(".")
            filled = nn.Parameter(value, requires_grad=parameter.requires_grad)
            setattr(module.get_submodule(parent), leaf, filled)
            unreleased += value.nbytes
            if unreleased > MAPPED:
                self.files.close()
                unreleased = 0

        self.files.check_unchanged()
        if isinstance(module, PreTrainedModel):
            module.tie_weights()
            module.config.dtype = dtype

        return module

    def check_fits(self, module: nn.Module, prefix: str = "") -> None:
        """Raise FormatError where the files do not hold exactly the parameters of a module.

        `prefix` is what the native model calls it. Without one the whole folder is compared with a whole
        model; nothing but headers is read.
        """
        expected = {
            _join(prefix, name): tuple(parameter.shape) for name, parameter in module.named_parameters()
        }
        stored = [name for name in self._stored if not prefix or name.startswith(f"{prefix}.")]
        wrong = {
            "missing_keys": [name for name in expected if name not in self],
            "unexpected_keys": [name for name in stored if name not in expected],
            "mismatched_keys": [
                f"{name}: {self.shape(name)} instead of {shape}"
                for name, shape in expected.items()
                if name in self and self.shape(name) != shape
            ],
        }

        listed = {}
        for problem, names in wrong.items():
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                listed[problem] = ", ".join(sorted(names)[:LISTED]) + more

        if listed:
            raise FormatError(f"the weights in {self.folder} do not fit {type(module).__name__}: {listed}")

    def load(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> PreTrainedModel:
        """Return the whole model, read parameter by parameter."""
        model = self.skeleton()
        self.fill(model, "", dtype, device, progress=self.bytes > LARGE)
        move(model, device)  # buffers; parameters are there
        return model


def is_encoder(architectures: object) -> bool:
    """Return whether a configuration's architectures name a model that fills masks, of both directions."""
    names = architectures if isinstance(architectures, list) else []
    return any(str(name).endswith("ForMaskedLM") for name in names)


def native_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return transformers' class for a configuration: of an encoder its masked language model, of all others
    the causal one; see `gpt2` for GPT-2's.
    """
    if isinstance(config, GPT2Config):
        return GPT2LMHeadModel
    classes = MODEL_FOR_MASKED_LM_MAPPING if is_encoder(config.architectures) else MODEL_FOR_CAUSAL_LM_MAPPING
    return cast(type[PreTrainedModel], classes.get(type(config), None))


def _tied(config: PretrainedConfig) -> dict[str, str]:
    """Return output head -> input embedding, as the native class names them."""
    return dict(native_class(config)._tied_weights_keys or {})


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
