"""The table of models: what is known of each before a byte is fetched, and how surely.

The rows are data, in `data/models.yml`, read and checked once when this module is first imported; a new
model is one entry there. Every row is a claim that loading checks against the files: a family, shape or mask
token that disagrees is an error.
"""

import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass

from sinkprune.files import DATA

TABLE = DATA / "models.yml"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # per parameter, by the name of a dtype
STRICT = ConfigDict(strict=True, extra="forbid")  # "8" is no number, and an unknown key is an error


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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KnownModel:
    """One row of the table."""

    id: str  # the name that `load` takes
    family: Literal[
        "llada", "mmada", "dream", "a2d", "diffugpt", "native"
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
    note: str = ""

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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Catalog:
    """The content of the table."""

    embedded: list[str]  # ids of the models that are built from what ships with the project
    shared: dict[str, dict]  # facts that several rows take over
    models: list[KnownModel]
    refused: dict[str, Refusal]  # by a short name of the reason


def read_catalog(file: Path) -> Catalog:
    """Read and check a table of models. Raises a ValidationError for anything that is wrong."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(Catalog).validate_json(json.dumps(content))


_CATALOG = read_catalog(TABLE)
MODELS: dict[str, KnownModel] = {row.id: row for row in _CATALOG.models}
REFUSALS: dict[str, Refusal] = _CATALOG.refused
REFUSED: dict[str, str] = {
    name: refusal.because for refusal in REFUSALS.values() for name in refusal.models
}  # why, by hub id
EMBEDDED: tuple[str, ...] = tuple(_CATALOG.embedded)
