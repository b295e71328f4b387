"""The project's own items: fair to baselines that do not read, and scored as formulas say."""

import dataclasses
import importlib.util
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkprune.corpus import documentation
from sinkprune.evaluation import suite
from sinkprune.evaluation.suite import GROUPS, TASKS, items
from sinkprune.evaluation.two_choice import accuracy

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "suite_builder.py"
spec = importlib.util.spec_from_file_location("suite_builder", SCRIPT)
suite_builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(suite_builder)

ITEMS = items()
PAIRS = list(zip(ITEMS[::2], ITEMS[1::2], strict=True))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


def sentence(item: dict, choice: int | None = None) -> str:
    return f"{item['context']} {item['choices'][item['answer'] if choice is None else choice]}"


@pytest.fixture(scope="module")
def make_suite_lm(make_lm):
    """A function that builds a tiny model whose tokens are the words of the suite."""
    pieces = pre_tokenizers.Whitespace()
    vocabulary = sorted(
        {
            word
            for item in ITEMS
            for choice in (0, 1)
            for word, _ in pieces.pre_tokenize_str(sentence(item, choice))
        }
    )

    def make(kind: str):
        lm = make_lm(kind)
        names = [f"<{index}>" for index in range(17)] + vocabulary
        inner = Tokenizer(
            models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[0])
        )
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        lm.model.resize_token_embeddings(len(names), mean_resizing=False)
        lm.model.get_input_embeddings().weight.copy_(
            0.35 * torch.randn(len(names), 32, generator=torch.Generator().manual_seed(0))
        )
        lm.model.requires_grad_(False)
        return dataclasses.replace(
            lm,
            tokenizer=PreTrainedTokenizerFast(
                tokenizer_object=inner, unk_token=names[0], eos_token=names[0], pad_token=names[0]
            ),
        )

    return make


# what is shipped


@pytest.mark.parametrize("group", GROUPS)
def test_the_committed_items_are_what_the_script_writes(group):
    built = suite_builder.as_jsonl(suite_builder.build(group))
    assert (TASKS / f"{group}.jsonl").read_text(encoding="utf-8") == built


def test_two_items_in_a_row_are_a_pair_in_which_each_ending_is_right_once():
    for first, second in PAIRS:
        assert all(first[key] == second[key] for key in ("group", "pair", "template"))
        assert first["choices"] == second["choices"] and len(set(first["choices"])) == 2
        assert (first["answer"], second["answer"]) == (0, 1) and first["context"] != second["context"]


def test_no_sentence_comes_twice():
    right = Counter(sentence(item) for item in ITEMS)
    assert right.most_common(1)[0][1] == 1
    wrong = {sentence(item, 1 - item["answer"]) for item in ITEMS}
    assert not set(right) & wrong


# what does not read gets half


def share_right(choose, items=ITEMS) -> float:
    """Return the share of items that `choose(item) -> score of each choice` gets right, half for a tie."""
    right = 0.0
    for item in items:
        score, answer = choose(item), item["answer"]
        if score[0] == score[1]:
            right += 0.5
        else:
            right += score[answer] > score[1 - answer]
    return right / len(items)


def test_what_looks_at_endings_alone_is_right_in_exactly_half():
    own = Counter(word for item in ITEMS for choice in (0, 1) for word in words(sentence(item, choice)))
    right = Counter(word for item in ITEMS for word in words(item["choices"][item["answer"]]))
    technical = Counter(word for paragraph in documentation("stdlib") for word in words(paragraph))
    frequency = {"own": own, "right": right, "documentation": technical}
    assert share_right(lambda item: [len(choice) for choice in item["choices"]]) == 0.5
    assert share_right(lambda item: [len(words(choice)) for choice in item["choices"]]) == 0.5
    assert share_right(lambda item: [1, 0]) == 0.5
    for counts in frequency.values():
        total = sum(counts.values())
        for power in (1, 0):  # summed over words, and per word

            def unigram(item, counts=counts, total=total, power=power):
                logs = [
                    [math.log((counts[word] + 1) / total) for word in words(choice)]
                    for choice in item["choices"]
                ]
                return [sum(values) / len(values) ** (1 - power) for values in logs]

            assert share_right(unigram) == 0.5


# scores


def log_p(lm, input_ids: list[int], target: list[int], positions: list[int]) -> list[float]:
    """Return log-probabilities of `target` at `positions`, from whole logits, which are shifted."""
    logits_TV = lm.model(torch.tensor([input_ids]), use_cache=False).logits[0].double()
    return [float(logits_TV[position - 1].log_softmax(-1)[target[position]]) for position in positions]


def first_of_every_group(count: int) -> list[dict]:
    chosen = []
    for group in GROUPS:
        chosen += [item for item in ITEMS if item["group"] == group][:count]
    return chosen


def test_autoregressive_margins_by_the_chain_rule(make_suite_lm):
    lm, chosen = make_suite_lm("autoregressive"), first_of_every_group(6)
    frame = accuracy(lm, chosen)

    for row, item in zip(frame.itertuples(), chosen, strict=True):
        start = len(lm.encode(item["context"]))
        values = []

        for choice in (0, 1):
            ids = lm.encode(sentence(item, choice)).tolist()
            values.append(log_p(lm, ids, ids, list(range(start, len(ids)))))

        right, wrong = values[item["answer"]], values[1 - item["answer"]]
        assert row.margin == pytest.approx(sum(right) - sum(wrong), abs=1e-3)
        assert row.margin_mean == pytest.approx(sum(right) / len(right) - sum(wrong) / len(wrong), abs=1e-3)
        assert row.correct == (row.margin > 0) and row.correct_mean == (row.margin_mean > 0)
        assert (row.group, row.pair, row.template) == (item["group"], item["pair"], item["template"])

    assert frame.correct.nunique() == 2


def mean_over_all_maskings(lm, text: str, start: int) -> float:
    """Return the log-likelihood of an ending, over every number of masks alike and every set of so many."""
    ids = lm.encode(text).tolist()
    by_count = []

    for count in range(1, len(ids) - start + 1):
        means = []
        for masked in itertools.combinations(range(start, len(ids)), count):
            corrupted = list(ids)
            for position in masked:
                corrupted[position] = lm.mask_token_id
            means.append(sum(log_p(lm, corrupted, ids, list(masked))) / count)

        by_count.append(sum(means) / len(means))
    return sum(by_count)  # tokens x mean over counts


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_ending_without_tokens_is_refused_before_any_work(kind, place, make_lm):
    lm = make_lm(kind)
    choices = ["word30", "word31"]
    choices[place] = ""

    item = {
        "group": "facts",
        "pair": 7,
        "template": 0,
        "context": "the list",
        "choices": choices,
        "answer": 0,
    }

    with pytest.raises(
        ValueError, match="an ending of pair 7 in group 'facts', '', has no tokens of its own"
    ):
        accuracy(lm, [item])


def test_diffusion_margins_estimate_the_mean_over_all_maskings(make_suite_lm):
    lm = make_suite_lm("diffusion")

    def is_short(item) -> bool:
        return all(2 <= len(lm.encode(choice)) <= 3 for choice in item["choices"])

    chosen = [item for item in first_of_every_group(40) if is_short(item)][:6]
    assert len(chosen) == 6
    expected = []
    for item in chosen:
        start = len(lm.encode(item["context"]))
        totals = [mean_over_all_maskings(lm, sentence(item, choice), start) for choice in (0, 1)]
        expected.append(totals[item["answer"]] - totals[1 - item["answer"]])

    exact = accuracy(lm, chosen, draws=7)  # an ending of 3 tokens is masked in 7 ways
    assert exact.margin.tolist() == pytest.approx(expected, abs=1e-3)
    assert (exact.error == 0).all() and (exact.error_mean == 0).all()


def test_a_table_of_shares_by_hand():
    frame = pd.DataFrame(
        {
            "group": ["facts"] * 4 + ["stories"] * 2,
            "pair": [0, 0, 1, 1, 0, 0],
            "template": [0, 0, 1, 1, 0, 0],
            "margin": [1.0, -1.0, 2.0, 1.0, 1.0, 1.0],
            "margin_mean": [1.0, -1.0, 2.0, -1.0, -1.0, 1.0],
            "error": [0.0, 0.0, 1.0, math.inf, 0.0, 0.0],
            "error_mean": 0.0,
        }
    )
    frame = frame.assign(correct=frame.margin > 0, correct_mean=frame.margin_mean > 0)

    table = suite.shares(frame, draws=8)
    names = ["sinkprune_suite_facts", "sinkprune_suite_stories", "sinkprune_suite"]

    assert table.task.tolist() == [name for name in names for _ in range(2)]
    assert table.metric.tolist() == ["acc", "acc_norm"] * 3
    assert table.value.tolist() == pytest.approx([3 / 4, 2 / 4, 1, 1 / 2, 5 / 6, 3 / 6])
    assert table.documents.tolist() == [4, 4, 2, 2, 6, 6] and set(table.draws) == {8}
    assert table.low.isna().tolist() == [False, False, True, True, False, False]  # one template: no interval

    chance = stats.norm.cdf(2)
    variance = chance * (1 - chance) + 1 / 4  # of items 2 and 3; the others are exact
    assert table.error_draws.tolist() == pytest.approx([variance**0.5 / 4, 0, 0, 0, variance**0.5 / 6, 0])

    assert suite.shares(frame[:4]).task.tolist() == names[:1] * 2
    assert suite.shares(frame).draws.isna().all()


# lm-evaluation-harness


@pytest.fixture(scope="module")
def tasks():
    """The suite as lm-evaluation-harness finds it."""
    pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False)


def test_the_harness_agrees_with_the_own_scores(tasks, make_suite_lm):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    lm = make_suite_lm("autoregressive")
    results = simple_evaluate(
        HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=8, device="cpu"),
        tasks=["sinkprune_suite"],
        task_manager=tasks,
        limit=24,
        bootstrap_iters=0,
    )
    frame = accuracy(lm, first_of_every_group(24))
    for group, part in frame.groupby("group"):
        name = f"sinkprune_suite_{group}"
        assert results["results"][name]["acc,none"] == pytest.approx(part.correct.mean())
        for sample, margin in zip(results["samples"][name], part.margin, strict=True):
            values = [value for value, _ in sample["filtered_resps"]]
            answer = sample["doc"]["answer"]
            assert values[answer] - values[1 - answer] == pytest.approx(margin, abs=1e-3)
    assert results["results"]["sinkprune_suite"]["acc,none"] == pytest.approx(frame.correct.mean())
