"""Families: every public format gives the numbers that the papers' formulas give, in a native class, without remote code.

No 7B checkpoint is read here: the formats are those of the published configurations and modeling files, at toy width.
"""

import json
from dataclasses import replace

import pytest
import torch
from families import reference
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sinkprune_core.diffusion.sampling import Sampler, decode, generate
from sinkprune_core.evaluation.benchmarks import evaluate_named
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.formats import FormatError, Source
from sinkprune_core.models.language_model import language_model, load
from sinkprune_core.models.random_weights import CASES, case_of, draw, smdm, stand_in, write, write_weights
from sinkprune_core.models.reader import Checkpoint, Files, part_name
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.engine import preset, prune
from sinkprune_core.sinks import attention
from sinkprune_core.sinks.trace import trace

LENGTH = 11
ROTARY = [name for name, case in CASES.items() if not case.shape.gpt2]
DIFFUSION = [name for name, case in CASES.items() if not case.causal]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that writes a case's checkpoint once: (folder, parts). The folder is not to be changed."""
    known = {}

    def get(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("public") / name.replace(" ", "-")
            known[name] = folder, write(CASES[name], folder)
        return known[name]

    return get


@pytest.fixture
def fresh(tmp_path):
    """A function that writes a case's checkpoint into a folder that may be changed."""

    def get(name, **changes):
        folder = tmp_path / "fresh"
        write(replace(CASES[name], **changes), folder)
        return folder

    return get


def edit(folder, file: str = "config.json", drop: tuple = (), **values) -> None:
    config = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))


def some_ids(case, rows: int = 1, seed: int = 0) -> torch.Tensor:
    """Return ids of ordinary tokens with a mask at positions 2 and 7."""
    ids_BT = torch.randint(21, 66, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    if case.mask is not None:
        ids_BT[:, [2, 7]] = case.mask
    return ids_BT


def outputs(lm, ids_BT: torch.Tensor, columns: int | None = None) -> torch.Tensor:
    return lm.model(ids_BT, use_cache=False).logits[0, :, :columns]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


# numbers


@pytest.mark.parametrize("name", CASES)
def test_a_public_checkpoint_gives_what_the_formulas_give(name, written):
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_BT = load(folder), some_ids(case)
    expected_TV = reference(parts, case.shape, ids_BT[0], causal=case.causal)
    torch.testing.assert_close(outputs(lm, ids_BT, expected_TV.shape[1]), expected_TV, atol=1e-4, rtol=1e-4)
    assert expected_TV.std() > 0.05
    assert (type(lm.model).__name__, lm.kind, lm.mask_token_id, lm.logits_shifted) == (
        case.native,
        "autoregressive" if case.causal else "diffusion",
        case.mask,
        case.shifted,
    )
    assert not lm.model.training and lm.model.dtype == torch.float32


@pytest.mark.parametrize(
    ("mistake", "name"),
    [(mistake, name) for mistake in ("direction", "epsilon") for name in CASES]
    + [(mistake, name) for mistake in ("swapped", "theta") for name in ROTARY],
)
def test_a_mistake_in_the_formulas_would_be_noticed(mistake, name, written):
    """The controls: each of these is one line of a key or configuration map gone wrong."""
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_BT = load(folder), some_ids(case)
    wrong = {
        "direction": lambda: reference(parts, case.shape, ids_BT[0], causal=not case.causal),
        "swapped": lambda: reference(parts, case.shape, ids_BT[0], causal=case.causal, swapped=True),
        "theta": lambda: reference(
            parts, replace(case.shape, theta=case.shape.theta * 3), ids_BT[0], causal=case.causal
        ),
        "epsilon": lambda: reference(
            parts,
            replace(case.shape, epsilon=1e-6 if case.shape.epsilon == 1e-5 else 1e-5),
            ids_BT[0],
            causal=case.causal,
        ),
    }[mistake]()
    assert not close(outputs(lm, ids_BT, wrong.shape[1]), wrong)


@pytest.mark.parametrize("name", DIFFUSION)
def test_logits_are_shifted_exactly_where_the_family_shifts_them(name, written):
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_BT = load(folder), some_ids(case)
    where_BT = ids_BT == case.mask
    expected_TV = reference(parts, case.shape, ids_BT[0])
    own_NV, former_NV = expected_TV[[2, 7]], expected_TV[[1, 6]]
    found_NV = lm.logits_at(ids_BT, where_BT)[:, : expected_TV.shape[1]]
    assert close(found_NV, former_NV if case.shifted else own_NV)
    assert not close(found_NV, own_NV if case.shifted else former_NV)


def test_the_padded_row_of_an_output_head_says_nothing(written):
    lm = load(written("smdm")[0])
    assert torch.equal(outputs(lm, some_ids(CASES["smdm"]))[:, 72], torch.zeros(LENGTH))


@pytest.mark.parametrize("name", ["llada", "dream", "diffugpt", "smdm"])
def test_a_block_called_alone_has_the_direction_of_the_model(name, written):
    lm = load(written(name)[0])
    hidden_BTD = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    changed_BTD = hidden_BTD.clone()
    changed_BTD[0, 4] *= -1
    base = lm.model.base_model
    angles = (
        {"position_embeddings": base.rotary_emb(hidden_BTD, torch.arange(5)[None])}
        if hasattr(base, "rotary_emb")
        else {}
    )
    before, after = (
        output[0] if isinstance(output, tuple) else output
        for output in (lm.blocks[0](each, **angles) for each in (hidden_BTD, changed_BTD))
    )
    assert not torch.allclose(before[..., 0, :], after[..., 0, :], atol=1e-4)


@pytest.mark.parametrize("name", ["llada", "dream", "gpt2"])
def test_parameters_take_the_dtype_and_rotary_frequencies_stay_float32(name, written):
    lm = load(written(name)[0], "bfloat16")
    assert (
        {parameter.dtype for parameter in lm.model.parameters()}
        == {torch.bfloat16}
        == {lm.model.config.dtype}
    )
    assert {buffer.dtype for buffer in lm.model.buffers()} <= {torch.float32}
    again = load(written(name)[0])
    assert all(
        torch.equal(parameter, again.model.get_parameter(key).to(torch.bfloat16))
        for key, parameter in lm.model.named_parameters()
    )
    assert all(torch.equal(buffer, again.model.get_buffer(key)) for key, buffer in lm.model.named_buffers())


# the reader, block by block


@pytest.mark.parametrize("name", CASES)
def test_a_model_filled_block_by_block_is_the_whole_model(name, written):
    checkpoint = Checkpoint(written(name)[0])
    skeleton = checkpoint.skeleton()
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in skeleton.buffers()} <= {"cpu"} and not skeleton.training
    lm = language_model(checkpoint, skeleton)
    parts = [
        *lm.blocks,
        skeleton.get_input_embeddings(),
        *(module for key, module in skeleton.base_model.named_children() if key in ("norm", "ln_f", "wpe")),
        skeleton.get_output_embeddings(),
    ]
    for part in parts:
        checkpoint.fill(part, part_name(lm.model, part))
    skeleton.tie_weights()
    whole, ids_BT = load(written(name)[0]), some_ids(CASES[name])
    assert torch.equal(outputs(lm, ids_BT), outputs(whole, ids_BT))
    assert lm.fingerprint() == whole.fingerprint()
    assert checkpoint.parameters == sum(parameter.numel() for parameter in whole.model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_names_shapes_and_dtypes_are_those_of_the_tensors(name, written):
    case, checkpoint = CASES[name], Checkpoint(written(name)[0])
    model = checkpoint.skeleton()
    assert sorted(checkpoint.names()) == sorted(key for key, _ in model.named_parameters())
    for key in checkpoint.names():
        tensor = checkpoint.tensor(key)
        assert (
            (tuple(tensor.shape), tensor.dtype)
            == (checkpoint.shape(key), checkpoint.dtype(key))
            == (tuple(model.get_parameter(key).shape), case.shape.stored)
        )
    assert checkpoint.bytes == sum(
        tensor.nbytes
        for file in checkpoint.folder.glob("*.safetensors")
        for tensor in load_file(file).values()
    )
    assert checkpoint.family == case.family


def test_a_block_is_read_without_reading_another(written, monkeypatch):
    read = []
    monkeypatch.setattr(
        Files, "tensor", lambda self, stored, real=Files.tensor: read.append(stored) or real(self, stored)
    )
    checkpoint = Checkpoint(written("llada")[0])
    skeleton = checkpoint.skeleton()
    checkpoint.fill(skeleton.model.layers[1], "model.layers.1", torch.bfloat16)
    assert len(read) == 9 and all(name.startswith("model.transformer.blocks.1.") for name in read)
    assert skeleton.model.layers[1].mlp.up_proj.weight.dtype == torch.bfloat16
    assert skeleton.model.layers[0].mlp.up_proj.weight.is_meta


def test_what_is_loaded_does_not_hang_on_its_file(fresh):
    """Mapped memory would: writing to it changes what is read next, and a file that is cut short takes the process along."""
    folder = fresh("smdm grouped")
    checkpoint = Checkpoint(folder)
    model, before = checkpoint.load(), checkpoint.tensor("model.layers.0.mlp.up_proj.weight").clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(checkpoint.tensor("model.layers.0.mlp.up_proj.weight"), before)
    assert torch.equal(Checkpoint(folder).load().model.layers[0].mlp.up_proj.weight, before)


def test_two_models_of_one_checkpoint_share_nothing(written):
    checkpoint = Checkpoint(written("dream")[0])
    first, second = checkpoint.load(), checkpoint.load()
    with attention.track(first):
        assert second.config._attn_implementation == "sdpa" != first.config._attn_implementation
    assert not {parameter.data_ptr() for parameter in first.parameters()} & {
        parameter.data_ptr() for parameter in second.parameters()
    }


def test_a_tied_head_is_read_from_the_embedding(written):
    checkpoint = Checkpoint(written("illada")[0])
    assert "lm_head.weight" not in checkpoint.names() and "lm_head.weight" in checkpoint
    assert torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))
    model = checkpoint.load()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_head_that_is_called_tied_and_is_not_is_kept(fresh):
    """dllm's A2D models have a head of their own, although their configuration is that of a tied base."""
    folder = fresh("a2d qwen2")
    model = Checkpoint(folder).load()
    assert not model.config.tie_word_embeddings and not torch.equal(
        model.lm_head.weight, model.model.embed_tokens.weight
    )
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    model = Checkpoint(folder).load()
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight


def test_an_unfused_part_is_the_rows_that_were_fused():
    rows = torch.arange(24).view(24, 1)  # 2 groups of 2 queries, a key, a value, each of width 3
    assert Source("", (2, 4, 0, 2)).read(rows).flatten().tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        12,
        13,
        14,
        15,
        16,
        17,
    ]
    assert Source("", (2, 4, 2, 3)).read(rows).flatten().tolist() == [6, 7, 8, 18, 19, 20]
    assert Source("", (2, 4, 3, 4)).read(rows).flatten().tolist() == [9, 10, 11, 21, 22, 23]
    assert Source("", padding=2).read(rows).flatten().tolist() == [*range(24), 0, 0]


# errors


@pytest.mark.parametrize(("damage", "stored", "native"), [
    ("missing", "model.transformer.blocks.1.ff_proj.weight", "model.layers.1.mlp.gate_proj.weight"),
    ("unexpected", "model.transformer.blocks.1.q_norm.weight", "model.transformer.blocks.1.q_norm.weight"),
    ("unexpected", "model.transformer.blocks.9.ff_proj.weight", "model.layers.9.mlp.gate_proj.weight"),
    ("mismatched", "model.transformer.blocks.1.ff_out.weight", r"model.layers.1.mlp.down_proj.weight: \(3, 3\) instead of \(32, 45\)"),
])  # fmt: skip
@pytest.mark.parametrize("block_alone", [False, True])
def test_weights_that_do_not_fit_are_one_error_with_native_names(fresh, damage, stored, native, block_alone):
    folder = fresh("llada grouped")
    weights = load_file(folder / "model.safetensors")
    if damage == "missing":
        del weights[stored]
    else:
        weights[stored] = torch.ones(3, 3)
    save_file(weights, folder / "model.safetensors")
    checkpoint = Checkpoint(folder)
    if block_alone and "layers.1" in native:
        with pytest.raises(FormatError, match=f"{damage}_keys.*{native}"):
            checkpoint.fill(checkpoint.skeleton().model.layers[1], "model.layers.1")
    elif not block_alone:
        with pytest.raises(FormatError, match=f"do not fit LlamaForCausalLM.*{damage}_keys.*{native}"):
            load(folder)


@pytest.mark.parametrize(("name", "values", "said"), [
    ("llada", {"alibi": True}, "alibi=True: transformers' Llama cannot express that"),
    ("llada", {"scale_logits": True, "input_emb_norm": True}, "scale_logits=True, input_emb_norm=True"),
    ("llada", {"attention_layer_norm": True}, "attention_layer_norm=True"),
    ("llada", {"include_bias": True}, "include_bias=True"),
    ("llada", {"include_qkv_bias": True}, "include_qkv_bias=True"),
    ("llada", {"block_type": "sequential"}, "block_type='sequential'"),
    ("llada", {"block_group_size": 4}, "block_group_size=4"),
    ("llada", {"activation_type": "swiglu"}, "activation_type='swiglu'"),
    ("llada", {"layer_norm_type": "default"}, "layer_norm_type='default'"),
    ("llada", {"rope": False}, "rope=False"),
    ("mmada", {"residual_dropout": 0.1}, "residual_dropout=0.1"),
    ("dream", {"use_sliding_window": True}, "use_sliding_window=True: transformers' Qwen2 cannot"),
    ("dream", {"use_mrope": True}, "use_mrope=True"),
    ("dream", {"block_size": 32}, "block_size=32: it attends block by block"),
    ("a2d qwen3", {"use_sliding_window": True}, "use_sliding_window=True: transformers' Qwen3 cannot"),
    ("llada", {"model_type": "llada2_moe"}, "model_type='llada2_moe' is not covered: it is a mixture of experts"),
    ("illada", {"num_experts": 64}, "with experts is not covered"),
    ("qwen3", {"model_type": "sdar"}, "model_type='sdar' is not covered: it attends block by block"),
    ("qwen2", {"model_type": "Fast_dLLM_Qwen"}, "is not covered: it attends block by block"),
    ("llama", {"model_type": "diffusion_gemma"}, "no mask token"),
    ("llama", {"model_type": "mystery"}, "model_type='mystery' is not covered; covered are llada, mmada"),
])  # fmt: skip
def test_what_no_native_class_can_express_is_refused_by_name_and_value(fresh, name, values, said):
    folder = fresh(name)
    edit(folder, **values)
    with pytest.raises(FormatError, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("llada", "rms_norm_eps"),
        ("llada", "rope_theta"),
        ("llada", "block_type"),
        ("dream", "rms_norm_eps"),
        ("a2d qwen3", "rope_theta"),
        ("illada", "num_key_value_heads"),
        ("diffugpt", "layer_norm_epsilon"),
    ],
)
def test_what_decides_the_numbers_is_never_taken_from_a_default(fresh, name, dropped):
    folder = fresh(name)
    edit(folder, drop=(dropped,))
    with pytest.raises(FormatError, match=f"does not state {dropped}"):
        load(folder)


def test_smdm_needs_its_heads_from_somewhere(fresh):
    folder = fresh("smdm")
    (folder / "lit_config.json").unlink()
    with pytest.raises(
        FormatError, match="no model of width 32, so its number of heads is not known: put a lit_config.json"
    ):
        load(folder)
    (folder / "lit_config.json").write_text(json.dumps({"n_head": 4, "rotary_percentage": 0.25}))
    with pytest.raises(FormatError, match="rotary_percentage=0.25"):
        load(folder)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("transformer.wte.weight", "the weights lack transformer.wte.weight"),
        ("transformer.h.0.mlp.swiglu.w1.weight", "lack transformer.h.0.mlp.swiglu.w1.weight"),
        ("lm_head.weight", "missing_keys.*lm_head.weight"),
    ],
)
def test_smdm_without_a_tensor_that_shapes_are_read_from_is_an_error(fresh, lost, said):
    folder = fresh("smdm")
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(FormatError, match=said):
        load(folder)


def test_a_published_size_of_smdm_needs_no_configuration(tmp_path):
    shape = replace(CASES["smdm"].shape, width=256, head_width=64, layers=1, mlp=64)
    parts = write(replace(CASES["smdm"], shape=shape), tmp_path / "smdm")
    (tmp_path / "smdm" / "lit_config.json").unlink()
    lm, ids_BT = load(tmp_path / "smdm"), some_ids(CASES["smdm"])
    expected_TV = reference(parts, shape, ids_BT[0])
    torch.testing.assert_close(outputs(lm, ids_BT, 72), expected_TV, atol=2e-4, rtol=1e-4)


def test_one_parameter_stored_under_two_names_is_refused(fresh):
    folder = fresh("diffullama")
    weights = load_file(folder / "model.safetensors")
    weights["denoise_model.embed_tokens.weight"] = weights["embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        FormatError,
        match="model.embed_tokens.weight is stored twice, as .*embed_tokens.weight and as .*embed_tokens.weight",
    ):
        load(folder)


@pytest.mark.parametrize(("damage", "said"), [
    ("cut", "cannot be read .*incomplete or broken, fetch it again"),
    ("shard", "cannot be read|does not exist"),
    ("index", "index of .* names tensors that no file holds: model.extra"),
    ("json", "config.json is not JSON"),
    ("pickle", "no safetensors in .*, only pytorch_model.bin: pickled weights are not loaded"),
    ("crowd", "holds 2 safetensors files and no model.safetensors.index.json"),
    ("quantised", "is stored as I8: quantised weights are not covered"),
])  # fmt: skip
def test_broken_folders_are_told_apart(fresh, damage, said):
    folder = fresh("llada", shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    if damage == "cut":
        second.write_bytes(second.read_bytes()[:-100])
    elif damage == "shard":
        second.unlink()
    elif damage == "index":
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        index["weight_map"]["model.extra"] = first.name
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif damage == "json":
        (folder / "config.json").write_text("{")
    elif damage == "pickle":
        first.unlink(), second.unlink(), (folder / "model.safetensors.index.json").unlink()
        (folder / "pytorch_model.bin").touch()
    elif damage == "crowd":
        (folder / "model.safetensors.index.json").unlink()
    else:
        weights = load_file(first)
        save_file({name: tensor.to(torch.int8) for name, tensor in weights.items()}, first)
    with pytest.raises(FormatError, match=said):
        load(folder)


# tokenizers and mask tokens


def test_dream_s_tokenizer_needs_no_remote_code(written, tmp_path):
    """Byte-level pairs, its merges, its added tokens; what is saved asks for no code either."""
    lm = load(written("dream")[0])
    ids = lm.encode("the cat<|mask|>").tolist()
    assert (
        lm.tokenizer.convert_ids_to_tokens(ids) == ["the", "Ġ", "c", "a", "t", "<|mask|>"] and ids[-1] == 266
    )
    assert lm.encode(" the").tolist() == [lm.tokenizer.convert_tokens_to_ids("Ġthe")]
    saved = lm.save(tmp_path / "saved")
    for tokenizer in (AutoTokenizer.from_pretrained(saved), load(saved).tokenizer):
        assert tokenizer("the cat<|mask|>", add_special_tokens=False).input_ids == ids


def test_a_tokenizer_that_moves_special_tokens_is_refused(fresh):
    folder = fresh("dream")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        str(int(index) + 2): token for index, token in config["added_tokens_decoder"].items()
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(
        FormatError, match=r"gives other ids than its files state: <\|endoftext\|> is 259 instead of 261"
    ):
        load(folder)


@pytest.mark.parametrize("name", ["llada", "illada", "a2d qwen3"])
def test_a_mask_token_that_nothing_declares_is_found_by_its_name(fresh, name):
    folder = fresh(name)
    edit(folder, drop=("mask_token_id",))
    lm = load(folder)
    assert (lm.mask_token_id, lm.tokenizer.mask_token_id) == (5, None)


def test_dllm_s_mask_token_has_two_spellings(fresh):
    assert load(fresh("a2d qwen3", mask_string="<|MASK|>")).mask_token_id == 5


def test_a_mask_token_that_nothing_names_is_an_error_with_the_way_out(fresh):
    folder = fresh("diffugpt", declared=False)
    with pytest.raises(
        FormatError, match="nothing in .* says which token is the mask: add mask_token_id to its config.json"
    ):
        load(folder)
    edit(folder, mask_token_id=20)
    assert load(folder).mask_token_id == 20


def test_sources_that_disagree_on_the_mask_token_are_named(fresh):
    folder = fresh("dream")
    edit(folder, mask_token_id=3)
    with pytest.raises(FormatError, match="not clear: 3 says config.json, 266 says the tokenizer"):
        load(folder)


def test_a_mask_token_outside_the_vocabulary_is_an_error(fresh):
    folder = fresh("llada grouped")
    edit(folder, mask_token_id=126336)
    with pytest.raises(ValueError, match="mask_token_id=126336 is outside the vocabulary of 72 tokens"):
        load(folder)


def test_a_folder_without_a_tokenizer_says_what_is_needed(fresh):
    folder = fresh("llada")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        FormatError,
        match="no tokenizer in .*: put the published tokenizer.json, or vocab.json and merges.txt",
    ):
        load(folder)


def test_a_bidirectional_folder_without_a_card_leaves_the_shift_open(fresh):
    folder = fresh("qwen2")
    edit(folder, is_causal=False, mask_token_id=5)
    with pytest.raises(
        FormatError,
        match="bidirectional model and no sinkprune.json, which says whether its logits are shifted",
    ):
        load(folder)


# the whole way

SAMPLER = Sampler(length=8, steps=4, block=4)


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method, names in (("wanda", CASES), ("unstable", DIFFUSION)) for name in names],
)
def test_every_family_goes_the_whole_way(method, name, written, tmp_path):
    """Load, trace, prune, save, reload, score, answer a benchmark, generate; and stock transformers reads what was saved."""
    case, lm = CASES[name], load(written(name)[0])
    texts_NT = torch.randint(21, 66, (6, 16), generator=torch.Generator().manual_seed(1))
    steps = trace(lm, texts_NT[:2, :4], SAMPLER, progress=False)
    assert steps.layers_BSLK.shape == (2, 4, 3, 12) and bool(torch.isfinite(steps.layers_BSLK).all())
    report = prune(
        lm, preset(method, noise_levels=3, sink_std=1.0), Calibration(texts_NT, batch=3), progress=False
    )
    assert 0.48 < report.sparsity <= 0.5  # 45 columns have no half
    saved = lm.save(tmp_path / "pruned", report=report.card())
    again = load(saved)
    ids_BT = some_ids(case, rows=2)
    stock = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.equal(again.model(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits)
    assert torch.equal(stock(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits)
    assert set(load_file(saved / "model.safetensors")) == {key for key, _ in lm.model.named_parameters()}
    assert (again.mask_token_id, again.logits_shifted, again.kind, again.name) == (
        lm.mask_token_id,
        lm.logits_shifted,
        lm.kind,
        lm.name,
    )
    measure, write_on = (
        (nll, lambda each: decode(each, texts_NT[:2, :4], 8))
        if case.causal
        else (
            lambda each, ids: nelbo(each, ids, draws=2),
            lambda each: generate(each, texts_NT[:2, :4], SAMPLER),
        )
    )
    assert measure(again, texts_NT).equals(measure(lm, texts_NT))
    answers = evaluate_named(again, ["sinkprune_suite_facts"], limit=1)
    assert set(answers.task) == {"sinkprune_suite_facts"} and answers.value.between(0, 1).all()
    assert torch.equal(write_on(again), write_on(lm)) and write_on(again).shape == (2, 12)


@pytest.mark.parametrize("model_type", ["llama", "something_new"])
def test_illada_is_read_by_its_fields_whatever_its_model_type(fresh, model_type):
    folder = fresh("illada")
    edit(folder, model_type=model_type)
    assert Checkpoint(folder, "illada").kind == "diffusion"
    with pytest.raises(
        FormatError, match="expected to be of the family 'dream' and looks like|is not covered"
    ):
        Checkpoint(folder, "dream")


def test_llama_3_s_scaled_rotary_frequencies_are_those_of_transformers(fresh):
    folder = fresh("llama")
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
        "rope_type": "llama3",
    }
    edit(folder, rope_scaling=scaling)
    stock, ids_BT = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        some_ids(CASES["llama"]),
    )
    lm = load(folder)
    assert lm.model.config.rope_parameters["rope_type"] == "llama3"
    assert torch.equal(lm.model(ids_BT, use_cache=False).logits, stock(ids_BT, use_cache=False).logits)
    assert torch.equal(lm.model.model.rotary_emb.inv_freq, stock.model.rotary_emb.inv_freq)


def test_a_checkpoint_of_many_files_in_one_folder_is_asked_for_one(fresh, tmp_path):
    """SMDM's repository is one folder of many models."""
    folder, case = fresh("smdm"), CASES["smdm"]
    other, _ = smdm(draw(case.shape, seed=1), case.shape)
    write_weights({name: tensor.contiguous().clone() for name, tensor in other.items()}, tmp_path)
    (tmp_path / "model.safetensors").rename(folder / "mdm-other.safetensors")
    with pytest.raises(FormatError, match="Keep one model per folder"):
        Checkpoint(folder)
    tensors = [
        Checkpoint(folder, "smdm", file).tensor("lm_head.weight")
        for file in ("model.safetensors", "mdm-other.safetensors")
    ]
    assert not torch.equal(*tensors)


def test_a_stand_in_takes_the_place_of_a_hub_id_and_of_nothing_else(tmp_path):
    from sinkprune_core.models.random_weights import instead_of

    folder = instead_of("apple/DiffuCoder-7B-Base@main", tmp_path)
    assert folder.parent == tmp_path and load(folder).name == "tiny-random-apple--DiffuCoder-7B-Base"
    assert instead_of("smol-dlm", tmp_path) == "smol-dlm" and instead_of(str(folder), tmp_path) == str(folder)
    with pytest.raises(ValueError, match="unknown model 'no/such'"):
        instead_of("no/such", tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_every_row_of_the_table_has_a_stand_in_that_spells_any_text(name, tmp_path):
    row, folder = MODELS[name], stand_in(MODELS[name], tmp_path / "tiny")
    if row.family == "native" and row.kind == "diffusion":
        pytest.skip("a native folder without a card is autoregressive")
    lm = load(folder)
    assert (type(lm.model).__name__, lm.kind, lm.logits_shifted, lm.mask_token_id) == (
        row.native,
        row.kind,
        row.logits_shifted,
        case_of(row).mask,
    )
    ids_T = lm.encode("The cat sat on <a> mat: 1 + 1 = 2.\n")
    assert (
        lm.tokenizer.decode(ids_T) == "The cat sat on <a> mat: 1 + 1 = 2.\n"
        and lm.mask_token_id not in ids_T.tolist()
    )
    assert lm.tokenizer.eos_token_id is not None and lm.model.config.max_position_embeddings == 1024
    assert stand_in(row, folder) == folder and load(folder).fingerprint() == lm.fingerprint()
