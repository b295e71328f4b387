"""The harness's own tasks on local data: naive numbers."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
from public_formats import BLIMP, write_both

from sinkprune_companion.harness.benchmarks import evaluate
from sinkprune_companion.harness.local_data import wikitext
from sinkprune_companion.harness.local_tasks import local_tasks
from sinkprune_core.evaluation.conditional_likelihood import log_likelihood
from sinkprune_core.evaluation.protocols import Protocol

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_both(tmp_path / "data")


def log_p(lm, text: str) -> float:
    """Return log p of a text after the end-of-text token, one token at a time."""
    ids = [lm.tokenizer.eos_token_id, *lm.tokenizer(text, add_special_tokens=False).input_ids]
    total = 0.0
    for place in range(1, len(ids)):
        logits_V = lm.model(torch.tensor([ids[:place]])).logits[0, -1]
        total += float(logits_V.log_softmax(-1)[ids[place]])
    return total


def bound(lm, text: str, how: Protocol) -> float:
    """Return the estimated log p of a text after the end-of-text token under a diffusion model."""
    return log_likelihood(lm, [(torch.tensor([0]), lm.encode(text))], how).value.mean()


def local(lm, data: Path, tasks: list[str], split: str = "test", **options) -> pd.DataFrame:
    with local_tasks(data, tasks, split) as (names, include):
        return evaluate(lm, names, include=include, **options)


# BLiMP


def test_accuracy_is_that_of_a_naive_loop(tiny_ar, tiny_dlm, folder):
    with pytest.warns(UserWarning, match="2 of the 67 paradigms"):
        frame = local(tiny_ar, folder, ["blimp", "blimp_passive_1"])
    shares = {}
    for name, rows in BLIMP.items():
        right = [log_p(tiny_ar, f" {good}") > log_p(tiny_ar, f" {bad}") for good, bad in rows]
        shares[name] = sum(right) / len(right)
    assert 0 < sum(shares.values()) < 2
    assert frame.task.tolist() == ["blimp_2_of_67", "blimp_passive_1"]
    assert frame.metric.tolist() == ["acc", "acc"] and frame.documents.tolist() == [7, 4]
    assert frame.value.tolist() == pytest.approx([sum(shares.values()) / 2, shares["passive_1"]])

    how = Protocol("count", 8, 8)
    right = [
        bound(tiny_dlm, f" {good}", how) > bound(tiny_dlm, f" {bad}", how) for good, bad in BLIMP["passive_1"]
    ]
    assert local(tiny_dlm, folder, ["blimp_passive_1"], mc_num=8).value.tolist() == [sum(right) / 4]


# WikiText-2


def test_word_perplexity_is_the_naive_one(tiny_ar, folder):
    frame = local(tiny_ar, folder, ["wikitext"])
    found = wikitext(folder)
    texts = [wikitext_detokenizer({"page": page}) for page in found]
    assert len(found) == 2 and all(len(tiny_ar.encode(text)) < 60 for text in texts)
    total = sum(log_p(tiny_ar, text) for text in texts)
    word_count = sum(len(re.split(r"\s+", page)) for page in found)
    byte_count = sum(len(page.encode()) for page in found)
    expected = {
        "word_perplexity": math.exp(-total / word_count),
        "byte_perplexity": math.exp(-total / byte_count),
        "bits_per_byte": -total / byte_count / math.log(2),
    }
    assert frame.metric.tolist() == list(expected) and set(frame.task) == {"wikitext"}
    assert frame.value.tolist() == pytest.approx(list(expected.values()), rel=1e-4)
    assert local(tiny_ar, folder, ["wikitext"], limit=1).documents.tolist() == [1, 1, 1]
