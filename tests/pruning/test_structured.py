"""Structured pruning: units by naive ownership, scores by loops in float64, and smaller native models that stock transformers reads."""

import dataclasses
import json
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sinkprune_core.models.language_model import LanguageModel, load, set_direction, weight_OI
from sinkprune_core.pruning.engine import weights_kept
from sinkprune_core.pruning.structured import (
    UNIT_CRITERIA,
    choose,
    group_counts,
    mask,
    plan,
    removable,
    scores,
    shrink,
)

COMMON = {
    "vocab_size": 72,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.35,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GQA = {"hidden_size": 36, "intermediate_size": 45, "num_attention_heads": 6, "num_key_value_heads": 3}
BUILD = {
    "llama-biased": lambda: LlamaForCausalLM(
        LlamaConfig(**COMMON, **GQA, attention_bias=True, mlp_bias=True)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON, **GQA, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**{**COMMON, **GQA}, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=72,
            n_layer=2,
            n_positions=64,
            n_embd=24,
            n_head=3,
            initializer_range=0.35,
            bos_token_id=0,
            eos_token_id=0,
        )
    ),
}
FAMILIES = ["llama-gqa", "llama-mha", *BUILD]
COMPENSATED = ["llama-gqa", "llama-mha", "llama-biased", "gpt2"]


@pytest.fixture
def build(make_lm):
    """A function that builds a tiny model of a family with random weights, gains and biases."""

    def make(family: str, kind: str = "diffusion") -> LanguageModel:
        if family in ("llama-gqa", "llama-mha"):
            return make_lm(kind, family.removeprefix("llama-"))
        torch.manual_seed(1)
        model = BUILD[family]().eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.copy_(("bias" not in name) + 0.2 * torch.randn(parameter.shape))
        return dataclasses.replace(
            make_lm(kind), model=set_direction(model, causal=kind == "autoregressive"), name=f"tiny-{family}"
        )

    return make


def owned(lm, kind: str, unit: int) -> dict[str, tuple[set[int], set[int]]]:
    """Return the rows and the columns that a unit owns, by linear, head by head as attention pairs them."""
    if kind == "mlp":
        if lm.model.config.model_type == "gpt2":
            return {"mlp.c_fc": ({unit}, set()), "mlp.c_proj": (set(), {unit})}
        return {
            "mlp.gate_proj": ({unit}, set()),
            "mlp.up_proj": ({unit}, set()),
            "mlp.down_proj": (set(), {unit}),
        }
    attention = lm.blocks[0].self_attn
    width, queries = (
        attention.head_dim,
        [
            head
            for head in range(lm.model.config.num_attention_heads)
            if head // attention.num_key_value_groups == unit
        ],
    )
    of_queries = {head * width + place for head in queries for place in range(width)}
    of_keys = {unit * width + place for place in range(width)}
    return {
        "self_attn.q_proj": (of_queries, set()),
        "self_attn.k_proj": (of_keys, set()),
        "self_attn.v_proj": (of_keys, set()),
        "self_attn.o_proj": (set(), of_queries),
    }


def counts(lm) -> dict[str, int]:
    return {kind: units.count(lm.model.config) for kind, units in removable(lm).items()}


@dataclass
class InputStatistics:
    norm_I: torch.Tensor
    mean_I: torch.Tensor
    variance_I: torch.Tensor


def inputs_of(lm, layer: int, ids_BT) -> dict[str, torch.Tensor]:
    """Return what every linear of a block receives in a full forward, float64 (tokens, I)."""
    seen, handles = {}, []
    for name, linear in lm.linears(lm.blocks[layer]).items():
        handles.append(
            linear.register_forward_pre_hook(
                lambda module, args, name=name: seen.__setitem__(name, args[0].flatten(0, 1).double())
            )
        )
    lm.hidden(ids_BT)
    for handle in handles:
        handle.remove()
    return seen


def statistics_of(lm, layer: int, ids_BT, weight_N) -> dict[str, InputStatistics]:
    found = {}
    for name, input_NI in inputs_of(lm, layer, ids_BT).items():
        share_N = weight_N.square() / weight_N.square().sum()
        mean_I = share_N @ input_NI
        found[name] = InputStatistics(
            (weight_N[:, None] * input_NI).square().sum(0).sqrt().float(),
            mean_I.float(),
            (share_N @ (input_NI - mean_I).square()).float(),
        )
    return found


@pytest.fixture
def weight_N() -> torch.Tensor:
    return torch.rand(3 * 11, generator=torch.Generator().manual_seed(4), dtype=torch.float64).round(
        decimals=1
    )  # some tokens count for nothing


def some_kept(lm, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Return a different choice of units for every block: one group and about half of the channels leave."""
    rng = torch.Generator().manual_seed(seed)
    stay = {"attention": lambda count: count - 1, "mlp": lambda count: count // 2}
    return [
        {
            kind: torch.randperm(count, generator=rng)[: stay[kind](count)].sort().values
            for kind, count in counts(lm).items()
        }
        for _ in lm.blocks
    ]


def masked(lm, kept, compensate=None) -> LanguageModel:
    for layer, block in enumerate(lm.blocks):
        mask(lm, block, kept[layer], compensate and compensate[layer])
    return lm


def logits(lm, ids_BT) -> torch.Tensor:
    return lm.model(ids_BT, use_cache=False).logits


def weights_in_linears(lm) -> int:
    return sum(linear.weight.numel() for block in lm.blocks for linear in lm.linears(block).values())


# scores


def naive_scores(lm, layer: int, kind: str, criterion: str, inputs, weight_N) -> list[float]:
    """Return a score per unit by loops over lists, from the formulas."""
    linears, found = lm.linears(lm.blocks[layer]), []
    for unit in range(counts(lm)[kind]):
        total = 0.0
        for name, (rows, columns) in owned(lm, kind, unit).items():
            weight = weight_OI(linears[name]).double()
            if criterion == "magnitude":
                total += sum(value * value for row in rows for value in weight[row].tolist())
            for column in columns:
                values, tokens, shares = (
                    weight[:, column].tolist(),
                    inputs[name][:, column].tolist(),
                    weight_N.tolist(),
                )
                count = sum(w * w for w in shares)
                mean = sum(w * w * x for w, x in zip(shares, tokens, strict=True)) / count
                total += {
                    "magnitude": sum(value * value for value in values),
                    "wanda": sum(abs(value) for value in values)
                    * math.sqrt(sum((w * x) ** 2 for w, x in zip(shares, tokens, strict=True))),
                    "flap": sum(value * value for value in values)
                    * sum(w * w * (x - mean) ** 2 for w, x in zip(shares, tokens, strict=True))
                    / count,
                }[criterion]
        found.append(math.sqrt(total) if criterion == "magnitude" else total)
    return found


@pytest.mark.parametrize("criterion", UNIT_CRITERIA)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_loops_over_what_a_unit_owns(build, make_ids, weight_N, family, criterion):
    lm, ids_BT = build(family), make_ids(3, 11)
    statistics = statistics_of(lm, 1, ids_BT, weight_N) if UNIT_CRITERIA[criterion].calibrated else None
    found = scores(lm, lm.blocks[1], criterion, statistics)
    assert set(found) == set(counts(lm))
    for kind, score_U in found.items():
        expected = torch.tensor(naive_scores(lm, 1, kind, criterion, inputs_of(lm, 1, ids_BT), weight_N))
        torch.testing.assert_close(score_U, expected, rtol=1e-4, atol=1e-6)
        assert score_U.dtype == torch.float32


@pytest.mark.parametrize("criterion", UNIT_CRITERIA)
@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])
def test_dead_units_leave_first_and_change_nothing(build, make_ids, weight_N, family, criterion):
    lm, ids_BT = build(family), make_ids(3, 11)
    dead, linears = [3, 17, 20], lm.linears(lm.blocks[0])
    for unit in dead:
        for name, (rows, columns) in owned(lm, "mlp", unit).items():
            weight_OI(linears[name])[list(rows)] = 0
            if criterion == "magnitude":
                weight_OI(linears[name])[:, list(columns)] = 0
            if rows and linears[name].bias is not None:
                linears[name].bias[list(rows)] = 0
    before = logits(lm, ids_BT)
    found = scores(lm, lm.blocks[0], criterion, statistics_of(lm, 0, ids_BT, weight_N))
    kept = {kind: choose(score_U, 3 if kind == "mlp" else 0) for kind, score_U in found.items()}
    assert not set(dead) & set(kept["mlp"].tolist()) and len(kept["mlp"]) == counts(lm)["mlp"] - 3
    mask(lm, lm.blocks[0], kept)
    torch.testing.assert_close(logits(lm, ids_BT), before, atol=1e-5, rtol=1e-5)


@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=30), share=st.floats(0, 0.99))
@settings(max_examples=100, deadline=None)
def test_the_lowest_scores_leave_and_ties_go_by_lowest_index(values, share):
    removed = int(len(values) * share)
    leaving = sorted(range(len(values)), key=lambda unit: (values[unit], unit))[:removed]
    assert choose(torch.tensor(values).float(), removed).tolist() == [
        unit for unit in range(len(values)) if unit not in leaving
    ]


# how many


def on_meta(make_lm, config) -> LanguageModel:
    """Return a model of real size that holds no weights."""
    with torch.device("meta"):
        return dataclasses.replace(make_lm("autoregressive"), model=LlamaForCausalLM(config), name="large")


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.62])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_ratio_reached_is_counted_exactly(build, family, ratio):
    lm = build(family)
    planned = plan(lm, ratio)
    kept = [
        {kind: torch.arange(planned.removed[kind], count) for kind, count in counts(lm).items()}
        for _ in lm.blocks
    ]
    smaller, before = shrink(lm, kept), weights_in_linears(lm)
    assert before - weights_in_linears(smaller) == planned.weights_removed * len(lm.blocks)
    assert before == planned.weights * len(lm.blocks)
    assert planned.reached == (before - weights_in_linears(smaller)) / before
    zeros = sum(
        int((linear.weight == 0).sum())
        for block in masked(lm, kept).blocks
        for linear in lm.linears(block).values()
    )
    assert zeros == planned.weights_removed * len(lm.blocks)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_plan_comes_nearer(build, family):
    """Every number of groups that the MLP can make up for is tried: the nearest to the ratio is taken, then the nearest total."""
    lm = build(family)
    sizes, of = {name: linear.weight.numel() for name, linear in lm.linears(lm.blocks[0]).items()}, counts(lm)
    total, channel = (
        sum(sizes.values()),
        sum(size for name, size in sizes.items() if "mlp" in name) / of["mlp"],
    )
    groups = of.get("attention", 1)
    group = (total - channel * of["mlp"]) / groups
    for ratio in torch.linspace(0.03, 0.62, 60, dtype=torch.float64).tolist():
        totals = {
            (lost, channels): lost * group + channels * channel
            for lost in group_counts(lm.model.config)
            for channels in range(of["mlp"])
        }
        near = {
            units: value
            for units, value in totals.items()
            if abs(value - ratio * total) <= channel / 2 + 1e-6
        }
        lost, channels = min(
            near, key=lambda units: (abs(units[0] - ratio * groups), abs(near[units] - ratio * total))
        )
        planned = plan(lm, ratio)
        assert planned.removed == (
            {"attention": lost, "mlp": channels} if "attention" in of else {"mlp": channels}
        )
        assert planned.weights_removed == totals[lost, channels]


def test_the_embedded_pair_loses_whole_groups_of_its_three(make_lm):
    """SmolLM2-135M: a third of attention leaves at 0.5, and 853 of 1536 channels."""
    lm = on_meta(
        make_lm,
        LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=2,
            num_attention_heads=9,
            num_key_value_heads=3,
        ),
    )
    planned = plan(lm, 0.5)
    assert planned.removed == {"attention": 1, "mlp": 853}
    assert planned.weights == 576 * (576 * 2 + 192 * 2) + 3 * 576 * 1536
    assert planned.weights_removed == 192 * (576 * 2) + 64 * (576 * 2) + 853 * 3 * 576
    assert planned.reached == pytest.approx(0.49984, abs=1e-5)


def test_llama_gives_up_only_numbers_of_heads_that_divide_its_width(make_lm):
    """The shape of LLaDA-8B, whose config refuses 22 of 32 heads: half of attention leaves, and the MLP makes up for it."""
    lm = on_meta(
        make_lm,
        LlamaConfig(
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=1,
            num_attention_heads=32,
            num_key_value_heads=32,
        ),
    )
    assert [32 - removed for removed in group_counts(lm.model.config)] == [32, 16, 8, 4, 2, 1]
    planned = plan(lm, 0.3)
    assert planned.removed["attention"] == 16 and planned.reached == pytest.approx(0.3, abs=1e-4)
    with pytest.raises(Exception, match="not a multiple"):
        LlamaConfig(hidden_size=4096, num_attention_heads=22, num_key_value_heads=22, head_dim=128)


# what remains


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_zeroes_what_the_units_own_and_nothing_else(build, family):
    lm = build(family)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    kept = some_kept(lm)
    with weights_kept(lm):
        masked(lm, kept)
        for block, stays in zip(lm.blocks, kept, strict=True):
            linears, expected = lm.linears(block), {}
            for kind, count in counts(lm).items():
                for unit in set(range(count)) - set(stays[kind].tolist()):
                    for name, (rows, columns) in owned(lm, kind, unit).items():
                        gone_OI = expected.setdefault(
                            name, torch.zeros_like(weight_OI(linears[name]), dtype=torch.bool)
                        )
                        gone_OI[list(rows)] = True
                        gone_OI[:, list(columns)] = True
            for name, linear in linears.items():
                assert torch.equal(
                    weight_OI(linear) == 0,
                    expected.get(name, torch.zeros_like(weight_OI(linear), dtype=torch.bool)),
                )
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shrunk_model_equals_the_masked_one_and_stock_transformers_reads_it(
    build, make_ids, tmp_path, family, kind
):
    lm, ids_BT = build(family, kind), make_ids(3, 11)
    kept, dense = some_kept(lm), logits(lm, ids_BT)
    smaller = shrink(lm, kept)
    assert torch.equal(logits(lm, ids_BT), dense)
    expected = logits(masked(lm, kept), ids_BT)
    assert not torch.allclose(expected, dense, atol=0.1)
    torch.testing.assert_close(logits(smaller, ids_BT), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(smaller.hidden(ids_BT), lm.hidden(ids_BT), atol=1e-4, rtol=1e-4)
    assert counts(smaller) == {kind: len(units) for kind, units in kept[0].items()}

    folder = smaller.save(tmp_path / "smaller")
    stock, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(stock) is type(lm.model) and not any(info.values())
    assert torch.equal(stock(ids_BT, use_cache=False).logits, logits(smaller, ids_BT))
    again = load(folder)
    assert again.fingerprint() == smaller.fingerprint() and (
        again.kind,
        again.mask_token_id,
        again.logits_shifted,
    ) == (lm.kind, lm.mask_token_id, lm.logits_shifted)


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", ["llama-gqa", "qwen3", "gpt2"])
def test_a_shrunk_model_keeps_its_direction(build, make_ids, family, kind):
    lm, ids_BT = build(family, kind), make_ids(1, 9)
    smaller, changed_BT = shrink(lm, some_kept(lm)), ids_BT.clone()
    changed_BT[:, -1] = 17 + (changed_BT[:, -1] - 16) % 40
    assert torch.equal(smaller.hidden(ids_BT)[:, 0], smaller.hidden(changed_BT)[:, 0]) is (
        kind == "autoregressive"
    )
    flags = [module.is_causal for module in smaller.model.modules() if hasattr(module, "is_causal")]
    assert len(flags) == len(lm.blocks) and set(flags) == {smaller.model.config.is_causal} == {
        kind == "autoregressive"
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_is_the_identity_in_memory_of_its_own(build, make_ids, family):
    lm, ids_BT = build(family), make_ids(2, 8)
    assert set(plan(lm, 0).removed.values()) == {0}
    everything = [
        {kind: choose(score_U, 0) for kind, score_U in scores(lm, block, "magnitude").items()}
        for block in lm.blocks
    ]
    same = shrink(lm, everything)
    assert same.fingerprint() == lm.fingerprint() and torch.equal(logits(same, ids_BT), logits(lm, ids_BT))
    for parameter in same.model.parameters():
        parameter.zero_()
    assert all(bool(parameter.any()) for parameter in lm.model.parameters())
    before = lm.fingerprint()
    assert masked(lm, everything).fingerprint() == before


def test_a_shrunk_model_keeps_dtype_and_settings_and_the_precision_of_its_angles(
    tiny_dlm, tmp_path, make_ids
):
    lm = load(tiny_dlm.save(tmp_path / "model"))
    lm.model.to(torch.bfloat16).set_attn_implementation("eager")
    lm.model.generation_config.max_new_tokens = 7
    smaller = shrink(lm, some_kept(lm))
    assert smaller.model.generation_config.max_new_tokens == 7
    assert {parameter.dtype for parameter in smaller.model.parameters()} == {torch.bfloat16}
    assert smaller.model.config._attn_implementation == "eager"
    assert smaller.model.base_model.rotary_emb.inv_freq.dtype == torch.float32
    assert (
        not any(parameter.requires_grad for parameter in smaller.model.parameters())
        and not smaller.model.training
    )
    assert bool(torch.isfinite(logits(smaller, make_ids(1, 5))).all())


def test_a_shrunk_config_states_every_size(build, tmp_path):
    lm = build("qwen2")
    config = json.loads((shrink(lm, some_kept(lm)).save(tmp_path / "smaller") / "config.json").read_text())
    assert [
        config[name]
        for name in (
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
            "hidden_size",
        )
    ] == [4, 2, 6, 22, 36]


# compensation


@pytest.mark.parametrize("family", COMPENSATED)
def test_compensation_adds_the_mean_of_what_is_removed(build, make_ids, weight_N, family):
    lm, ids_BT = build(family), make_ids(3, 11)
    kept, statistics = some_kept(lm)[1], statistics_of(lm, 1, ids_BT, weight_N)
    expected = {}
    for kind, count in counts(lm).items():
        for unit in set(range(count)) - set(kept[kind].tolist()):
            for name, (_, columns) in owned(lm, kind, unit).items():
                linear = lm.linears(lm.blocks[1])[name]
                for column in columns:
                    weight_O, mean = (
                        weight_OI(linear)[:, column].double(),
                        float(statistics[name].mean_I[column]),
                    )
                    former = [0.0] * len(weight_O) if linear.bias is None else linear.bias.double().tolist()
                    expected[name] = [
                        total + mean * value
                        for total, value in zip(expected.get(name, former), weight_O.tolist(), strict=True)
                    ]
    mask(lm, lm.blocks[1], kept, statistics)
    assert set(expected) == {units.columns for units in removable(lm).values()}
    for name, bias in expected.items():
        torch.testing.assert_close(
            lm.linears(lm.blocks[1])[name].bias, torch.tensor(bias), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("compensate", "least", "most"), [(True, 0, 1e-4), (False, 1e-2, math.inf)])
@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])
def test_compensation_keeps_the_mean_output_over_the_calibration_tokens(
    build, make_ids, weight_N, family, compensate, least, most
):
    lm, ids_BT = build(family), make_ids(3, 11)
    statistics, kept = (
        statistics_of(lm, 0, ids_BT, weight_N),
        {kind: torch.arange(count // 2 if kind == "mlp" else 0, count) for kind, count in counts(lm).items()},
    )
    reader, outputs = lm.linears(lm.blocks[0])[removable(lm)["mlp"].columns], []
    handle = reader.register_forward_hook(
        lambda module, args, output: outputs.append(output.flatten(0, 1).double())
    )
    lm.hidden(ids_BT)
    mask(lm, lm.blocks[0], kept, statistics if compensate else None)
    lm.hidden(ids_BT)
    handle.remove()
    share_N = weight_N.square() / weight_N.square().sum()
    assert least <= float((share_N @ (outputs[0] - outputs[1])).abs().max()) <= most


@pytest.mark.parametrize("compensated_blocks", [1, "all"])
@pytest.mark.parametrize("family", COMPENSATED)
def test_a_compensated_model_shrinks_to_one_with_native_biases(
    build, make_ids, weight_N, tmp_path, family, compensated_blocks
):
    lm, ids_BT = build(family), make_ids(3, 11)
    kept = some_kept(lm)
    plain = shrink(lm, kept)
    for layer, block in enumerate(lm.blocks):
        mask(
            lm,
            block,
            kept[layer],
            statistics_of(lm, layer, ids_BT, weight_N)
            if compensated_blocks == "all" or layer < compensated_blocks
            else None,
        )
    smaller = shrink(lm, kept)
    torch.testing.assert_close(logits(smaller, ids_BT), logits(lm, ids_BT), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(smaller, ids_BT), logits(plain, ids_BT), atol=1e-2)
    stock, info = AutoModelForCausalLM.from_pretrained(
        smaller.save(tmp_path / "smaller"), output_loading_info=True
    )
    assert not any(info.values()) and torch.equal(
        stock(ids_BT, use_cache=False).logits, logits(smaller, ids_BT)
    )
    assert (
        not any(
            bool(value.any())
            for name, value in stock.state_dict().items()
            if name.endswith(("q_proj.bias", "up_proj.bias"))
        )
        or family == "llama-biased"
    )


# errors


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan"), "half", True, None])
def test_a_ratio_outside_its_range_is_refused(tiny_dlm, ratio):
    with pytest.raises(ValueError, match=r"ratio=.* must be a number in \[0, 1\)"):
        plan(tiny_dlm, ratio)


@pytest.mark.parametrize(
    ("family", "most"),
    [
        ("gpt2", 95 * 2 * 24 / (12 * 24 * 24)),
        ("llama-mha", (2 * 12 * 36 * 4 + 39 * 3 * 36) / (4 * 36 * 36 + 3 * 36 * 40)),
    ],
)
def test_what_cannot_be_reached_is_refused_with_the_most_that_can(build, family, most):
    lm = build(family)
    assert plan(lm, most).reached == most
    with pytest.raises(ValueError, match=rf"ratio=0.99 cannot be reached: at most {most:.4f}"):
        plan(lm, 0.99)


def test_a_ratio_that_removes_nothing_is_refused(tiny_dlm):
    with pytest.raises(
        ValueError, match="ratio=0.001 leaves nothing to remove: one MLP channel of tiny-diffusion is 0.0130"
    ):
        plan(tiny_dlm, 0.001)


def test_an_unknown_family_is_refused(tiny_ar):
    neox = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=72, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    with pytest.raises(
        ValueError, match="is a 'gpt_neox' model.*structured pruning knows llama, qwen2, qwen3, gpt2"
    ):
        plan(dataclasses.replace(tiny_ar, model=neox), 0.5)


def test_an_unknown_criterion_and_missing_statistics_are_refused(tiny_dlm):
    with pytest.raises(
        ValueError, match="criterion='sparsegpt' is unknown for units; choose one of magnitude, wanda, flap"
    ):
        scores(tiny_dlm, tiny_dlm.blocks[0], "sparsegpt")
    for criterion in ("wanda", "flap"):
        with pytest.raises(ValueError, match=f"criterion='{criterion}' needs calibration statistics"):
            scores(tiny_dlm, tiny_dlm.blocks[0], criterion)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="scores of units are not finite"):
        choose(torch.tensor([1.0, value]), 1)


@pytest.mark.parametrize(("family", "reader"), [("qwen2", "self_attn.o_proj"), ("qwen3", "mlp.down_proj")])
def test_compensation_is_refused_where_the_class_has_no_bias(build, family, reader):
    lm = build(family)
    before = lm.fingerprint()
    with pytest.raises(ValueError, match=f"has no bias for {reader}"):
        mask(lm, lm.blocks[0], some_kept(lm)[0], compensate={})
    assert lm.fingerprint() == before


def test_units_that_do_not_fit_the_model_are_refused(tiny_dlm):
    kept = some_kept(tiny_dlm)
    with pytest.raises(ValueError, match="kept has 2 entries for the 3 blocks"):
        shrink(tiny_dlm, kept[:2])
    with pytest.raises(
        ValueError, match=r"kept\[0\] names \['mlp'\]; tiny-diffusion has units of kind attention, mlp"
    ):
        shrink(tiny_dlm, [{"mlp": each["mlp"]} for each in kept])
    for places in ([], [1, 0], [0, 0], [-1, 3], [0, 45]):
        with pytest.raises(
            ValueError, match=r"kept\[1\]\['mlp'\] must be at least one unit of 0 … 44, each once, ascending"
        ):
            shrink(tiny_dlm, [kept[0], {**kept[1], "mlp": torch.tensor(places, dtype=torch.long)}, kept[2]])
    with pytest.raises(
        ValueError,
        match=r"kept\[2\]\['attention'\] holds 2 units, block 0 keeps 1: a config has one number for all blocks",
    ):
        shrink(tiny_dlm, [*kept[:2], {**kept[2], "attention": torch.arange(2)}])
