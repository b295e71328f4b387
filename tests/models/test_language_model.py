"""Models: direction, the shift of logits, strict loading, and errors that say what is wrong."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models import embedded
from sinkprune_core.models.blocks import Rows
from sinkprune_core.models.catalog import shape_of
from sinkprune_core.models.formats import FAMILIES, FormatError
from sinkprune_core.models.hub import available_memory
from sinkprune_core.models.language_model import (
    CARD,
    EMBEDDED,
    MODELS,
    REFUSED,
    LanguageModel,
    from_folder,
    load,
    open_checkpoint,
    requirements,
    set_direction,
)
from sinkprune_core.models.random_weights import CASES, write
from sinkprune_core.pruning.engine import block_inputs, run_block

KINDS = ("autoregressive", "diffusion")


def blockwise(lm, ids_BT) -> torch.Tensor:
    """Return the hidden states, (B, T, D), of blocks called one by one as pruning calls them."""
    states = block_inputs(lm, Rows(ids_BT, None), batch=len(ids_BT))
    for block in lm.blocks:
        states = run_block(block, states)
    return lm.model.base_model.norm(states[0].hidden_BTD)


def bare(lm, ids_BT) -> torch.Tensor:
    """Return the same from blocks that are told nothing but positions, so that their own flags decide."""
    hidden_BTD = lm.model.get_input_embeddings()(ids_BT)
    angles = lm.model.base_model.rotary_emb(hidden_BTD, position_ids=torch.arange(ids_BT.shape[1])[None])
    for block in lm.blocks:
        hidden_BTD = block(hidden_BTD, position_embeddings=angles)
    return lm.model.base_model.norm(hidden_BTD)


def full(lm, ids_BT) -> torch.Tensor:
    return lm.hidden(ids_BT)


def first_sees_last(lm, forward, ids_BT) -> bool:
    """Return whether another last token changes any hidden state at position 0."""
    changed_BT = ids_BT.clone()
    changed_BT[:, -1] = 17 + (changed_BT[:, -1] - 17 + 1) % 40
    before_BTD, after_BTD = forward(lm, ids_BT), forward(lm, changed_BT)
    assert not torch.allclose(before_BTD[:, -1], after_BTD[:, -1], atol=1e-3)
    return not torch.equal(before_BTD[:, 0], after_BTD[:, 0])


@pytest.fixture(params=["gqa", "mha"])
def shape(request) -> str:
    return request.param


@pytest.fixture
def saved(tiny_dlm, tmp_path):
    """A folder that holds a saved diffusion model."""
    return tiny_dlm.save(tmp_path / "model")


# direction


@pytest.mark.parametrize("forward", [full, blockwise, bare])
def test_the_first_position_sees_the_last_token_only_in_a_diffusion_model(make_lm, make_ids, shape, forward):
    ids_BT = make_ids(2, 9)
    assert first_sees_last(make_lm("diffusion", shape), forward, ids_BT)
    assert not first_sees_last(make_lm("autoregressive", shape), forward, ids_BT)


def test_a_direction_set_on_the_config_alone_leaves_single_blocks_causal(tiny_dlm, make_ids):
    """The first control: a half-set direction, which a full forward does not show, is seen in single blocks."""
    for block in tiny_dlm.blocks:
        block.self_attn.is_causal = True
    ids_BT = make_ids(2, 9)
    assert first_sees_last(tiny_dlm, full, ids_BT)
    assert not first_sees_last(tiny_dlm, bare, ids_BT)
    set_direction(tiny_dlm.model, causal=False)
    assert first_sees_last(tiny_dlm, bare, ids_BT)


@pytest.mark.parametrize("forward", [full, blockwise])
def test_a_direction_set_on_the_modules_alone_leaves_full_forwards_causal(tiny_dlm, make_ids, forward):
    """The second control: with a wrong config the blocks' own flags do not count."""
    tiny_dlm.model.config.is_causal = True
    ids_BT = make_ids(2, 9)
    assert not first_sees_last(tiny_dlm, forward, ids_BT)
    set_direction(tiny_dlm.model, causal=False)
    assert first_sees_last(tiny_dlm, forward, ids_BT)


def test_padding_does_not_change_the_direction(make_lm, make_ids):
    mask_BT = torch.ones(2, 9, dtype=torch.long)
    mask_BT[:, 4] = 0
    for kind in KINDS:
        assert first_sees_last(
            make_lm(kind), lambda lm, ids_BT: lm.hidden(ids_BT, mask_BT), make_ids(2, 9)
        ) == (kind == "diffusion")


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_one_by_one_equal_the_full_forward(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 8)
    torch.testing.assert_close(blockwise(lm, ids_BT), full(lm, ids_BT), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bare(lm, ids_BT), full(lm, ids_BT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_direction_survives_saving(make_lm, make_ids, tmp_path, kind):
    again = load(make_lm(kind).save(tmp_path / "model"))
    for forward in (full, blockwise, bare):
        assert first_sees_last(again, forward, make_ids(2, 9)) == (kind == "diffusion")


def test_from_folder_sets_the_direction_that_is_asked_for(saved, make_ids, tiny_dlm):
    for causal in (True, False):
        model, _ = from_folder(saved, torch.float32, causal=causal)
        assert first_sees_last(dataclasses.replace(tiny_dlm, model=model), full, make_ids(1, 7)) is not causal


# logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_equals_shifted_logits_of_every_position(make_lm, make_ids, kind, shape):
    lm, ids_BT = make_lm(kind, shape), make_ids(3, 10)
    where_BT = torch.rand(3, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    where_BT[:, 0] = lm.is_diffusion
    logits_BTV = lm.model(ids_BT, use_cache=False).logits
    naive = [
        logits_BTV[row, max(position - 1, 0)]
        for row in range(3)
        for position in range(10)
        if where_BT[row, position]
    ]
    logits_NV = lm.logits_at(ids_BT, where_BT)
    torch.testing.assert_close(logits_NV, torch.stack(naive))
    assert logits_NV.dtype == torch.float32
    unshifted_NV = dataclasses.replace(lm, logits_shifted=False).logits_at(ids_BT, where_BT)
    torch.testing.assert_close(unshifted_NV, logits_BTV[where_BT])
    assert not torch.allclose(unshifted_NV, logits_NV, atol=0.1)


def test_an_autoregressive_model_refuses_position_0(tiny_ar, tiny_dlm, make_ids):
    where_BT = torch.zeros(2, 6, dtype=torch.bool)
    where_BT[1, 0] = True
    with pytest.raises(ValueError, match="does not predict position 0"):
        tiny_ar.logits_at(make_ids(2, 6), where_BT)
    assert len(tiny_dlm.logits_at(make_ids(2, 6), where_BT)) == 1


def test_logits_with_a_cache_equal_logits_without(tiny_ar, make_ids, recwarn):
    from transformers import DynamicCache

    ids_BT, cache = make_ids(2, 9), DynamicCache(config=tiny_ar.model.config)
    logits_BTV = tiny_ar.model(ids_BT, use_cache=False).logits
    for first, last in ((0, 4), (4, 5), (5, 6), (6, 9)):
        torch.testing.assert_close(
            tiny_ar.next_logits(ids_BT[:, first:last], cache), logits_BTV[:, last - 1], atol=1e-4, rtol=1e-4
        )
    assert not [str(warning.message) for warning in recwarn if "deprecated" in str(warning.message)]


def test_a_block_has_seven_prunable_linears_and_a_head_none(tiny_ar):
    for block in tiny_ar.blocks:
        assert {name.split(".")[-1] for name in tiny_ar.linears(block)} == {
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        }
        assert not any(
            linear is tiny_ar.model.get_output_embeddings() for linear in tiny_ar.linears(block).values()
        )


# files


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(make_lm, make_ids, tmp_path, kind, shape):
    lm = make_lm(kind, shape)
    again = load(lm.save(tmp_path / "deep" / "model", note="a card may say more"))
    ids_BT = make_ids(2, 7)
    assert torch.equal(again.hidden(ids_BT), lm.hidden(ids_BT))
    assert again.fingerprint() == lm.fingerprint()
    for field in ("name", "kind", "mask_token_id", "logits_shifted"):
        assert getattr(again, field) == getattr(lm, field)
    assert torch.equal(again.encode("the list of word30"), lm.encode("the list of word30"))
    assert json.loads((tmp_path / "deep" / "model" / CARD).read_text())["note"] == "a card may say more"
    assert not any(parameter.requires_grad for parameter in again.model.parameters())


def test_pruned_zeros_survive_saving(tiny_dlm, tmp_path):
    weight = tiny_dlm.blocks[1].mlp.down_proj.weight
    weight[:, ::2] = 0
    again = load(tiny_dlm.save(tmp_path / "model"))
    assert torch.equal(again.blocks[1].mlp.down_proj.weight == 0, weight == 0)


def test_loading_in_another_dtype_rounds_and_nothing_else(saved, tiny_dlm):
    again = load(saved, "bfloat16")
    assert again.model.dtype == torch.bfloat16
    for name, parameter in tiny_dlm.model.named_parameters():
        assert torch.equal(again.model.get_parameter(name), parameter.to(torch.bfloat16))


def test_saving_never_overwrites(tiny_dlm, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(FileExistsError, match="model exists: choose another name"):
        tiny_dlm.save(tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine"]


def test_a_save_that_fails_leaves_nothing(tiny_dlm, tmp_path):
    with pytest.raises(TypeError):
        tiny_dlm.save(tmp_path / "model", note=object())  # not JSON, noticed after the weights are written
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_an_error_that_lists_them(saved, damage):
    key = "model.layers.1.mlp.up_proj.weight"
    weights = load_file(saved / "model.safetensors")
    if damage == "missing":
        del weights[key]
    elif damage == "unexpected":
        key = "model.layers.7.mlp.up_proj.weight"
        weights[key] = torch.ones(3)
    else:
        weights[key] = torch.ones(3, 3)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{damage}_keys.*{key}"):
        load(saved)


# errors and identity


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    for name in ("smol", tmp_path):
        with pytest.raises(ValueError, match="unknown model .*known names: smol-ar, smol-dlm"):
            load(name)


def test_the_adapted_model_is_no_folder_of_weights():
    with pytest.raises(ValueError, match=r"smol-dlm is a base with an adapter, not a folder: save it"):
        open_checkpoint("smol-dlm")


def test_an_unknown_dtype_lists_the_known_ones(saved):
    with pytest.raises(
        ValueError, match="dtype='float8' is unknown; choose one of float32, bfloat16, float16"
    ):
        load(saved, "float8")


@pytest.mark.parametrize(
    ("kind", "mask", "said"),
    [
        ("causal", None, "kind='causal'"),
        ("diffusion", None, "mask_token_id=None"),
        ("autoregressive", 4, "mask_token_id=4"),
        ("diffusion", 72, "outside the vocabulary of 72"),
        ("diffusion", -1, "outside the vocabulary"),
    ],
)
def test_a_kind_and_a_mask_token_that_do_not_fit_are_refused(tiny_dlm, kind, mask, said):
    with pytest.raises(ValueError, match=said):
        LanguageModel(tiny_dlm.model, tiny_dlm.tokenizer, "wrong", kind, mask, logits_shifted=True)


def test_the_fingerprint_follows_every_weight(tiny_dlm, make_lm):
    original = tiny_dlm.fingerprint()
    assert make_lm("diffusion").fingerprint() == original != make_lm("diffusion", seed=1).fingerprint()
    for parameter in (
        tiny_dlm.blocks[2].mlp.gate_proj.weight,
        tiny_dlm.model.base_model.norm.weight,
        tiny_dlm.model.get_input_embeddings().weight,
    ):
        value = parameter.view(-1)[5].clone()
        parameter.view(-1)[5] = torch.nextafter(value, torch.tensor(9.0))
        assert tiny_dlm.fingerprint() != original
        parameter.view(-1)[5] = value
        assert tiny_dlm.fingerprint() == original
    assert dataclasses.replace(tiny_dlm, model=tiny_dlm.model.to(torch.bfloat16)).fingerprint() != original


# the embedded pair

PROSE = "The water in the river is cold, but the children swim in it every summer, and their parents watch them from the bank."


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_models_are_what_the_table_says(name):
    lm = load(name)
    known = MODELS[name]
    assert (lm.name, lm.kind) == (name, known.kind)
    assert sum(parameter.numel() for parameter in lm.model.parameters()) == known.parameters
    assert lm.tokenizer.convert_ids_to_tokens([embedded.MASK_TOKEN_ID, embedded.START_TOKEN_ID]) == [
        embedded.MASK_TOKEN,
        "<|endoftext|>",
    ]
    ids_BT = torch.cat([torch.tensor([embedded.START_TOKEN_ID]), lm.encode(PROSE)])[None]
    changed_BT = ids_BT.clone()
    changed_BT[0, -1] = 500
    assert torch.equal(lm.hidden(ids_BT)[:, 0], lm.hidden(changed_BT)[:, 0]) is not lm.is_diffusion
    shuffled_BT = torch.cat(
        [
            ids_BT[:, :1],
            ids_BT[:, 1:][:, torch.randperm(ids_BT.shape[1] - 1, generator=torch.Generator().manual_seed(0))],
        ],
        1,
    )
    prose, shuffled = (score(lm, text_BT, draws=16).value.item() for text_BT in (ids_BT, shuffled_BT))
    assert (
        prose < 7 and prose < shuffled - 0.5
    )  # nats per token, 10.8 without any knowledge: word order matters to it


# the table of models


@pytest.mark.parametrize("name", MODELS)
def test_the_table_counts_parameters_as_the_published_shapes_do(name):
    V, D, F, layers, H, G, E, extra = shape_of(MODELS[name])
    if extra == "gpt2":
        count = V * D + 1024 * D + layers * (4 * D * D + 2 * D * F + 9 * D + F) + 2 * D
    else:
        block = (
            2 * H * E * D
            + 2 * G * E * D
            + 3 * D * F
            + 2 * D
            + ("bias" in extra) * (H + 2 * G) * E
            + ("head norm" in extra) * 2 * E
        )
        count = V * D * (1 if "tied" in extra else 2) + layers * block + D
    assert MODELS[name].parameters == count
    assert MODELS[name].bytes == count * {"float32": 4, "bfloat16": 2, "float16": 2}[MODELS[name].stored]


@pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)
def test_a_row_of_the_table_is_whole(row):
    assert row.kind in KINDS and (row.context is None or row.context > 0) and row.licence and row.certainty
    assert row.certainty in (
        "hub card",
        "official repository",
        "third-party code",
        "inferred",
        "measured here",
    )
    assert FAMILIES[row.family].kind in (row.kind, None) and FAMILIES[row.family].logits_shifted in (
        row.logits_shifted,
        None,
    )
    assert row.id not in REFUSED
    if row.kind == "autoregressive":
        assert row.logits_shifted and row.twin is None and row.mask_token_id is None
    else:
        assert MODELS[row.twin].kind == "autoregressive" and row.relation
        assert row.mask_token_id is not None or row.mask_token


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_covered_says_why(name):
    for spelled in (name, f"{name}@main"):
        with pytest.raises(ValueError, match=f"{name} is not covered: it") as caught:
            load(spelled)
        assert REFUSED[name] in str(caught.value)


# the hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache in the hub's own layout and no network: a function that puts a tiny checkpoint there under a name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, case, revision: str = "main", file: str | None = None):
        root, commit = (
            tmp_path / "hub" / f"models--{repository.replace('/', '--')}",
            hashlib.sha1(revision.encode()).hexdigest(),
        )
        parts = write(case, root / "snapshots" / commit, seed=len(revision))
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commit)
        if file:
            (root / "snapshots" / commit / file).parent.mkdir()
            (root / "snapshots" / commit / "model.safetensors").rename(root / "snapshots" / commit / file)
            (root / "snapshots" / commit / "lit_config.json").unlink()
        return parts

    return put


def test_a_hub_id_is_loaded_from_the_hub_s_cache(hub):
    name = "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1"
    hub(name, CASES["a2d qwen2"])
    hub(name, CASES["a2d qwen2"], revision="v2")
    lm, other = load(name), load(f"{name}@v2", "bfloat16")
    assert (lm.name, lm.kind, lm.mask_token_id, lm.logits_shifted) == (name, "diffusion", 5, False)
    assert other.model.dtype == torch.bfloat16 and lm.fingerprint() != load(f"{name}@v2").fingerprint()
    hub("Qwen/Qwen3-0.6B", CASES["qwen3"])
    assert load("Qwen/Qwen3-0.6B").kind == "autoregressive"


def test_one_model_of_smdm_is_taken_from_among_many_with_its_tokenizer(hub):
    shape = dataclasses.replace(CASES["smdm ar"].shape, width=256, head_width=64, layers=1, mlp=64)
    hub(
        "nieshen/SMDM",
        dataclasses.replace(CASES["smdm ar"], shape=shape),
        file="ar_safetensors/ar-19M-10e18.safetensors",
    )
    hub(MODELS["nieshen/SMDM/ar-19M-10e18"].tokenizer, CASES["llama"])
    lm = load("nieshen/SMDM/ar-19M-10e18")
    assert lm.name == "nieshen/SMDM/ar-19M-10e18" and lm.model.config.num_attention_heads == 4
    assert lm.encode("word3 word40").tolist() == [3, 40]
    with pytest.raises(
        embedded.FetchError,
        match="nieshen/SMDM has no file ar_safetensors/ar-170M-100e18.safetensors .that name is inferred",
    ):
        load("nieshen/SMDM/ar-170M-100e18")


def test_a_fact_of_the_table_that_the_files_contradict_is_an_error(hub):
    hub("Dream-org/Dream-v0-Base-7B", CASES["dream"])
    with pytest.raises(FormatError, match="not clear: 151666 says the table of models, 266 says config.json"):
        load("Dream-org/Dream-v0-Base-7B")
    hub("GSAI-ML/LLaDA-1.5", CASES["dream"])
    with pytest.raises(FormatError, match="expected to be of the family 'llada' and looks like 'dream'"):
        load("GSAI-ML/LLaDA-1.5")


def test_without_network_and_cache_the_error_says_what_to_do(hub):
    for name in ("openai-community/gpt2", "openai-community/gpt2@v1"):
        with pytest.raises(
            embedded.FetchError,
            match="openai-community/gpt2 could not be fetched: the hub cannot be reached .* run once with a network, or copy a folder of it here",
        ):
            load(name)


# what a model takes


def test_requirements_of_a_table_row_are_known_without_a_download(hub):
    need = requirements("GSAI-ML/LLaDA-8B-Base", "bfloat16")
    assert (need.parameters, need.download, need.disk, need.memory) == (
        8_015_581_184,
        16_031_162_368,
        16_031_162_368,
        16_031_162_368,
    )
    assert requirements("GSAI-ML/LLaDA-8B-Base").memory == 2 * need.memory
    assert requirements("openai-community/gpt2").disk == 124_439_808 * 4


def test_requirements_of_the_embedded_pair_know_the_cache(tiny_base, tmp_path, monkeypatch):
    parameters = sum(tensor.numel() for tensor in load_file(tiny_base / "model.safetensors").values())
    ar, dlm = requirements("smol-ar", "bfloat16"), requirements("smol-dlm", "bfloat16")
    assert (ar.parameters, ar.download, ar.disk) == (
        parameters,
        0,
        2 * parameters,
    ) and dlm.memory == ar.memory  # an adapter is merged one linear at a time
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "empty"))
    assert (
        requirements("smol-dlm").download == embedded.BASE.wheel_bytes
        and requirements("smol-ar").parameters == 134_515_008
    )


def test_requirements_of_a_folder_come_from_its_headers(hub, tmp_path):
    write(CASES["llada"], tmp_path / "llada")
    need = requirements(tmp_path / "llada")
    weights = {
        name: tensor
        for file in (tmp_path / "llada").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert (need.parameters, need.download) == (sum(tensor.numel() for tensor in weights.values()), 0)
    assert need.disk == sum(tensor.nbytes for tensor in weights.values()) == 2 * need.parameters
    assert (
        need.memory == 4 * need.parameters + max(tensor.nbytes for tensor in weights.values())
        and need.missing == ()
    )
    hub("Qwen/Qwen3-0.6B", CASES["qwen3"])
    assert (requirements("Qwen/Qwen3-0.6B").download, requirements("Qwen/Qwen2.5-7B").download) == (
        0,
        MODELS["Qwen/Qwen2.5-7B"].bytes,
    )


def test_a_machine_that_is_too_small_is_told_before_any_work(hub, saved, monkeypatch):
    monkeypatch.setattr("sinkprune_core.models.hub.available_memory", lambda device: 10_000)
    with pytest.raises(
        RuntimeError,
        match="cannot be loaded here; missing: 0.0 GB of memory for 0.00 billion parameters in float32, and cpu has 0.0 GB available: take a smaller dtype",
    ):
        load(saved)
    monkeypatch.setattr("sinkprune_core.models.hub.available_memory", lambda device: 1 << 40)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(
        RuntimeError,
        match="missing: 15.2 GB of disk in .*hub, which has 0.0 GB free: make room, or set HF_HOME",
    ):
        load("Qwen/Qwen2.5-7B")


def test_memory_is_a_number_of_bytes_and_auto_suits_the_cpu(saved):
    assert 1 << 28 < available_memory() < 1 << 45
    assert load(saved, "auto").model.dtype == torch.float32
