"""Training from another base: tiny Llama, Qwen2 and Qwen3 folders become diffusion models by one command."""

from pathlib import Path

import pytest
import torch
from random_models.cases import CASES
from random_models.texts import LEARN
from random_models.writing import write

from sinkprune import corpus, load, score
from sinkprune.cli.main import main
from sinkprune_companion.experiments.stand_ins import stand_in
from sinkprune_companion.training.base import SHAPE, mask_token_of, open_base
from sinkprune_companion.training.settings import LOW_NOISE
from sinkprune_core import LanguageModel
from sinkprune_core.language_model import set_direction

pytestmark = pytest.mark.slow

BASES = {
    "llama": "meta-llama/Llama-3.1-8B",
    "qwen2": "Qwen/Qwen2.5-7B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "gpt2": "openai-community/gpt2",
}
MASK_TOKEN_ID = 257  # of the stand-ins: the first row of the embedding without a token
SHORT = {
    "--lengths": "8,16",
    "--batch-tokens": "128",
    "--rank": "4",
    "--learning-rate": "0.02",
    "--tokens": "15360",
    "--decay-share": "0.5",
}


@pytest.fixture
def text(tmp_path):
    """A file of 60 different paragraphs that are easy to learn: each counts in syllables from its number."""
    syllables = [first + second for first in "bdfgk" for second in "aeiou"]
    paragraphs = []
    for start in range(60):
        stride = 1 + start % 3
        paragraphs.append(" ".join(syllables[(start + step * stride) % 25] for step in range(30)))
    file = tmp_path / "corpus.txt"
    file.write_text("\n\n".join(paragraphs))
    return file


@pytest.fixture
def base(tmp_path):
    """A function that writes the tiny stand-in of a family and returns its folder."""

    def write_base(family: str) -> Path:
        folder = tmp_path / f"tiny-{family}"
        if not folder.exists():
            stand_in(BASES[family], tmp_path).rename(folder)
        return folder

    return write_base


@pytest.fixture
def run_train(text, tmp_path):
    """A function that trains a base by the command line in the folder `run`, and returns the exit status."""

    def run(base, *arguments: object, **changes: str) -> int:
        options = {"--text": str(text), "--folder": str(tmp_path / "run"), **SHORT}
        options |= {f"--{name}": value for name, value in changes.items()}
        given = [word for option in options.items() for word in option]
        return main(["train", str(base), *map(str, arguments), *given])

    return run


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_one_command_makes_a_diffusion_model_that_learns_loads_and_prunes(
    family, base, text, run_train, rows_of, tmp_path
):
    folder, out = base(family), tmp_path / "made"
    tokens = 15360 if family == "llama" else 1280  # others are exported and read alike
    assert run_train(folder, "--export", out, tokens=str(tokens)) == 0
    dlm = load(out)
    assert dlm.kind == "diffusion"
    assert dlm.name == f"tiny-{family}-dlm"
    assert dlm.logits_shifted is True
    assert dlm.mask_token_id == MASK_TOKEN_ID
    last = rows_of(out / "training_log.jsonl")[-1]
    assert last["tokens"] == tokens
    assert set(last) >= {"train_nelbo", "nelbo_text_crops", "nelbo_text_beginnings"}

    held_out = [part for part in corpus.paragraphs(text.read_text()) if corpus.is_held_out(part)]
    held_out_NT = corpus.pack(held_out, dlm.tokenizer, 16)
    model = set_direction(open_base(str(folder)).checkpoint.load(torch.float32), causal=False)
    untrained = LanguageModel(model, dlm.tokenizer, "before", "diffusion", MASK_TOKEN_ID, True)
    before, after = (score(lm, held_out_NT, 4, 0).value.mean() for lm in (untrained, dlm))
    assert after < before - (0.2 if family == "llama" else 0)
    assert f"tiny-{family} as a masked diffusion language model" in (out / "README.md").read_text()
    told = [file.name for file in out.iterdir() if str(tmp_path).encode() in file.read_bytes()]
    assert not told, "no file says where things lay"

    pruned = tmp_path / "pruned"
    command = ["prune", str(out), "--preset", "unstable", "--text", str(text), "--sequences", "4"]
    command += ["--length", "16", "--set", "noise_levels=2", "--out", str(pruned)]
    assert main(command) == 0
    assert load(pruned).mask_token_id == MASK_TOKEN_ID
    with pytest.raises(ValueError, match="is pruned, and training makes it dense"):
        open_base(str(pruned))


def test_a_run_that_stays_autoregressive_needs_no_token_for_a_mask(run_train, text, tmp_path, capsys):
    base = tmp_path / "base"
    write(CASES["llama"], base)  # each of its tokens is a word
    text.write_text(LEARN)
    assert run_train(base, "--export", tmp_path / "dlm", tokens="320") == 1
    assert "name one that no text contains with --mask-token" in capsys.readouterr().err

    assert run_train(base, "--kind", "autoregressive", "--export", tmp_path / "ar", tokens="320") == 0
    assert load(tmp_path / "ar").kind == "autoregressive"


def test_from_scratch_a_model_has_a_vocabulary_of_its_own_text(tiny_base, text, short, tmp_path):
    options = {
        **SHORT,
        "--tokens": 1280,
        "--text": text,
        "--folder": tmp_path / "run",
        "--export": tmp_path / "made",
    }

    words = [str(word) for option in options.items() if option[0] != "--rank" for word in option]
    assert main(["train", "--from-scratch", *words]) == 0

    dlm = load(tmp_path / "made")
    assert dlm.kind == "diffusion" and dlm.logits_shifted is False
    assert len(dlm.tokenizer) <= dlm.mask_token_id == SHAPE["vocab_size"] - 1

    settings = short(from_scratch=True, tokens=1_000_000, lengths=(512,), batch_tokens=384_000)
    assert [settings.noise_level(step) for step in range(settings.steps)] == [LOW_NOISE] * 2 + [None]

    with pytest.raises(ValueError, match="base='other' does nothing from scratch"):
        short(from_scratch=True, base="other")


class Vocabulary(dict):
    """A tokenizer, for what `mask_token_of` asks of one."""

    mask_token_id = None
    get_vocab = dict.copy


def test_the_mask_is_a_token_that_no_text_produces(base):
    words = Vocabulary({"<s>": 0, "<|reserved_token_1|>": 3, "<|reserved_token_0|>": 2, "a": 1})

    assert mask_token_of(words, 6) == 4  # rows of the embedding without a token come before reserved ones
    assert mask_token_of(words, 4) == 2
    assert mask_token_of(words, 6, "a") == 1 and mask_token_of(words, 6, "5") == 5

    with pytest.raises(ValueError, match="mask_token='6' is neither"):
        mask_token_of(words, 6, "6")

    words.mask_token_id = 1
    assert mask_token_of(words, 6) == 1

    with pytest.raises(ValueError, match="no token of the 2 is a mask, reserved or unused"):
        mask_token_of(Vocabulary({"a": 0, "b": 1}), 2)
    assert mask_token_of(Vocabulary({"a": 0, "b": 1}), 2, is_needed=False) is None

    tokenizer = open_base(str(base("llama"))).checkpoint.tokenizer()
    assert MASK_TOKEN_ID not in tokenizer("any text, with ÄÖ and 漢字 too").input_ids
