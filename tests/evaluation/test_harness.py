"""The harness model: the harness's own answers where they exist, our estimators where they do not, on tiny tasks in a folder."""

import json
import math
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import datasets
import lm_eval.tasks
import pandas as pd
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from sinkprune_core.diffusion.sampling import SAMPLERS, Sampler, decode, generate
from sinkprune_core.evaluation.benchmarks import PAPER, Benchmark, choose, evaluate
from sinkprune_core.evaluation.harness import HarnessModel
from sinkprune_core.evaluation.likelihood import log_likelihood
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.models.language_model import CARD

BENCHMARKS = ("mmlu", "arc", "piqa", "winogrande", "gsm8k", "hellaswag", "gpqa", "race")
WORDS = [f"word{index}" for index in range(27, 72)]
TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "tiny_last": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{long}}",
        "metric_list": [
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}
        ],
    },
    "tiny_write": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["word30", "<|im_end|>"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


def words(count: int, seed: int) -> str:
    index = torch.randint(len(WORDS), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(WORDS[place] for place in index)


DOCS = [
    {
        "text": words(3 + doc % 4, doc),
        "choices": [words(1 + (doc + choice) % 3, 100 * doc + choice) for choice in range(3)],
        "answer": doc % 3,
        "long": words(30 + 25 * doc, doc + 7),
    }
    for doc in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of tiny tasks; the data sets' cache lies beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, task in TASKS.items():
        data = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
            "test_split": "test",
            "fewshot_split": "test",
        }
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, **data, **task, "metadata": {"version": 1.0}})
        )
    (folder / "pair.yaml").write_text(
        yaml.safe_dump(
            {
                "group": "tiny_pair",
                "task": ["tiny_choice", "tiny_last"],
                "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
            }
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


@pytest.fixture(scope="module")
def manager(folder):
    return TaskManager(include_path=str(folder), include_defaults=False)


def run(model, manager, tasks, **options):
    return simple_evaluate(model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options)


def requests(*arguments) -> list[Instance]:
    return [Instance("loglikelihood", {}, args, index) for index, args in enumerate(arguments)]


def pair_of(lm, context: str, target: str) -> tuple[torch.Tensor, torch.Tensor]:
    return lm.encode(context), lm.encode(target)


# an autoregressive model answers what the harness's own model answers


def test_an_autoregressive_model_agrees_with_the_harness_s_own(tiny_ar, tmp_path, manager):
    saved = tiny_ar.save(tmp_path / "model")
    theirs = run(
        HFLM(pretrained=str(saved), dtype="float32", device="cpu", batch_size=2),
        manager,
        TASKS,
        num_fewshot=1,
    )
    ours = run(
        "sinkprune",
        manager,
        TASKS,
        num_fewshot=1,
        model_args={"pretrained": str(saved), "device": "cpu"},
        batch_size=4,
    )
    assert set(ours["results"]) == set(TASKS) and ours["config"]["kind"] == "autoregressive"
    for task in TASKS:
        for key, value in theirs["results"][task].items():
            if isinstance(value, float):
                assert ours["results"][task][key] == pytest.approx(value, rel=1e-4), (task, key)
        for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            for [answer], [expected] in zip(mine["resps"], other["resps"], strict=True):
                assert (
                    answer == expected
                    if isinstance(answer, str)
                    else answer == pytest.approx(expected, abs=1e-4)
                )
    assert max(len(doc["long"].split()) for doc in DOCS) > 2 * 64  # several windows


def test_a_greedy_target_is_told(tiny_ar, make_ids):
    model, prompt = HarnessModel(tiny_ar), make_ids(1, 4)
    best = tiny_ar.tokenizer.decode(decode(tiny_ar, prompt, 2)[0, 4:])
    context = tiny_ar.tokenizer.decode(prompt[0])
    assert [
        greedy
        for _, greedy in model.loglikelihood(requests((context, " " + best), (context, " word29 word29")))
    ] == [True, False]


# a diffusion model answers with the estimators and samplers


@pytest.mark.parametrize(("settings", "how"), [
    ({"mc_num": 12}, Protocol("count", 12, 4)),
    ({"mc_num": 16, "guidance": 0.5, "seed": 3}, Protocol("count", 16, 8, guidance=0.5)),
    ({"protocol": "dream", "mc_num": 64}, Protocol("bernoulli", 64, 32, visible_end=True)),
    ({"protocol": "dream", "mc_num": 5, "batch_size": "7"}, Protocol("bernoulli", 5, 1, visible_end=True)),
], ids=lambda value: "" if isinstance(value, Protocol) else "-".join(map(str, value.values())))  # fmt: skip
def test_likelihoods_are_those_of_the_protocol(tiny_dlm, settings, how):
    asked = [(doc["text"], " " + choice) for doc in DOCS for choice in doc["choices"]]
    answers = HarnessModel(tiny_dlm, **settings).loglikelihood(requests(*asked))
    frame = log_likelihood(
        tiny_dlm, [pair_of(tiny_dlm, *pair) for pair in asked], how, settings.get("seed", 0)
    )
    assert [value for value, _ in answers] == pytest.approx(
        frame.groupby("sequence").value.mean().tolist(), rel=1e-4
    )
    assert not any(greedy for _, greedy in answers)
    again = HarnessModel(tiny_dlm, **{**settings, "batch_size": 1}).loglikelihood(
        requests(*reversed(asked[:5]))
    )
    assert [value for value, _ in reversed(again)] == pytest.approx(
        [value for value, _ in answers[:5]], rel=1e-4
    )


def test_a_diffusion_model_can_be_asked_what_it_would_write(tiny_dlm, make_ids):
    prompt = make_ids(1, 4)
    written = tiny_dlm.tokenizer.decode(generate(tiny_dlm, prompt, Sampler(3, 3, None))[0, 4:])
    model, context = (
        HarnessModel(tiny_dlm, mc_num=1, is_check_greedy=True),
        tiny_dlm.tokenizer.decode(prompt[0]),
    )
    answers = model.loglikelihood(requests((context, " " + written), (context, " word29 word29 word29")))
    assert [greedy for _, greedy in answers] == [True, False]


def test_rolling_windows_cover_a_text_once_each(tiny_dlm):
    model, text = HarnessModel(tiny_dlm, mc_num=8), DOCS[4]["long"]
    ids = tiny_dlm.encode(text)
    pairs = [(torch.tensor([0]), ids[:63]), (ids[62:63], ids[63:126])]
    pairs.append((ids[len(ids) - 64 : 126], ids[126:]))
    assert sum(len(target) for _, target in pairs) == len(ids) == 130
    frame = log_likelihood(tiny_dlm, pairs, Protocol("count", 8, 8))
    [answer] = model.loglikelihood_rolling(requests((text,)))
    assert answer == pytest.approx(frame.groupby("sequence").value.mean().sum(), rel=1e-4)


def test_every_kind_of_task_runs(tiny_dlm, manager):
    results = run(HarnessModel(tiny_dlm, mc_num=4, batch_size=16), manager, TASKS, num_fewshot=1)
    acc = [sample["acc"] for sample in results["samples"]["tiny_choice"]]
    assert results["results"]["tiny_choice"]["acc,none"] == pytest.approx(sum(acc) / 6)
    assert results["config"]["protocol"] == {
        "masking": "count",
        "draws": 4,
        "grid": 4,
        "guidance": 0.0,
        "visible_end": False,
        "chunk": None,
        "context": None,
    }


@pytest.mark.parametrize(("settings", "sampler"), [
    ({}, Sampler(12, 12, None)),
    ({"sampler": "dream", "steps": 6}, Sampler(12, 6, None, "entropy", "time", 0.0, "filtered", top_p=0.95)),
    ({"block": 4, "temperature": 0.9, "guidance": 0.5, "order": "random"}, Sampler(12, 12, 4, "random", "even", 0.9, guidance=0.5)),
    ({"gen_length": 20, "sampler": "dream", "temperature": 1.0, "order": "origin"}, Sampler(20, 20, None, "origin", "time", 1.0, "filtered", top_p=0.95)),
], ids=["llada", "dream", "blocks", "origin"])  # fmt: skip
def test_texts_are_those_of_the_sampler_whatever_the_batch(tiny_dlm, settings, sampler):
    asked = [(doc["text"], {"until": ["word30", "word31"], "max_gen_toks": 12}) for doc in DOCS]
    texts = HarnessModel(tiny_dlm, **settings, seed=2, batch_size=4).generate_until(requests(*asked))
    assert (
        HarnessModel(tiny_dlm, **settings, seed=2, batch_size=1).generate_until(requests(*reversed(asked)))
        == texts[::-1]
    )
    for (context, _), text in zip(asked, texts, strict=True):
        prompt = tiny_dlm.encode(context)
        whole = generate(tiny_dlm, prompt[None], sampler, seed=2, names=[(tuple(prompt.tolist()), 0)])[
            0, len(prompt) :
        ].tolist()
        whole = whole[: whole.index(0)] if 0 in whole else whole
        expected = tiny_dlm.tokenizer.decode(whole, skip_special_tokens=True)
        for stop in ("word30", "word31"):
            expected = expected.split(stop)[0]
        assert text == expected


def test_a_stop_that_is_a_special_token_ends_a_text(tiny_ar, tiny_dlm):
    for lm in (tiny_ar, tiny_dlm):
        model, tokenizer = HarnessModel(lm, gen_length=12, temperature=3.0), lm.tokenizer
        asked = [doc["text"] for doc in DOCS]
        name = [(tuple(lm.encode(text).tolist()), 0) for text in asked]
        if lm.is_diffusion:
            written = [
                generate(lm, lm.encode(text)[None], Sampler(12, 12, None, temperature=3.0), names=[key])[
                    0, -12:
                ]
                for text, key in zip(asked, name, strict=True)
            ]
        else:
            written = [
                decode(lm, lm.encode(text)[None], 12, 3.0, names=[key])[0, -12:]
                for text, key in zip(asked, name, strict=True)
            ]
        text, ids, place = next(
            (text, ids, place)
            for text, ids in zip(asked, written, strict=True)
            for place in range(1, 12)
            if 0 < ids[place] < 17 and ids[:place].min() >= 17
        )
        stop = tokenizer.convert_ids_to_tokens(int(ids[place]))
        assert model.generate_until(requests((text, {"until": [stop]}))) == [tokenizer.decode(ids[:place])]
        [on] = model.generate_until(requests((text, {"until": []})))
        assert stop not in on and on.startswith(tokenizer.decode(ids[:place]))


def test_repetitions_of_a_request_are_different_samples(tiny_dlm):
    asked = (DOCS[0]["text"], {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 2.0})
    texts = HarnessModel(tiny_dlm).generate_until(requests(asked, asked, asked))
    assert len(set(texts)) == 3
    assert HarnessModel(tiny_dlm, batch_size=1).generate_until(requests(asked, asked, asked)) == texts


def test_generation_stops_when_every_row_has_stopped(tiny_dlm, tiny_ar):
    asked = requests(
        *((doc["text"], {"until": WORDS, "max_gen_toks": 24}) for doc in DOCS)
    )  # any word is a stop
    for lm, options, few in ((tiny_dlm, {"block": 4}, 18), (tiny_ar, {}, 12)):
        fed = []
        handle = lm.model.get_input_embeddings().register_forward_pre_hook(
            lambda module, args, fed=fed: fed.append(1)
        )
        HarnessModel(lm, **options).generate_until(asked)
        handle.remove()
        assert 1 <= len(fed) <= few


def test_pruned_and_saved_models_come_by_folder(tiny_dlm, tmp_path, manager):
    tiny_dlm.blocks[0].mlp.up_proj.weight[:, ::2] = 0
    folder = tiny_dlm.save(tmp_path / "pruned")
    results = run(
        "sinkprune",
        manager,
        ["tiny_choice"],
        model_args=f"pretrained={folder},mc_num=4,guidance=0.5,device=cpu",
    )
    expected = HarnessModel(tiny_dlm, mc_num=4, guidance=0.5).loglikelihood(
        requests(*[(DOCS[0]["text"], " " + choice) for choice in DOCS[0]["choices"]])
    )
    assert [resp[0][0] for resp in results["samples"]["tiny_choice"][0]["resps"]] == pytest.approx(
        [value for value, _ in expected], rel=1e-4
    )


def test_chat_templates_are_applied_where_there_are_some(tiny_ar, manager):
    with pytest.raises(ValueError, match="the tokenizer of tiny-autoregressive has no chat template"):
        run(
            HarnessModel(tiny_ar),
            manager,
            ["tiny_choice"],
            apply_chat_template=True,
            fewshot_as_multiturn=False,
        )
    tiny_ar.tokenizer.chat_template = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
    results = run(
        HarnessModel(tiny_ar), manager, ["tiny_choice"], apply_chat_template=True, fewshot_as_multiturn=False
    )
    assert (
        results["samples"]["tiny_choice"][0]["arguments"][0][0]
        == f"<|im_start|> user {DOCS[0]['text']} <|im_end|> <|im_start|> assistant "
    )


def test_the_harness_caches_answers_and_requests(tiny_dlm, manager, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    options = {"use_cache": str(tmp_path / "answers"), "cache_requests": True}
    tasks = ["tiny_choice", "tiny_rolling", "tiny_write"]
    first = run(HarnessModel(tiny_dlm, mc_num=4), manager, tasks, **options)
    tiny_dlm.model.get_output_embeddings().weight.zero_()  # only the cache knows the answers now
    assert run(HarnessModel(tiny_dlm, mc_num=4), manager, tasks, **options)["results"] == first["results"]
    assert run(HarnessModel(tiny_dlm, mc_num=4), manager, tasks)["results"] != first["results"]


@pytest.mark.slow
def test_the_harness_s_command_knows_the_model(tiny_ar, tmp_path, folder):
    saved = tiny_ar.save(tmp_path / "model")
    command = [
        sys.executable,
        "-m",
        "sinkprune_core.evaluation.harness",
        "run",
        "--model",
        "sinkprune",
        "--model_args",
        f"pretrained={saved}",
        "--device",
        "cpu",
        "--tasks",
        str(folder / "tiny_choice.yaml"),
    ]
    ran = subprocess.run(
        [*command, "--output_path", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert ran.returncode == 0 and "|tiny_choice|" in ran.stdout, ran.stderr
    [written] = (tmp_path / "out").rglob("results*.json")
    assert json.loads(written.read_text())["config"]["model"] == "sinkprune"


def test_the_console_command_is_the_harness_s_own():
    scripts = tomllib.loads(
        (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]["scripts"]
    command = EntryPoint("sinkprune-lm-eval", scripts["sinkprune-lm-eval"], "console_scripts").load()
    assert command.__module__ == HarnessModel.__module__ and get_model("sinkprune") is HarnessModel


# the table of results


def test_a_table_has_one_row_per_task_and_metric(tiny_dlm, folder, manager):
    frame = evaluate(
        tiny_dlm, ["tiny_pair", "tiny_write"], include=folder, limit=4, shots=1, mc_num=6, guidance=0.5
    )
    assert frame.columns.tolist() == [
        "task",
        "metric",
        "filter",
        "value",
        "stderr",
        "documents",
        "shots",
        "draws",
        "guidance",
    ]
    assert frame[["task", "metric"]].values.tolist() == [["tiny_pair", "acc"], ["tiny_write", "exact_match"]]
    assert (
        frame.documents.tolist() == [8, 4]
        and frame.shots.tolist() == [1, 1]
        and set(frame.draws) == {6}
        and set(frame.guidance) == {0.5}
    )
    results = run(
        HarnessModel(tiny_dlm, mc_num=6, guidance=0.5), manager, ["tiny_pair"], limit=4, num_fewshot=1
    )
    assert frame.value[0] == results["groups"]["tiny_pair"]["acc,none"] and frame.stderr[0] >= 0


def test_benchmarks_carry_their_own_settings(tiny_ar, tiny_dlm, folder):
    chosen = [
        Benchmark("tiny_choice", 0, {"mc_num": 1, "guidance": 1.0}),
        Benchmark("tiny_last", 2, {"protocol": "dream", "mc_num": 32}),
    ]
    frame = evaluate(tiny_dlm, chosen, include=folder)
    assert frame.metric.tolist() == ["acc", "acc_norm", "perplexity", "acc"]
    assert frame.draws.tolist() == [1, 1, 32, 32] and frame.shots.tolist() == [0, 0, 2, 2]
    assert set(evaluate(tiny_dlm, chosen, include=folder, mc_num=2).draws) == {2}
    exact = evaluate(tiny_ar, str(folder / "tiny_choice.yaml"))
    assert exact.draws.isna().all() and exact.stderr.notna().all()


def test_documents_are_told_one_by_one(tiny_dlm, folder):
    options = {"include": folder, "limit": 4, "mc_num": 4}
    tasks, apart = (
        evaluate(tiny_dlm, ["tiny_pair", "tiny_rolling"], **options),
        evaluate(tiny_dlm, ["tiny_pair", "tiny_rolling"], per_document=True, **options),
    )
    assert apart.columns.tolist() == ["task", "metric", "filter", "document", "value"]
    acc = apart[apart.metric == "acc"]
    assert acc.groupby("task").document.apply(list).to_dict() == {
        "tiny_choice": [0, 1, 2, 3],
        "tiny_last": [0, 1, 2, 3],
    }
    assert tasks.value[0] == pytest.approx(acc.value.mean())
    assert set(apart.metric) == {
        "acc",
        "acc_norm",
        "perplexity",
    }  # a word perplexity is two numbers per document


def test_a_cache_belongs_to_one_model_and_its_settings(tiny_dlm, make_lm, folder, tmp_path):
    options = {"include": folder, "cache": tmp_path / "cache"}
    first = evaluate(tiny_dlm, "tiny_last", mc_num=4, **options)
    pd.testing.assert_frame_equal(evaluate(tiny_dlm, "tiny_last", mc_num=4, **options), first)
    other = evaluate(make_lm("diffusion", seed=3), "tiny_last", mc_num=4, **options)
    assert evaluate(tiny_dlm, "tiny_last", mc_num=5, **options).value[0] != first.value[0] != other.value[0]
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.fixture(scope="module")
def known():
    """The names of the tasks in those folders of the harness that the paper's benchmarks come from."""
    tasks = Path(lm_eval.tasks.__file__).parent
    return TaskManager(include_path=[tasks / name for name in BENCHMARKS], include_defaults=False).all_tasks


@pytest.mark.parametrize("family", PAPER)
def test_the_paper_s_benchmarks_are_tasks_of_the_harness(known, make_lm, family):
    lm = make_lm("autoregressive" if family == "autoregressive" else "diffusion")
    chosen = choose(lm, "paper", family)
    assert sorted(benchmark.task.split("_")[0] for benchmark in chosen) == sorted(BENCHMARKS)
    assert all(benchmark.task in known for benchmark in chosen)
    lm.model.config.max_position_embeddings = 4096
    lm.tokenizer.bos_token = "<|endoftext|>"
    models = {benchmark.task: HarnessModel(lm, **benchmark.settings) for benchmark in chosen}
    shots = {benchmark.task: benchmark.shots for benchmark in chosen}
    assert [
        shots[task]
        for task in ("mmlu", "winogrande", "gpqa_main_n_shot", "arc_challenge", "piqa", "hellaswag", "race")
    ] == [5, 5, 5, 0, 0, 0, 0]
    if family == "llada":
        assert {
            task: model.how.guidance for task, model in models.items() if model.how.guidance
        } == dict.fromkeys(["arc_challenge", "piqa", "hellaswag", "gpqa_main_n_shot", "race"], 0.5)
        assert models["piqa"].how == Protocol("count", 128, 8, 0.5) and models["mmlu"].how == Protocol(
            "count", 1, 1
        )
        assert models["gsm8k"].gen_length == 1024
    if family == "dream":
        assert (
            models["piqa"].how == Protocol("bernoulli", 128, 32, visible_end=True)
            and models["piqa"].max_length == 2048
        )
        assert models["gsm8k_cot"].sampler == SAMPLERS["dream"] and shots["gsm8k_cot"] == 8


# refusals


def test_an_installation_without_the_harness_says_what_to_install(tiny_dlm, monkeypatch):
    monkeypatch.delitem(sys.modules, "sinkprune_core.evaluation.harness")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert [benchmark.task for benchmark in choose(tiny_dlm, "paper")][:2] == [
        "mmlu",
        "arc_challenge",
    ]  # the settings need no harness
    with pytest.raises(
        ModuleNotFoundError, match=r"benchmarks need lm-evaluation-harness: pip install 'sinkprune\[eval\]'"
    ):
        evaluate(tiny_dlm, "paper")


def test_what_cannot_be_asked_is_refused_before_any_work(tiny_ar, tiny_dlm):
    refused = [
        (lambda: evaluate(tiny_dlm, "piqa", limit=0), "limit=0 must be above 0"),
        (
            lambda: evaluate(tiny_dlm, "paper", family="mamba"),
            "family='mamba' is unknown; choose one of llada, dream, autoregressive",
        ),
        (
            lambda: HarnessModel(tiny_dlm, protocol="llama"),
            "protocol='llama' is unknown; choose one of llada, dream",
        ),
        (
            lambda: HarnessModel(tiny_dlm, sampler="d3pm"),
            "sampler='d3pm' is unknown; choose one of llada, dream",
        ),
        (lambda: HarnessModel(tiny_dlm, mc_num=0), "draws=0 is not a positive multiple"),
        (lambda: HarnessModel(tiny_dlm, cfg=1.0), "unknown model argument 'cfg'"),
        (lambda: HarnessModel(tiny_dlm, batch_size="auto"), "batch_size='auto' must be a positive number"),
        (
            lambda: HarnessModel(tiny_dlm, max_length=65),
            "max_length=65 must lie in 2 … 64, the positions of tiny-diffusion",
        ),
        (lambda: HarnessModel(tiny_ar, gen_length=0), "length=0 and steps=0 must be at least 1"),
        (lambda: HarnessModel(tiny_dlm, gen_length=10, block=4), "length=10 is not a multiple of block=4"),
        (
            lambda: HarnessModel(tiny_ar, guidance=0.5, mc_num=8),
            "mc_num=8, guidance=0.5 cannot be used: tiny-autoregressive is autoregressive",
        ),
        (lambda: HarnessModel(tiny_ar, order="entropy"), "order=entropy cannot be used"),
        (lambda: HarnessModel("nobody/nothing"), "unknown model 'nobody/nothing'"),
        (
            lambda: HarnessModel(tiny_dlm).loglikelihood(requests((words(60, 1), " " + words(5, 2)))),
            "a context of 60 tokens and a target of 5 exceed max_length=64 of tiny-diffusion: use fewer shots",
        ),
        (
            lambda: HarnessModel(tiny_dlm, protocol="dream").loglikelihood(
                requests((words(59, 1), " " + words(5, 2)))
            ),
            "exceed max_length=64",
        ),
        (
            lambda: HarnessModel(tiny_ar).loglikelihood(requests((words(61, 1), " " + words(5, 2)))),
            "exceed max_length=64",
        ),
        (
            lambda: HarnessModel(tiny_dlm).generate_until(requests((words(5, 1), {"max_gen_toks": 60}))),
            "a context of 5 tokens and a target of 60 exceed",
        ),
        (
            lambda: HarnessModel(tiny_dlm, truncation=True).generate_until(
                requests((words(5, 1), {"max_gen_toks": 64}))
            ),
            "use a larger max_length",
        ),
        (
            lambda: HarnessModel(tiny_dlm).generate_until(requests((words(5, 1), {"num_beams": 4}))),
            "generation argument 'num_beams' is not known",
        ),
        (
            lambda: HarnessModel(tiny_ar).generate_until(
                requests((words(5, 1), {"do_sample": True, "temperature": 1.0, "top_p": 0.9}))
            ),
            "samples by temperature alone",
        ),
    ]
    tiny_dlm.model.register_forward_pre_hook(lambda *_: pytest.fail("work was done"))
    for work, said in refused:
        with pytest.raises(ValueError, match=said):
            work()


def test_a_device_that_is_not_there_is_told_and_the_cpu_taken(tiny_ar, tmp_path):
    folder = str(tiny_ar.save(tmp_path / "model"))
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.warns(UserWarning, match="device='cuda:0' is not there: using the CPU"):
        assert HarnessModel(folder, device="cuda:0").lm.device.type == "cpu"


@pytest.mark.slow
def test_an_unknown_task_is_refused_with_those_of_like_names(tiny_dlm):
    tiny_dlm.model.register_forward_pre_hook(lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match="unknown task 'arc_chalenge'; did you mean arc_challenge"):
        evaluate(tiny_dlm, ["piqa", "arc_chalenge"])


def test_data_that_cannot_be_had_is_told_before_any_work(tiny_dlm, folder):
    task = yaml.safe_load((folder / "tiny_last.yaml").read_text())
    task |= {"task": "tiny_lost", "dataset_kwargs": {"data_files": {"test": str(folder / "gone.jsonl")}}}
    tiny_dlm.model.register_forward_pre_hook(lambda *_: pytest.fail("work was done"))
    with pytest.raises(OSError, match="the data of task .*tiny_lost.* cannot be loaded .*gone.jsonl"):
        evaluate(tiny_dlm, ["tiny_last", task], include=folder)


def test_a_first_token_is_put_before_a_context_once(tiny_ar, make_ids):
    with pytest.raises(ValueError, match="add_bos_token=True needs a tokenizer with a first token"):
        HarnessModel(tiny_ar, add_bos_token=True)
    tiny_ar.tokenizer.bos_token = "<|im_start|>"
    model = HarnessModel(tiny_ar, add_bos_token=True)
    assert model.tok_encode("word30 the") == model.tok_encode("<|im_start|> word30 the") == [1, 30, 18]
    assert (
        model.tok_encode("word30", add_special_tokens=False)
        == HarnessModel(tiny_ar).tok_encode("word30")
        == [30]
    )
    [(with_first, _)], [(plain, _)] = (
        one.loglikelihood(requests(("the of", " word40"))) for one in (model, HarnessModel(tiny_ar))
    )
    [(expected, _)] = HarnessModel(tiny_ar).loglikelihood(requests(("<|im_start|> the of", " word40")))
    assert with_first == expected != plain


def test_a_tokenizer_without_an_end_is_refused(tiny_dlm):
    tiny_dlm.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="the tokenizer of tiny-diffusion has no end-of-text token"):
        HarnessModel(tiny_dlm)


def test_contexts_are_cut_from_the_left_on_request(tiny_dlm, tiny_ar):
    context, target = words(70, 1), " " + words(4, 2)
    for lm, kept in ((tiny_dlm, 60), (tiny_ar, 61)):
        cut = " ".join(context.split()[-kept:])
        answers = HarnessModel(lm, truncation=True).loglikelihood(requests((context, target), (cut, target)))
        assert answers[0] == answers[1] and math.isfinite(answers[0][0])


def test_a_mask_token_that_the_vocabulary_lacks_is_refused(tiny_dlm, tmp_path):
    folder = tiny_dlm.save(tmp_path / "model")
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"mask_token_id": 400}))
    with pytest.raises(ValueError, match="mask_token_id=400 is outside the vocabulary of 72 tokens"):
        HarnessModel(str(folder))
