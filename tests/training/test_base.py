"""Training from a base of one's own: tiny Llama, Qwen2 and Qwen3 folders become diffusion models by one command."""

import json

import pytest
import torch

from sinkprune_core import corpus
from sinkprune_core.cli.main import main
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.embedded import merge_adapter
from sinkprune_core.models.language_model import load, set_direction
from sinkprune_core.models.random_weights import CASES, case_of, stand_in, write
from sinkprune_core.training.base import mask_token_of, open_base
from sinkprune_core.training.lora import Training, train

BASES = {
    "llama": "meta-llama/Llama-3.1-8B",
    "qwen2": "Qwen/Qwen2.5-7B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "gpt2": "openai-community/gpt2",
}
SHORT = [
    "--length",
    "16",
    "--batch",
    "8",
    "--rank",
    "4",
    "--learning-rate",
    "0.02",
    "--tokens",
    "15360",
    "--decay-share",
    "0.5",
]


@pytest.fixture
def text(tmp_path):
    """A file of 60 different paragraphs that are easy to learn: each counts on in syllables from its number."""
    file, syllables = tmp_path / "corpus.txt", [first + second for first in "bdfgk" for second in "aeiou"]
    file.write_text(
        "\n\n".join(
            " ".join(syllables[(start + step * (1 + start % 3)) % 25] for step in range(30))
            for start in range(60)
        )
    )
    return file


@pytest.fixture
def base(tmp_path):
    """A function that writes the tiny stand-in of a family and returns its folder."""
    return lambda family: stand_in(MODELS[BASES[family]], tmp_path / f"tiny-{family}")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_one_command_makes_a_diffusion_model_that_learns_loads_and_prunes(
    family, base, text, tmp_path, capsys
):
    folder, out, run = base(family), tmp_path / "made", tmp_path / "run"
    assert (
        main(["train", str(folder), "--text", str(text), *SHORT, "--folder", str(run), "--export", str(out)])
        == 0
    )
    dlm, log = load(out), [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert (dlm.kind, dlm.name, dlm.logits_shifted, dlm.mask_token_id) == (
        "diffusion",
        f"tiny-{family}-dlm",
        True,
        257,
    )  # the first row of the embedding without a token
    assert log[-1]["tokens"] == 15360 and set(log[-1]) >= {"train_nelbo", "nelbo_text", "sinks_overlap"}

    held_out_NT = corpus.pack(
        [part for part in corpus.paragraphs(text.read_text()) if corpus.is_held_out(part)], dlm.tokenizer, 16
    )
    untrained = open_base(str(folder))
    model, tokenizer = untrained.load(torch.float32)
    before = score(
        type(dlm)(set_direction(model, causal=False), tokenizer, "before", "diffusion", 257, True),
        held_out_NT,
        4,
        0,
    ).value.mean()
    after = score(dlm, held_out_NT, 4, 0).value.mean()
    assert after < before - 0.2, (before, after)
    assert f"tiny-{family} as a masked diffusion language model" in (out / "README.md").read_text()
    assert not [
        file.name for file in out.iterdir() if str(tmp_path).encode() in file.read_bytes()
    ]  # no word of where things lay

    pruned = tmp_path / "pruned"
    assert (
        main(
            [
                "prune",
                str(out),
                "--preset",
                "unstable",
                "--text",
                str(text),
                "--sequences",
                "4",
                "--length",
                "16",
                "--set",
                "levels=2",
                "--out",
                str(pruned),
            ]
        )
        == 0
    )
    assert load(pruned).mask_token_id == 257


def test_the_made_model_is_the_base_with_the_adapter_added(base, text, tmp_path):
    folder, out, run = base("qwen3"), tmp_path / "made", tmp_path / "run"
    main(["train", str(folder), "--text", str(text), *SHORT, "--folder", str(run), "--export", str(out)])
    model, _ = open_base(str(folder)).load(torch.float32)
    before = model.model.layers[0].mlp.down_proj.weight.clone()
    merged = merge_adapter(model, run / "checkpoint", torch.bfloat16)
    found = load(out).model
    for name, parameter in merged.named_parameters():
        assert torch.equal(found.get_parameter(name), parameter.float()), name
    assert not torch.allclose(found.model.layers[0].mlp.down_proj.weight, before, atol=1e-3)


def test_the_twin_of_another_base_stays_causal(base, text, tmp_path):
    out = tmp_path / "made"
    assert (
        main(
            [
                "train",
                str(base("llama")),
                "--kind",
                "autoregressive",
                "--text",
                str(text),
                *SHORT,
                "--folder",
                str(tmp_path / "run"),
                "--export",
                str(out),
            ]
        )
        == 0
    )
    twin = load(out)
    assert (twin.kind, twin.name, twin.mask_token_id, twin.model.config.is_causal) == (
        "autoregressive",
        "tiny-llama-ar-adapted",
        None,
        True,
    )
    assert (
        "trained on" in (out / "README.md").read_text()
        and "mask token" not in (out / "README.md").read_text()
    )


def test_a_killed_run_of_another_base_goes_on(base, text, tmp_path):
    folder, run, words = str(base("llama")), tmp_path / "run", text.read_text()
    config = {"base": folder, "samples": 0, "length": 16, "batch": 8, "rank": 4, "alpha": 8}
    train(Training(**config, tokens=1024), run, check_every=4, text=words)
    train(Training(**config, tokens=2048), run, check_every=4, text=words)
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [
        4,
        8,
        12,
        16,
    ]
    with pytest.raises(ValueError, match="was made with another held-out split or text: use another folder"):
        train(Training(**config, tokens=4096), run, text=words + "\n\nmore of it")
    with pytest.raises(ValueError, match=r"other settings \(base\)"):
        train(Training(**{**config, "base": "elsewhere"}, tokens=4096), run, text=words)


def test_what_cannot_be_a_base_is_refused_before_any_work(base, text, tmp_path, capsys):
    write(CASES["dream"], tmp_path / "dream")

    def said(base, *arguments, length=16) -> str:
        assert (
            main(
                [
                    "train",
                    str(base),
                    *map(str, arguments),
                    "--length",
                    str(length),
                    "--text",
                    str(text),
                    *SHORT[2:],
                    "--folder",
                    str(tmp_path / "run"),
                ]
            )
            == 1
        )
        assert not (tmp_path / "run" / "data.safetensors").exists()
        return capsys.readouterr().err

    assert "is of type 'gpt2': the adapter knows the linears of llama, qwen2, qwen3" in said(base("gpt2"))
    assert "is a diffusion model already" in said(tmp_path / "dream")
    assert "mask_token='nothing' is neither a token of the vocabulary nor a number below 288" in said(
        base("llama"), "--mask-token", "nothing"
    )
    assert "length=2000 exceeds the 1024 positions" in said(base("llama"), length=2000)
    assert "samples=5 are drawn from smol-ar only" in str(
        pytest.raises(ValueError, Training, base="elsewhere", samples=5).value
    )
    assert "smol-ar has its own" in str(pytest.raises(ValueError, Training, mask_token="<mask>").value)
    taken = tmp_path / "taken"
    taken.mkdir()
    assert f"--export {taken} exists" in said(base("llama"), "--export", taken)
    text.write_text("Too short.")
    assert "too few for one sequence of 16" in said(base("llama"))


def test_the_mask_is_a_token_that_no_text_produces(base, tmp_path):
    class Vocabulary(dict):
        mask_token_id = None
        get_vocab = dict.copy

    words = Vocabulary(
        {"<s>": 0, "<|reserved_special_token_1|>": 3, "<|reserved_special_token_0|>": 2, "a": 1}
    )
    assert mask_token_of(words, 6) == 4  # rows of the embedding without a token come before reserved ones
    assert mask_token_of(words, 4) == 2
    assert mask_token_of(words, 6, "a") == 1 and mask_token_of(words, 6, "5") == 5
    with pytest.raises(ValueError, match="mask_token='6' is neither"):
        mask_token_of(words, 6, "6")
    words.mask_token_id = 1
    assert mask_token_of(words, 6) == 1
    with pytest.raises(ValueError, match="no token of the 2 is a mask, reserved or unused"):
        mask_token_of(Vocabulary({"a": 0, "b": 1}), 2)
    tokenizer = open_base(str(base("llama"))).checkpoint.tokenizer()
    assert (
        257 not in tokenizer("any text, with ÄÖ and 漢字 too").input_ids
        and case_of(MODELS[BASES["llama"]]).shape.vocabulary == 288
    )


def test_paragraphs_without_latin_words_are_split_too():
    shares = [corpus.is_held_out("漢" * count) for count in range(1, 200)]
    assert 5 < sum(shares) < 60
