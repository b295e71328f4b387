"""The table of models: its rows are whole, and count what was published."""

import pytest
import transformers

from sinkprune_core.models.catalog import (
    EMBEDDED,
    MODELS,
    REFUSED,
)
from sinkprune_core.models.formats import FORMATS
from sinkprune_core.models.language_model import KINDS
from sinkprune_core.models.loading import load


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


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_covered_says_why(name):
    for spelled in (name, f"{name}@main"):
        with pytest.raises(ValueError, match=f"{name} is not covered: it") as caught:
            load(spelled)
        assert REFUSED[name] in str(caught.value)
