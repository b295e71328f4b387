"""One reader of weights, whole or block by block: a folder of safetensors under native parameter names.

Nothing is read before it is asked for, and nothing stays: files are memory-mapped, and renaming, un-fusing and padding
happen on the way.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoTokenizer,
    GPT2Tokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from sinkprune_core.models.catalog import KnownModel
from sinkprune_core.models.formats import FormatError, Source, detect, sources

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CARD = "sinkprune.json"  # written beside a saved model: what transformers' own config cannot say
LARGE = 1 << 30  # bytes from which reading shows a bar
MAPPED = 1 << 26  # bytes that are read before a file's pages are let go


def read_json(file: Path) -> dict:
    """Return the content of a JSON file, {} if there is none; raise FormatError for one that is broken."""
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{file} is not JSON ({error}): fetch it again") from None


def part_name(model: PreTrainedModel, part: nn.Module) -> str:
    """Return what a part is called in its model, e.g. `model.layers.3`: the prefix that `Checkpoint.fill` takes."""
    return next(name for name, module in model.named_modules() if module is part)


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


class Files:
    """The safetensors of a folder: one file, or shards with an index. Shapes and dtypes come from the headers alone."""

    def __init__(self, folder: Path, only: str | None = None):
        index = None if only else read_json(folder / "model.safetensors.index.json").get("weight_map")
        names = (
            [only]
            if only
            else sorted(set(index.values()))
            if index
            else sorted(file.name for file in folder.glob("*.safetensors"))
        )
        if not names:
            pickled = ", ".join(sorted(file.name for file in folder.glob("*.bin")))
            raise FormatError(
                f"no safetensors in {folder}"
                + (
                    f", only {pickled}: pickled weights are not loaded, convert them to safetensors"
                    if pickled
                    else ""
                )
            )
        if len(names) > 1 and not index:
            raise FormatError(
                f"{folder} holds {len(names)} safetensors files and no model.safetensors.index.json: which belong together? Keep one model per folder"
            )
        self.folder, self.handles, self.where, self.shapes, self.dtypes = folder, {}, {}, {}, {}
        for name in names:
            for key in self.handle(name):
                part = self.handle(name).get_slice(key)
                if part.get_dtype() not in STORED_DTYPES:
                    raise FormatError(
                        f"{key} in {folder / name} is stored as {part.get_dtype()}: quantised weights are not covered, take the {', '.join(DTYPES)} files"
                    )
                self.where[key], self.shapes[key], self.dtypes[key] = (
                    name,
                    tuple(part.get_shape()),
                    STORED_DTYPES[part.get_dtype()],
                )
        if index and (lost := sorted(set(index) - set(self.where))):
            raise FormatError(
                f"the index of {folder} names tensors that no file holds: {', '.join(lost[:5])}; fetch the folder again"
            )

    @property
    def bytes(self) -> int:
        return sum(
            torch.Size(shape).numel() * self.dtypes[name].itemsize for name, shape in self.shapes.items()
        )

    def handle(self, name: str):
        """Return an open file of the folder, opening it where it is not."""
        if name not in self.handles:
            try:
                self.handles[name] = safe_open(self.folder / name, framework="pt")
            except (OSError, SafetensorError) as error:
                raise FormatError(
                    f"{self.folder / name} cannot be read ({error}): the download is incomplete or broken, fetch it again"
                ) from None
        return self.handles[name]

    def close(self) -> None:
        """Close all files, so that pages read from them stop counting as this process's memory; they reopen when needed."""
        self.handles.clear()

    def tensor(self, stored: str) -> torch.Tensor:
        """Return a stored tensor, which shares its memory with the mapped file: not to be written to."""
        return self.handle(self.where[stored]).get_tensor(stored)


class Checkpoint:
    """A folder of weights in any public format of `families`, served under the names of its native transformers class.

    `family`: name in `FAMILIES` where it is known already, else detected. `file`: the one weight file to take from a
    folder of many. `causal`: the direction, where the folder's own is not wanted. `row`: what the table of models says.
    `tokenizer`: the tokenizer's folder, where it is another one. Raises FormatError (a ValueError) for a folder that no
    native class can hold, saying why.
    """

    def __init__(
        self,
        folder: Path | str,
        family: str | None = None,
        file: str | None = None,
        causal: bool | None = None,
        row: KnownModel | None = None,
        tokenizer: Path | None = None,
    ):
        self.folder, self.row, self.tokenizer_folder = Path(folder), row, tokenizer or Path(folder)
        self.files = Files(self.folder, file)
        self.raw = read_json(self.folder / "config.json") or read_json(self.folder / "lit_config.json")
        self.card = read_json(self.folder / CARD)
        self._family = detect(self.raw, self.files.shapes, family)
        if family not in (None, self.family):
            raise FormatError(
                f"{self.folder} was expected to be of the family {family!r} and looks like {self.family!r}"
            )
        self._causal = causal

    @property
    def family(self) -> str:
        return self._family.name

    @property
    def kind(self) -> str:
        """`diffusion` or `autoregressive`: what was asked for, else what the card, the format or the configuration says."""
        if self._causal is not None:
            return "autoregressive" if self._causal else "diffusion"
        return (
            self.card.get("kind")
            or self._family.kind
            or ("diffusion" if self.raw.get("is_causal") is False else "autoregressive")
        )

    @cached_property
    def config(self) -> PretrainedConfig:
        """The native configuration, with the direction and the tying of embeddings that the weights have."""
        config = self._family.config(self.raw, self.files.shapes)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise FormatError(f"transformers has no causal language model for {type(config).__name__}")
        if config.tie_word_embeddings and self._both_ends_differ(config):
            config.tie_word_embeddings = False  # A2D models say they are tied and are not
        config.is_causal, config.use_cache = self.kind == "autoregressive", self.kind == "autoregressive"
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
        config._attn_implementation = "sdpa"
        return config

    def _both_ends_differ(self, config: PretrainedConfig) -> bool:
        known = sources(self._family, self.files.shapes, config)
        ends = [(known.get(head), known.get(table)) for head, table in _tied(config).items()]
        return any(
            head
            and table
            and not torch.equal(self.files.tensor(head.stored), self.files.tensor(table.stored))
            for head, table in ends
        )

    @cached_property
    def _sources(self) -> dict[str, Source]:
        known = sources(self._family, self.files.shapes, self.config)
        if self.config.tie_word_embeddings:
            for head, table in _tied(self.config).items():
                known[table] = known.get(table) or known.get(head)
                known.pop(head, None)
            known = {name: source for name, source in known.items() if source is not None}
        return known

    def _source(self, name: str) -> Source | None:
        tied = _tied(self.config) if self.config.tie_word_embeddings else {}
        return self._sources.get(tied.get(name, name))

    def names(self) -> list[str]:
        """Return the native names of all stored parameters; a tied output head is no parameter of its own."""
        return list(self._sources)

    def __contains__(self, name: str) -> bool:
        return self._source(name) is not None

    def _known(self, name: str) -> Source:
        source = self._source(name)
        if source is None:
            raise KeyError(f"{name} is not in {self.folder}")
        return source

    def shape(self, name: str) -> tuple[int, ...]:
        source = self._known(name)
        return source.shape(self.files.shapes[source.stored])

    def dtype(self, name: str) -> torch.dtype:
        return self.files.dtypes[self._known(name).stored]

    def tensor(self, name: str) -> torch.Tensor:
        """Read one parameter by its native name, in the dtype in which it is stored. A tied head reads the embedding.

        It may share memory with the mapped file: not to be written to (`fill` copies).
        """
        source = self._known(name)
        return source.read(self.files.tensor(source.stored))

    @property
    def bytes(self) -> int:
        """Size of all stored tensors."""
        return self.files.bytes

    @property
    def parameters(self) -> int:
        """How many parameters the native model has, tied ones once."""
        return sum(torch.Size(self.shape(name)).numel() for name in self._sources)

    @property
    def logits_shifted(self) -> bool:
        """Whether the output at position i-1 predicts the token at i. Raises FormatError where nothing says so."""
        if "logits_shifted" in self.card:
            return self.card["logits_shifted"]
        if self.row is not None:
            return self.row.logits_shifted
        if self.kind == "autoregressive":
            return True
        if self._family.logits_shifted is None:
            raise FormatError(
                f"{self.folder} holds a bidirectional model and no {CARD}, which says whether its logits are shifted: write it with LanguageModel.save"
            )
        return self._family.logits_shifted

    def tokenizer(self) -> object:
        """Load the tokenizer from its own files; no remote code, whatever they ask for.

        Raises FormatError if there is none, or if its special tokens do not get the ids that its files state.
        """
        folder = self.tokenizer_folder
        said = read_json(folder / "tokenizer_config.json")
        if (
            folder / "tokenizer.json"
        ).is_file():  # read as it is: a class chosen by the model's type would build its own rules around the vocabulary
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        elif self.family == "native" or folder != self.folder:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        elif (folder / "vocab.json").is_file() and (
            folder / "merges.txt"
        ).is_file():  # Dream's own class is Qwen2's
            tokenizer = (GPT2Tokenizer if self.family == "diffugpt" else Qwen2Tokenizer).from_pretrained(
                folder
            )
        else:
            raise FormatError(
                f"no tokenizer in {folder}: put the published tokenizer.json, or vocab.json and merges.txt, beside the weights"
            )
        stated = {
            token["content"]: int(index) for index, token in said.get("added_tokens_decoder", {}).items()
        }
        vocabulary = tokenizer.get_vocab()
        if moved := [
            f"{token} is {vocabulary.get(token)} instead of {index}"
            for token, index in stated.items()
            if vocabulary.get(token) != index
        ]:
            raise FormatError(
                f"the tokenizer in {folder} gives other ids than its files state: {', '.join(moved[:5])}"
            )
        tokenizer.init_kwargs.pop(
            "auto_map", None
        )  # or a saved folder would ask for the code that was not needed
        return tokenizer

    def mask_token_id(self, tokenizer) -> int | None:
        """Return the mask token of a diffusion model, None for another; every source that names one must agree."""
        if self.kind == "autoregressive":
            return None
        if self.card.get("mask_token_id") is not None:
            return self.card["mask_token_id"]
        vocabulary = tokenizer.get_vocab()
        string = next(
            (
                string
                for string in (self.row and self.row.mask_token, *self._family.mask_tokens)
                if string in vocabulary
            ),
            None,
        )
        said = {
            "the table of models": self.row and self.row.mask_token_id,
            "config.json": self.raw.get("mask_token_id"),
            "the tokenizer": tokenizer.mask_token_id,
            f"the entry {string} of the vocabulary": vocabulary.get(string),
            "the embedding without an output": self.config.vocab_size - 1 if self.family == "smdm" else None,
        }
        said = {who: token for who, token in said.items() if token is not None}
        if not said:
            raise FormatError(
                f"nothing in {self.folder} says which token is the mask: add mask_token_id to its config.json"
            )
        if len(set(said.values())) > 1:
            raise FormatError(
                f"the mask token of {self.folder} is not clear: {', '.join(f'{token} says {who}' for who, token in said.items())}"
            )
        return next(iter(said.values()))

    def skeleton(self) -> PreTrainedModel:
        """Return the native model in evaluation mode, direction set, its parameters on the meta device and its buffers real.

        Buffers (rotary frequencies) are float32 and stay so: casting a finished model would round them.
        """
        with init_empty_weights():
            model = MODEL_FOR_CAUSAL_LM_MAPPING[type(self.config)](
                deepcopy(self.config)
            )  # each model switches its own
        model.tie_weights()
        return set_direction(model.eval(), causal=self.kind == "autoregressive")

    def fill(
        self,
        module: nn.Module,
        prefix: str = "",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | Callable[[str], torch.device] = "cpu",
        progress: bool = False,
    ) -> nn.Module:
        """Materialise the parameters of `module`, which is called `prefix` in the native model (e.g. `model.layers.3`).

        `device` is one for all, or a function of a parameter's native name.

        Strict: one FormatError lists every parameter that is missing, not expected, or of another shape. Buffers are
        left alone; give the module back with `module.to("meta")`.
        """
        self._compare(module, prefix)
        parameters, read = list(module.named_parameters()), 0
        for name, parameter in tqdm(
            parameters,
            desc=f"load {prefix or self.folder.name}",
            unit="tensor",
            disable=not progress,
            leave=False,
        ):
            *path, leaf = name.split(".")
            native = _join(prefix, name)
            value = self.tensor(native).to(
                device=device(native) if callable(device) else device, dtype=dtype, copy=True
            )  # never the file's own pages
            setattr(
                module.get_submodule(".".join(path)),
                leaf,
                nn.Parameter(value, requires_grad=parameter.requires_grad),
            )
            if (read := read + value.nbytes) > MAPPED:
                self.files.close()
                read = 0
        if isinstance(module, PreTrainedModel):
            module.tie_weights()
            module.config.dtype = dtype
        return module

    def _compare(self, module: nn.Module, prefix: str) -> None:
        expected = {
            _join(prefix, name): tuple(parameter.shape) for name, parameter in module.named_parameters()
        }
        stored = [name for name in self._sources if not prefix or name.startswith(f"{prefix}.")]
        wrong = {
            "missing_keys": [name for name in expected if name not in self],
            "unexpected_keys": [name for name in stored if name not in expected],
            "mismatched_keys": [
                f"{name}: {self.shape(name)} instead of {shape}"
                for name, shape in expected.items()
                if name in self and self.shape(name) != shape
            ],
        }
        if any(wrong.values()):
            listed = {
                key: f"{', '.join(sorted(names)[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
                for key, names in wrong.items()
                if names
            }
            raise FormatError(f"the weights in {self.folder} do not fit {type(module).__name__}: {listed}")

    def load(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> PreTrainedModel:
        """Return the whole model, read parameter by parameter."""
        model = self.fill(self.skeleton(), "", dtype, device, progress=self.bytes > LARGE)
        return model.to(device)  # buffers; parameters are there


def _tied(config: PretrainedConfig) -> dict[str, str]:
    """Return output head -> input embedding, as the native class names them."""
    return dict(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._tied_weights_keys or {})


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
