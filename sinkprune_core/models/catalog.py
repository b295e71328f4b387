"""The table of models: what is known of each before a byte is fetched, and how surely.

The rows are data, in `data/models.yml`, read and checked once when this module is first imported; a new
model is one entry there. Every row is a claim that loading checks against the files: a family, shape or mask
token that disagrees is an error.
"""

from dataclasses import fields
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

from sinkprune_core.files import PACKAGE

TABLE = PACKAGE / "data" / "models.yml"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # per parameter, by the name of a dtype
SECTIONS = {"embedded", "shared", "models", "refused"}  # of the file
STRICT = ConfigDict(strict=True, extra="forbid")  # "8" is no number, and an unknown key is an error


class CatalogError(ValueError):
    """The table of models is wrong; the message names the row, the key, its value and what is allowed."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelShape:
    """The published shape of a model, in numbers of features unless a comment says otherwise."""

    vocabulary: PositiveInt  # tokens, rows of the input embedding
    width: PositiveInt  # of the hidden states
    mlp: PositiveInt  # width inside an MLP
    layers: PositiveInt  # transformer blocks
    heads: PositiveInt  # query heads per block
    groups: PositiveInt  # key-value heads per block
    head_width: PositiveInt
    tied: bool = False  # the output head is the input embedding
    qkv_bias: bool = False  # biases of the query, key and value projections (Qwen2)
    head_norm: bool = False  # a norm of every query and key (Qwen3)
    learned_positions: NonNegativeInt = 0  # rows of the table of position embeddings, which only GPT-2 has

    @property
    def parameters(self) -> int:
        """How many parameters a model of this shape has, embeddings included, tied ones once."""
        if self.learned_positions:
            return self._gpt2_parameters()
        queries = self.heads * self.head_width
        keys = self.groups * self.head_width
        attention = 2 * self.width * queries + 2 * self.width * keys
        if self.qkv_bias:
            attention += queries + 2 * keys
        if self.head_norm:
            attention += 2 * self.head_width
        norms = 2 * self.width
        block = attention + 3 * self.width * self.mlp + norms
        embeddings = self.vocabulary * self.width
        if not self.tied:
            embeddings *= 2
        return embeddings + self.layers * block + self.width

    def _gpt2_parameters(self) -> int:
        attention = 4 * self.width * self.width + 4 * self.width
        mlp = 2 * self.width * self.mlp + self.mlp + self.width
        norms = 4 * self.width
        embeddings = (self.vocabulary + self.learned_positions) * self.width
        return embeddings + self.layers * (attention + mlp + norms) + 2 * self.width


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KnownModel:
    """One row of the table.

    Raises ValueError for values of a wrong type and for facts that contradict each other.
    """

    id: str  # the name that `load` takes: a hub id, then a name where a repository holds many models
    family: Literal[
        "llada", "mmada", "illada", "dream", "a2d", "diffugpt", "diffullama", "smdm", "smdm-ar", "native"
    ]  # the format it is published in, see formats.py; native: that of transformers
    native: Literal[
        "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"
    ]  # the class of transformers that holds it
    kind: Literal["diffusion", "autoregressive"]
    parameters: PositiveInt  # all of them, embeddings included, tied ones once
    shape: ModelShape
    stored: Literal["float32", "bfloat16", "float16"]  # the dtype of the published files
    context: PositiveInt | None  # in tokens; null: not published
    licence: str
    certainty: Literal[
        "hub card", "official repository", "third-party code", "inferred", "measured here"
    ]  # where the facts of this row come from
    mask_token_id: NonNegativeInt | None = None
    mask_token: str | None = None  # its spelling in the vocabulary
    logits_shifted: bool = True  # the output at position i-1 predicts the token at i
    twin: str | None = None  # id of the autoregressive counterpart
    relation: str = ""  # how near the counterpart is
    file: str | None = None  # the one weight file to take from a repository that holds many models
    tokenizer: str | None = None  # repository of the tokenizer, where it is another one
    note: str = ""

    def __post_init__(self):
        contradictions = [*self._contradictions_of_kind(), *self._contradictions_of_shape()]
        if contradictions:
            raise ValueError("; ".join(contradictions))

    def _contradictions_of_kind(self) -> list[str]:
        found = []
        has_mask = self.mask_token_id is not None or self.mask_token is not None
        if self.kind == "diffusion" and not has_mask:
            found.append("kind='diffusion' without mask_token_id or mask_token: state at least one")
        if self.kind == "autoregressive":
            if has_mask:
                found.append("kind='autoregressive' with a mask token: only a diffusion model has one")
            if self.twin is not None:
                found.append(f"twin={self.twin!r} of an autoregressive model: only a diffusion model has one")
            if not self.logits_shifted:
                found.append("logits_shifted=False of an autoregressive model: its logits are always shifted")
        if (self.twin is None) != (self.relation == ""):
            found.append(f"twin={self.twin!r} with relation={self.relation!r}: state both or neither")
        return found

    def _contradictions_of_shape(self) -> list[str]:
        found = []
        if self.mask_token_id is not None and self.mask_token_id >= self.shape.vocabulary:
            found.append(
                f"mask_token_id={self.mask_token_id} is outside the vocabulary of "
                f"{self.shape.vocabulary} tokens"
            )
        if (self.native == "GPT2LMHeadModel") != (self.shape.learned_positions > 0):
            found.append(
                f"native={self.native!r} with learned_positions={self.shape.learned_positions}: "
                "GPT2LMHeadModel has some, the other classes have none"
            )
        if self.parameters != self.shape.parameters:
            found.append(f"parameters={self.parameters}, but its shape has {self.shape.parameters}")
        return found

    @property
    def repository(self) -> str:
        """The repository on the hub."""
        return "/".join(self.id.split("/")[:2])

    @property
    def bytes(self) -> int:
        """Size of the weights as published."""
        return self.parameters * BYTES[self.stored]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Refusal:
    """Why some models are not covered."""

    because: str  # one sentence that goes on after "... is not covered: "
    model_types: list[str]  # `model_type` of their configurations, in lower case
    models: list[str]  # their hub ids


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class Catalog:
    """The content of the table, checked."""

    models: dict[str, KnownModel]  # by id
    refusals: dict[str, Refusal]  # by a short name of the reason
    embedded: list[str]  # ids of the models that are built from what ships with the project


def read_catalog(file: Path) -> Catalog:
    """Read and check a table of models. Raises CatalogError for anything in it that is wrong."""
    content = _read_yaml(file)
    if not isinstance(content, dict) or set(content) != SECTIONS:
        raise CatalogError(f"{file.name} must be a mapping of exactly {', '.join(sorted(SECTIONS))}")
    models: dict[str, KnownModel] = {}
    for entry in content["models"]:
        row = _row(entry, file.name)
        if row.id in models:
            raise CatalogError(f"{file.name}: the row {row.id!r} is there twice")
        models[row.id] = row
    refusals = {
        name: _checked(Refusal, f"{file.name}: refused {name!r}", values)
        for name, values in content["refused"].items()
    }
    sections = {"models": models, "refusals": refusals, "embedded": content["embedded"]}
    catalog = _checked(Catalog, file.name, sections)
    _check_references(catalog, file.name)
    return catalog


def _read_yaml(file: Path) -> object:
    """Return the content of a YAML file.

    Raises CatalogError where a mapping has a key twice, of which YAML would silently take the second.
    """
    loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
    root = loader.get_single_node()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    line = node.start_mark.line + 1
                    raise CatalogError(f"{file.name}: the entry at line {line} has the key {key!r} twice")
            waiting += [value for _, value in node.value]
    return loader.construct_document(root)


def _row(entry: object, file: str) -> KnownModel:
    """Return one entry of `models` as a row."""
    if not isinstance(entry, dict) or "id" not in entry:
        raise CatalogError(f"{file}: an entry of models has no id: {entry!r}")
    where = f"{file}: row {entry['id']!r}"
    if not isinstance(entry.get("shape"), dict):
        raise CatalogError(
            f"{where}: shape={entry.get('shape')!r} must be a mapping of {', '.join(_keys(ModelShape))}"
        )
    shape = _checked(ModelShape, f"{where}, shape", entry["shape"])
    return _checked(KnownModel, where, entry | {"shape": shape})


def _checked(cls: type, where: str, values: object):
    """Make a `cls` from a mapping. Raises CatalogError, which names each wrong key and what it may be."""
    if not isinstance(values, dict):
        raise CatalogError(f"{where} is {values!r} and must be a mapping of {', '.join(_keys(cls))}")
    try:
        return cls(**values)
    except ValidationError as error:
        problems = [_problem(cls, problem) for problem in error.errors()]
    raise CatalogError(f"{where}: {'; '.join(problems)}")


def _problem(cls: type, problem: dict) -> str:
    """Say one problem of a row in words: key, value, and what is allowed."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown key {key}={problem['input']!r}; allowed are {', '.join(_keys(cls))}"
    if problem["type"] == "missing":
        return f"the key {key} is missing"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{key}={problem['input']!r}: {problem['msg']}"


def _keys(cls: type) -> list[str]:
    return [field.name for field in fields(cls)]


def _check_references(catalog: Catalog, file: str) -> None:
    """Raise CatalogError where the table names a row that is not there or is of the wrong kind."""
    for row in catalog.models.values():
        if row.twin is None:
            continue
        twin = catalog.models.get(row.twin)
        if twin is None or twin.kind != "autoregressive":
            raise CatalogError(
                f"{file}: row {row.id!r}: twin={row.twin!r} must be the id of an autoregressive row"
            )
    for name in catalog.embedded:
        if name not in catalog.models:
            raise CatalogError(f"{file}: embedded names {name!r}, which is not the id of a row")
    for reason, refusal in catalog.refusals.items():
        for name in refusal.models:
            if name in catalog.models:
                raise CatalogError(f"{file}: {name!r} is a row and is refused too, as {reason!r}")


_CATALOG = read_catalog(TABLE)
MODELS: dict[str, KnownModel] = _CATALOG.models
REFUSALS: dict[str, Refusal] = _CATALOG.refusals
REFUSED: dict[str, str] = {
    name: refusal.because for refusal in REFUSALS.values() for name in refusal.models
}  # why, by hub id
EMBEDDED: tuple[str, ...] = tuple(_CATALOG.embedded)
