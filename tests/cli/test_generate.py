"""`sinkprune generate` writes what Python writes, as the model's family does."""

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write

from sinkprune import load
from sinkprune.cli import main
from sinkprune.cli.generate import sampler_of, written
from sinkprune.models.saving import save
from sinkprune_core import Sampler, generate
from sinkprune_core.diffusion.sampling import decode

PROMPT = "word21 word22 word23"
LINE = ("--prompt", PROMPT, "--tokens", "6", "--dtype", "float32", "--device", "cpu")


def test_a_diffusion_model_fills_masks(model, capsys):
    assert main.main(["generate", str(model), *LINE, "--steps", "3"]) == 0
    found = capsys.readouterr()
    lm = load(model)
    prompt_T = lm.encode(PROMPT)
    sampler = Sampler(6, 3, None, order="low_confidence", schedule="even")
    [ids_T] = generate(lm, prompt_T[None], sampler)
    assert found.out == PROMPT + written(lm, ids_T[len(prompt_T) :]) + "\n"
    assert "float32 on cpu" in found.err and "3 steps, order low_confidence" in found.err


def test_a_chat_is_written_in_the_template_of_the_model(tiny_ar, tmp_path, refused, capsys):
    bare = save(tiny_ar, tmp_path / "bare")
    capsys.readouterr()
    assert "--chat: the tokenizer of tiny-autoregressive has no chat template" in refused(
        "generate", bare, *LINE, "--chat"
    )

    tiny_ar.tokenizer.chat_template = "<|im_start|> {{ messages[0].content }} <|im_end|> assistant"
    folder = save(tiny_ar, tmp_path / "ar")
    capsys.readouterr()
    assert main.main(["generate", str(folder), *LINE, "--chat"]) == 0

    prompt_T = tiny_ar.encode(f"<|im_start|> {PROMPT} <|im_end|> assistant")
    [ids_T] = decode(tiny_ar, prompt_T[None], 6)
    assert capsys.readouterr().out == written(tiny_ar, ids_T[len(prompt_T) :]) + "\n"


def test_another_seed_writes_another_text_above_temperature_0(model, capsys):
    def text(*options: str) -> str:
        assert main.main(["generate", str(model), *LINE, *options]) == 0
        return capsys.readouterr().out

    assert text() == text()
    warm = ("--temperature", "2")
    assert text(*warm) == text(*warm)
    assert len({text(*warm, "--seed", str(seed)) for seed in range(4)}) > 1


def test_an_autoregressive_model_writes_token_by_token(tiny_ar, tmp_path, refused, capsys):
    folder = save(tiny_ar, tmp_path / "ar")
    capsys.readouterr()

    assert main.main(["generate", str(folder), *LINE]) == 0
    found = capsys.readouterr()

    prompt_T = tiny_ar.encode(PROMPT)
    [ids_T] = decode(tiny_ar, prompt_T[None], 6)
    assert found.out == PROMPT + written(tiny_ar, ids_T[len(prompt_T) :]) + "\n"

    said = refused("generate", folder, *LINE, "--steps", 3)
    assert "--steps 3 does nothing here: tiny-autoregressive is autoregressive" in said


def test_the_family_decides_how_it_is_written(model, tmp_path):
    llada = sampler_of(load(model), 64, 32, 0.0)
    assert (llada.order, llada.schedule, llada.block) == ("low_confidence", "even", 32)
    assert sampler_of(load(model), 50, 50, 0.0).block is None, "32 does not divide 50"
    write(CASES["dream"], tmp_path / "dream")
    dream = sampler_of(load(tmp_path / "dream"), 64, 32, 0.5)
    assert (dream.order, dream.schedule, dream.block, dream.temperature) == ("entropy", "time", None, 0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tokens", "4", "--steps", "5"), "--steps 5 are more than --tokens 4"),
        (("--prompt", "  "), "--prompt"),
        (("--seed", "1"), "--seed 1 does nothing here: at --temperature 0 nothing is drawn"),
        (("--tokens", "0"), "--tokens"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(options, said, model, refused):
    line = ["--prompt", PROMPT] if "--prompt" not in options else []
    assert said in refused("generate", model, *line, *options)


def test_nothing_is_written_after_the_end_of_text(tiny_ar):
    end = tiny_ar.tokenizer.eos_token_id
    ids_L = torch.tensor([21, 22, 23])
    assert end is None or written(tiny_ar, torch.tensor([21, 22, end, 23])) == written(tiny_ar, ids_L[:2])
