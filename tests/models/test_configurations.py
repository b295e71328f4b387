"""What no native class can express is refused; the table of models counts what was published."""

import pytest
from families import edit

from sinkprune.models.catalog import MODELS, REFUSED
from sinkprune.models.loading import load
from sinkprune.models.weight_files import FormatError


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("llada", {"alibi": True}, "alibi=True: transformers' Llama cannot express that"),
        ("llada", {"block_type": "sequential"}, "block_type='sequential'"),
        ("dream", {"use_sliding_window": True}, "use_sliding_window=True: transformers' Qwen2 cannot"),
        ("dream", {"block_size": 32}, "block_size=32: it attends block by block"),
        ("llada", {"model_type": "llada2_moe"}, "'llada2_moe' is not covered: it is a mixture of experts"),
        ("llada", {"num_experts": 64}, "with experts is not covered"),
        ("qwen3", {"model_type": "sdar"}, "model_type='sdar' is not covered: it attends block by block"),
        ("llama", {"model_type": "mystery"}, "model_type='mystery' is not covered; covered are llada, mmada"),
    ],
)
def test_what_no_native_class_can_express_is_refused_by_name_and_value(fresh, name, values, said):
    folder = fresh(name)
    edit(folder, **values)
    with pytest.raises(FormatError, match=said):
        load(folder)


# the table of models


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
