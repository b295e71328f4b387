"""Benchmarks: the paper's settings, and one table for the suite and tasks of the harness."""

from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager

from sinkprune.evaluation.harness.benchmarks import PAPER, choose, evaluate_named
from sinkprune.evaluation.harness.harness_model import HarnessModel
from sinkprune.evaluation.protocols import SAMPLERS, Protocol

GUIDED = ("arc_challenge", "piqa", "hellaswag", "gpqa_main_n_shot", "race")  # tasks, under LLaDA's protocol
BENCHMARKS = ("mmlu", "arc", "piqa", "winogrande", "gsm8k", "hellaswag", "gpqa", "race")


@pytest.fixture(scope="module")
def known():
    """The names of the tasks in those folders of the harness that the paper's benchmarks come from."""
    tasks = Path(lm_eval.tasks.__file__).parent
    return TaskManager(include_path=[tasks / name for name in BENCHMARKS], include_defaults=False).all_tasks


@pytest.mark.parametrize("family", PAPER)
def test_the_paper_s_benchmarks_are_tasks_of_the_harness(known, make_lm, family):
    lm = make_lm("autoregressive" if family == "autoregressive" else "diffusion")
    chosen = choose(lm, ["paper"], family)
    assert sorted(benchmark.task.split("_")[0] for benchmark in chosen) == sorted(BENCHMARKS)
    assert all(benchmark.task in known for benchmark in chosen)

    lm.model.config.max_position_embeddings = 4096
    lm.tokenizer.bos_token = "<|endoftext|>"
    models = {benchmark.task: HarnessModel(lm, **benchmark.settings) for benchmark in chosen}
    shots = {benchmark.task: benchmark.shots for benchmark in chosen}

    assert [shots[task] for task in ("mmlu", "winogrande", "gpqa_main_n_shot")] == [5, 5, 5]
    assert [shots[task] for task in ("arc_challenge", "piqa", "hellaswag", "race")] == [0, 0, 0, 0]

    if family == "llada":
        guided = {task: model.how.guidance for task, model in models.items() if model.how.guidance}
        assert guided == dict.fromkeys(GUIDED, 0.5)
        assert models["piqa"].how == Protocol("count", 128, 8, 0.5)
        assert models["mmlu"].how == Protocol("count", 1, 1)
        assert models["gsm8k"].options.gen_length == 1024

    if family == "dream":
        assert models["piqa"].how == Protocol("bernoulli", 128, 32, visible_end=True)
        assert models["piqa"].max_length == 2048
        assert models["gsm8k_cot"].sampler == SAMPLERS["dream"] and shots["gsm8k_cot"] == 8


def test_the_suite_and_other_tasks_share_a_table(tiny_ar, task_folder):
    frame = evaluate_named(tiny_ar, ["sinkprune_suite_facts", "tiny_choice"], limit=2, include=task_folder)
    assert set(frame.task) == {"tiny_choice", "sinkprune_suite_facts"}
    assert set(frame.documents) == {2} and frame.draws.isna().all()
    with pytest.raises(ValueError, match="draws=3 cannot be used: tiny-autoregressive is autoregressive"):
        evaluate_named(tiny_ar, ["suite"], draws=3)
