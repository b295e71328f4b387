"""Tiny random models in the real format: seeded weights, word tokenizer, attention sharp enough for sinks."""

import os
from contextlib import contextmanager

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sinkprune.files import write_digests
from sinkprune.models.embedded import BASE, MASK_TOKEN, MASK_TOKEN_ID, START_TOKEN_ID, base_folder
from sinkprune.models.gpt2 import GPT2LMHeadModel
from sinkprune.runs.resume import ResumedRun
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel, set_direction

SPECIAL = 17  # special entries, as in the real vocabulary
VOCABULARY = 72  # with 55 words: the sampler's top 50 must exist
GROUPED = {"hidden_size": 24, "intermediate_size": 48}  # inputs in groups of 3, 4 and 8
SHAPES = {
    "gqa": {"hidden_size": 32, "intermediate_size": 45, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mha": {"hidden_size": 36, "intermediate_size": 40, "num_attention_heads": 3, "num_key_value_heads": 3},
    "gqa-24": {**GROUPED, "num_attention_heads": 6, "num_key_value_heads": 2},
    "mha-24": {**GROUPED, "num_attention_heads": 3, "num_key_value_heads": 3},
}
COMMON = {
    "vocab_size": VOCABULARY,
    "bos_token_id": START_TOKEN_ID,
    "eos_token_id": START_TOKEN_ID,
    "attn_implementation": "sdpa",
}
ANY_FAMILY = {  # sizes that the configurations of all families of transformers know
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": None,
}

torch.set_num_threads(1)  # models of this size only lose time to threads
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so they do in the commands that tests start


def pytest_collection_modifyitems(items):
    """Put files with slow tests first, so that no core waits at the end for one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores: while a test waits for a process, another one runs."""
    return (os.cpu_count() or 1) + 1


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of one word per token; what it does not know becomes the document separator."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", MASK_TOKEN]
    special += [f"<special{index}>" for index in range(len(special), SPECIAL)]

    words = ["assistant", "the", "of", "is", "a", "list", "file", "return", "object", "value"]
    words += [f"word{index}" for index in range(len(special) + len(words), VOCABULARY)]

    vocabulary = {word: index for index, word in enumerate(special + words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=special[0], eos_token=special[0])


def random_model(cls: type, config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """Return a model with random weights, gains and biases, float32."""
    torch.manual_seed(seed)
    model = cls(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name or name.endswith("bias"):  # 1 and 0 would hide what is left out
            mean = 0 if "bias" in name else 1
            parameter.copy_(mean + 0.2 * torch.randn(parameter.shape))
    return model


def tiny_llama(shape: str, seed: int, layers: int = 3, sharpness: float = 0.35) -> LlamaForCausalLM:
    """Return a Llama with random weights. `sharpness` is their standard deviation."""
    fields = {**COMMON, **SHAPES[shape], "num_hidden_layers": layers, "initializer_range": sharpness}
    config = LlamaConfig(**fields, max_position_embeddings=64, tie_word_embeddings=True)
    return random_model(LlamaForCausalLM, config, seed)


def tiny_of_family(family: str, seed: int, layers: int = 2, sharpness: float = 0.35) -> PreTrainedModel:
    """Return a random model of llama-mha, llama-gqa, llama-biased, qwen2, qwen3, gpt2 or gpt2-wide.

    Its linears have 24 or 48 inputs.
    """
    if family in ("llama-mha", "llama-gqa"):
        return tiny_llama(family.removeprefix("llama-") + "-24", seed, layers, sharpness)

    fields = {**COMMON, "initializer_range": sharpness}
    if family.startswith("gpt2"):
        inner = None if family == "gpt2-wide" else 48  # None: four times the width
        config = GPT2Config(**fields, n_layer=layers, n_positions=64, n_embd=24, n_inner=inner, n_head=3)
        return random_model(GPT2LMHeadModel, config, seed)

    fields |= {**SHAPES["gqa-24"], "num_hidden_layers": layers, "max_position_embeddings": 64}
    if family == "llama-biased":
        return random_model(LlamaForCausalLM, LlamaConfig(**fields, attention_bias=True, mlp_bias=True), seed)
    if family == "qwen2":
        return random_model(Qwen2ForCausalLM, Qwen2Config(**fields, tie_word_embeddings=True), seed)
    return random_model(Qwen3ForCausalLM, Qwen3Config(**fields, head_dim=8), seed)


def tiny_lm(kind: str, shape: str = "gqa", seed: int = 0, **options) -> LanguageModel:
    """Return a tiny model of a kind; equal arguments give equal weights, so both kinds share theirs."""
    return of_kind(kind, tiny_llama(shape, seed, **options), f"tiny-{kind}")


def of_kind(kind: str, model: PreTrainedModel, name: str) -> LanguageModel:
    """Return a model with the direction and the mask token of a kind, and the word tokenizer."""
    model = set_direction(model, causal=kind == "autoregressive")
    mask_token_id = MASK_TOKEN_ID if kind == "diffusion" else None
    return LanguageModel(model, word_tokenizer(), name, kind, mask_token_id, logits_shifted=True)


def anchored(lm: LanguageModel) -> LanguageModel:
    """Give `lm` one sink that never moves: every query of every head looks at the document separator.

    Two directions of the residual stream are reserved: one that every token has and queries read, one that
    only the separator has and keys read. Both use the slowest rotary frequency: distance does not matter.
    """
    embedding_VD = lm.model.get_input_embeddings().weight
    embedding_VD[:, 0] = 3.0
    embedding_VD[:, 1] = 0.0
    embedding_VD[START_TOKEN_ID, 1] = 3.0

    for block in lm.blocks:
        attention, width = block.self_attn, block.self_attn.head_dim
        for projection, direction in ((attention.q_proj, 0), (attention.k_proj, 1)):
            slowest = slice(width // 2 - 1, None, width)
            projection.weight[slowest] = 0.0
            projection.weight[slowest, direction] = 60.0

        for projection in (attention.o_proj, block.mlp.down_proj):
            projection.weight[:2] = 0.0

    return lm


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a tiny checkpoint in LLaDA's public format."""
    folder = tmp_path_factory.mktemp("checkpoint") / "llada"
    write(CASES["llada"], folder)
    return folder


@pytest.fixture(scope="session")
def make_anchored_lm():
    """A function that builds a tiny model whose only sink is the document separator, at every step."""

    def make(kind: str, shape: str = "gqa", **options) -> LanguageModel:
        return anchored(tiny_lm(kind, shape, **options))

    return make


@pytest.fixture(scope="session")
def make_lm():
    """The function that builds tiny models, for tests that want several or another shape."""
    return tiny_lm


@pytest.fixture(scope="session")
def make_family():
    """A function that builds a tiny model of a family: other blocks, other layouts of weights."""

    def make(family: str, kind: str = "diffusion", seed: int = 0, **options) -> LanguageModel:
        return of_kind(kind, tiny_of_family(family, seed, **options), f"tiny-{family}-{kind}")

    return make


@pytest.fixture(scope="session")
def make_ids():
    """A function that draws token ids of words, int64 (rows, length): no mask, no other special token."""

    def make(rows: int, length: int, seed: int = 0) -> torch.Tensor:
        rng = torch.Generator().manual_seed(seed)
        return torch.randint(SPECIAL, VOCABULARY, (rows, length), generator=rng)

    return make


@pytest.fixture(scope="session")
def make_text_with_separators(make_ids):
    """A function that draws calibration text with a document separator in every row: a sink of an anchored
    model at every noise level where it is not masked.
    """

    def make(rows: int) -> Calibration:
        ids_NT = make_ids(rows, 24)
        ids_NT[:, 5] = 0
        return Calibration(ids_NT, seed=1, batch=2)

    return make


@pytest.fixture
def calibration(make_ids) -> Calibration:
    """Text on which no score is closer to a threshold than 1e-5 of its value: rounding decides nothing."""
    return Calibration(make_ids(5, 24, seed=7), seed=3, batch=4)


@pytest.fixture
def short_text(make_ids) -> Calibration:
    return Calibration(make_ids(5, 12, seed=7), seed=3, batch=4)


@pytest.fixture
def tiny_ar() -> LanguageModel:
    return tiny_lm("autoregressive")


@pytest.fixture
def tiny_dlm() -> LanguageModel:
    return tiny_lm("diffusion")


@pytest.fixture(scope="session")
def killed_at():
    """A function that returns a context in which a pruning run is killed before a block is written.

    The context fails where no run was killed.
    """

    @contextmanager
    def kill(layer: int):
        finish = ResumedRun.finish

        def die(run, at):
            if at == layer:
                raise KeyboardInterrupt
            finish(run, at)

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(ResumedRun, "finish", die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return kill


@pytest.fixture
def tiny_base(tiny_ar, tmp_path, monkeypatch):
    """The folder of a tiny model, in bfloat16, that lies in an empty cache in place of the embedded base."""
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / f"smollm2-135m-instruct-{BASE.member_sha256[:12]}"
    tiny_ar.model.to(torch.bfloat16).save_pretrained(folder)
    tiny_ar.tokenizer.save_pretrained(folder)
    write_digests(folder)
    assert base_folder() == folder
    return folder
