"""The table of models: its rows are whole, and what is wrong in it is one error that says what."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
import transformers
import yaml
from pydantic import ValidationError

from sinkprune_core.models.catalog import (
    BYTES,
    EMBEDDED,
    MODELS,
    REFUSED,
    TABLE,
    KnownModel,
    ModelShape,
    read_catalog,
)
from sinkprune_core.models.embedded import ADAPTERS
from sinkprune_core.models.formats import FORMATS
from sinkprune_core.models.language_model import KINDS
from sinkprune_core.models.loading import load
from sinkprune_core.models.weight_files import DTYPES


@pytest.mark.parametrize("name", MODELS)
def test_the_table_counts_parameters_as_the_published_shapes_do(name):
    shape = MODELS[name].shape
    V, D, F, layers = shape.vocabulary, shape.width, shape.mlp, shape.layers
    H, G, E = shape.heads, shape.groups, shape.head_width
    if MODELS[name].native == "GPT2LMHeadModel":
        count = V * D + 1024 * D + layers * (4 * D * D + 2 * D * F + 9 * D + F) + 2 * D
    else:
        block = 2 * H * E * D + 2 * G * E * D + 3 * D * F + 2 * D
        if MODELS[name].native == "Qwen2ForCausalLM":
            block += (H + 2 * G) * E
        if MODELS[name].native == "Qwen3ForCausalLM":
            block += 2 * E
        count = V * D * (1 if shape.tied else 2) + layers * block + D
    assert MODELS[name].parameters == count
    assert MODELS[name].bytes == count * {"float32": 4, "bfloat16": 2, "float16": 2}[MODELS[name].stored]


@pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)
def test_a_row_of_the_table_is_whole(row):
    published = FORMATS[row.family]
    assert published.kind in (row.kind, None)
    assert published.logits_shifted in (row.logits_shifted, None)
    assert row.kind in KINDS and row.licence and row.id not in REFUSED
    assert hasattr(transformers, row.native)
    assert row.repository.count("/") == (0 if row.id in EMBEDDED else 1)
    assert (row.native == "GPT2LMHeadModel") == (row.shape.learned_positions > 0)
    if row.kind == "autoregressive":
        assert row.logits_shifted and row.twin is None and row.relation == ""
        assert row.mask_token_id is None and row.mask_token is None
    else:
        assert MODELS[row.twin].kind == "autoregressive" and row.relation
        assert row.mask_token_id is not None or row.mask_token
        assert (row.mask_token_id or 0) < row.shape.vocabulary


def test_what_a_row_may_state_is_what_the_readers_know():
    allowed = {key: set(get_args(hint)) for key, hint in get_type_hints(KnownModel).items()}
    assert allowed["family"] == set(FORMATS)
    assert allowed["kind"] == set(KINDS)
    assert allowed["stored"] == set(DTYPES) == set(BYTES)
    assert set(EMBEDDED) == {"smol-ar", *ADAPTERS} and set(EMBEDDED) <= set(MODELS)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_covered_says_why(name):
    for spelled in (name, f"{name}@main"):
        with pytest.raises(ValueError, match=f"{name} is not covered: it") as caught:
            load(spelled)
        assert REFUSED[name] in str(caught.value)


# a table of one's own

TINY = {
    "id": "someone/tiny-dlm",
    "family": "a2d",
    "native": "Qwen3ForCausalLM",
    "kind": "diffusion",
    "parameters": 751_632_384,
    "shape": {
        "vocabulary": 151936,
        "width": 1024,
        "mlp": 3072,
        "layers": 28,
        "heads": 16,
        "groups": 8,
        "head_width": 128,
    },
    "stored": "bfloat16",
    "context": 32768,
    "licence": "Apache-2.0",
    "certainty": "hub card",
    "mask_token_id": 151669,
    "logits_shifted": False,
    "twin": "Qwen/Qwen3-0.6B",
    "relation": "its weights are where training began",
}


@pytest.fixture
def table(tmp_path):
    """A function that writes the table with one more row, or other changes, and reads it."""

    def read(row: object = TINY, **sections):
        content = yaml.safe_load(TABLE.read_text(encoding="utf-8")) | sections
        content["models"] = [*content["models"], row]
        (tmp_path / "models.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return read_catalog(tmp_path / "models.yml")

    return read


def test_a_new_row_is_one_entry(table):
    catalog = table()
    row = catalog.models[-1]
    assert row.shape == ModelShape(**TINY["shape"]) and row.bytes == 2 * 751_632_384 and row.note == ""
    assert row.id == "someone/tiny-dlm" and catalog.models[:-1] == list(MODELS.values())


def test_a_row_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MODELS["smol-ar"].kind = "diffusion"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "diffused"},
        {"family": "lada"},
        {"native": "GemmaForCausalLM"},
        {"context": "32768"},
        {"mask_token_id": True},
        {"logits_shifted": 0},
        {"licence": None},
        {"mask": 7},
        {"shape": 7},
        {"shape": TINY["shape"] | {"layers": 0}},
        {"shape": TINY["shape"] | {"layer": 28}},
    ],
)
def test_what_is_wrong_in_a_row_is_refused_by_the_name_of_its_key(table, changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        table(TINY | changes)


def test_sections_of_the_table_are_checked(table):
    with pytest.raises(ValidationError, match=r"refused\.too_new\.models"):
        table(refused={"too_new": {"because": "it is new", "model_types": []}})
    with pytest.raises(ValidationError, match="modles"):
        table(modles=[])
    assert len(MODELS) == len(table().models) - 1, "no id is there twice"
