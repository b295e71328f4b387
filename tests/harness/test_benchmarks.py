"""Benchmarks: the table of results, the published settings, and what is refused before any work."""

from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from sinkprune_companion.harness.benchmarks import PAPER, Benchmark, choose, evaluate, evaluate_named
from sinkprune_companion.harness.harness_model import HarnessModel
from sinkprune_core.diffusion.samplers import SAMPLERS
from sinkprune_core.evaluation.protocols import Protocol

GUIDED = ("arc_challenge", "piqa", "hellaswag", "gpqa_main_n_shot", "race")  # tasks, under LLaDA's protocol
BENCHMARKS = ("mmlu", "arc", "piqa", "winogrande", "gsm8k", "hellaswag", "gpqa", "race")


def test_a_table_has_one_row_per_task_and_metric(tiny_dlm, task_folder, manager):
    settings = {"mc_num": 6, "guidance": 0.5}
    tasks = [Benchmark("tiny_pair", 1), Benchmark("tiny_write", 1)]
    frame = evaluate(tiny_dlm, tasks, include=task_folder, limit=4, **settings)
    columns = ["task", "metric", "filter", "value", "stderr", "documents", "shots", "draws", "guidance"]
    assert frame.columns.tolist() == columns
    assert frame[["task", "metric"]].values.tolist() == [["tiny_pair", "acc"], ["tiny_write", "exact_match"]]
    assert frame.documents.tolist() == [8, 4] and frame.shots.tolist() == [1, 1]
    assert set(frame.draws) == {6} and set(frame.guidance) == {0.5}
    results = simple_evaluate(
        HarnessModel(tiny_dlm, **settings),
        tasks=["tiny_pair"],
        task_manager=manager,
        limit=4,
        num_fewshot=1,
        bootstrap_iters=0,
    )
    assert frame.value[0] == results["groups"]["tiny_pair"]["acc,none"] and frame.stderr[0] >= 0


def test_benchmarks_carry_their_own_settings(tiny_ar, tiny_dlm, task_folder):
    chosen = [
        Benchmark("tiny_choice", 0, {"mc_num": 1, "guidance": 1.0}),
        Benchmark("tiny_last", 2, {"protocol": "dream", "mc_num": 32}),
    ]
    frame = evaluate(tiny_dlm, chosen, include=task_folder)
    assert frame.metric.tolist() == ["acc", "acc_norm", "perplexity", "acc"]
    assert frame.draws.tolist() == [1, 1, 32, 32] and frame.shots.tolist() == [0, 0, 2, 2]
    assert set(evaluate(tiny_dlm, chosen, include=task_folder, mc_num=2).draws) == {2}
    exact = evaluate(tiny_ar, [str(task_folder / "tiny_choice.yaml")])
    assert exact.draws.isna().all() and exact.stderr.notna().all()


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


# refusals


def test_a_limit_or_a_family_that_cannot_be_is_refused_before_any_work(tiny_dlm):
    tiny_dlm.model.register_forward_pre_hook(lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        evaluate(tiny_dlm, ["piqa"], limit=0)
    said = "family='mamba' is unknown; choose one of llada, dream, autoregressive"
    with pytest.raises(ValueError, match=said):
        evaluate(tiny_dlm, ["paper"], family="mamba")


def test_the_suite_and_other_tasks_share_a_table(tiny_ar, task_folder):
    frame = evaluate_named(tiny_ar, ["sinkprune_suite_facts", "tiny_choice"], limit=2, include=task_folder)
    assert set(frame.task) == {"tiny_choice", "sinkprune_suite_facts"}
    assert set(frame.documents) == {2} and frame.draws.isna().all()
    with pytest.raises(ValueError, match="draws=3 cannot be used: tiny-autoregressive is autoregressive"):
        evaluate_named(tiny_ar, ["suite"], draws=3)
