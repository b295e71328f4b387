"""The table of models: its rows are whole, and count what was published."""

import pytest

from sinkprune_core.models.catalog import MODELS, REFUSED
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


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_covered_says_why(name):
    for spelled in (name, f"{name}@main"):
        with pytest.raises(ValueError, match=f"{name} is not covered: it") as caught:
            load(spelled)
        assert REFUSED[name] in str(caught.value)
