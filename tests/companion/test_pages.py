"""Pages written from tables are in step with them, and the program takes their commands."""

import json
import shlex

import pandas as pd
import pytest
import torch

from sinkprune_companion.cli import main
from sinkprune_companion.harness import benchmarks
from sinkprune_companion.ledger import claims, published, verdict_rule
from sinkprune_companion.pages import pages, performance_page, readme
from sinkprune_companion.pages.models_page import models_page
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.files import project_root
from sinkprune_core.models.catalog import MODELS, REFUSED
from sinkprune_core.models.meta_model import meta_model
from sinkprune_core.pruning.recipe import check, preset

PAGES = [
    "docs/results.md",
    "docs/claims_to_figures.md",
    "docs/models.md",
    "docs/performance.md",
    "docs/trainings.md",
    "docs/more_text.md",
    "README.md",
]
EVERY = [*published.results(), *published.unprinted()]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """All pages as they are written now."""
    return pages.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_is_in_step_with_what_it_is_written_from(name, written):
    assert (project_root() / name).read_text(encoding="utf-8") == written[name], (
        "run python -m sinkprune_companion.pages.pages"
    )


@pytest.mark.parametrize("result", EVERY, ids=lambda result: result.folder)
def test_every_command_of_the_results_page_is_one_the_program_takes(result):
    """Each is parsed, and its recipe checked against a model of the published shape and text of that size."""
    page = (project_root() / "docs" / "results.md").read_text(encoding="utf-8")
    for command in result.commands():
        assert f"\n{command}\n" in page
        program, *arguments = shlex.split(command)
        _, options = main.parse(arguments)
        assert program == "sinkprune"
        if arguments[0] == "prune":
            calibration = Calibration(
                torch.zeros(options.sequences, options.length, dtype=torch.long), batch=options.batch
            )
            check(
                meta_model(MODELS[options.model]),
                preset(options.preset, sparsity=options.sparsity),
                calibration,
            )
            assert (str(options.out), options.model) == (result.folder, result.model)
        else:
            assert options.tasks == ("paper",) or set(options.tasks) <= set(benchmarks.named(options.family))
            assert options.model == (result.folder if result.preset else result.model)


def test_folders_are_told_apart():
    folders = [result.folder for result in EVERY]
    assert len(set(folders)) == len(folders)


def test_the_published_average_is_what_its_tasks_leave_for_two_more():
    """A slip of a digit would show: the two that are not printed, GPQA and RACE, have a plausible sum."""
    for result in published.results():
        if "average" in result.values:
            printed = [value for task, value in result.values.items() if task != "average"]
            assert 58 < 8 * result.values["average"] - sum(printed) < 70 and len(printed) == 6


def test_a_command_takes_the_settings_of_its_family(tiny_dlm):
    asked = benchmarks.choose(tiny_dlm, ["piqa", "arc_easy", "sinkprune_suite_facts"], "llada")
    assert [benchmark.task for benchmark in asked] == ["piqa", "arc_easy", "sinkprune_suite_facts"]
    assert [benchmark.settings.get("guidance") for benchmark in asked] == [0.5, 0.5, None]
    assert [benchmark.settings for benchmark in benchmarks.choose(tiny_dlm, ["piqa"])] == [{}], (
        "without a family, the task's own"
    )
    assert benchmarks.choose(tiny_dlm, ["piqa"], "llada", shots=3)[0].shots == 3


def test_published_numbers_stand_beside_ours_and_what_was_not_run_says_so():
    model = "GSAI-ML/LLaDA-8B-Base"
    empty = published.beside(model)
    assert set(empty.here) == {published.NOT_RUN} and len(empty) == 5 * 7 + 4 * 4
    ours = pd.DataFrame([{"method": "Wanda", "sparsity": 0.5, "task": "piqa", "value": 71.25}])
    changed = published.beside(model, ours)
    assert changed[changed.here != published.NOT_RUN].to_dict("records") == [
        {
            "method": "Wanda",
            "sparsity": 0.5,
            "task": "piqa",
            "published": 72.63,
            "here": "71.25",
            "unit": "accuracy in percent",
        }
    ]
    assert published.beside("smol-dlm").empty


def test_hours_follow_from_flops_that_can_be_counted_by_hand():
    by_name = {result.method: result for result in published.results() if result.table == "llada-50"}
    block = 4 * 4096**2 + 3 * 4096 * 12288
    forward = 32 * (2 * block * 4096 + 4 * 4096**2 * 4096)
    assert by_name["Wanda"].pruning().flops == pytest.approx(128 * 2 * forward)
    assert by_name["sink-aware Wanda"].pruning().flops == pytest.approx(1280 * forward), (
        "the inputs of a row find room beside the model: one pass"
    )
    written = 1319 * 1024 * (32 * (2 * block * 1924 + 4 * 1924**2 * 4096) + 2 * 512 * 4096 * 126464)
    assert published._benchmark_flops("GSAI-ML/LLaDA-8B-Base", "llada", "gsm8k") == pytest.approx(written)
    assert by_name["dense"].pruning() is None and by_name["dense"].pruning_hours() == 0
    assert by_name["Wanda"].pruning_hours() > 0
    assert by_name["Wanda"].evaluation_hours() == by_name["dense"].evaluation_hours() > 1


def test_the_models_page_has_every_row_and_every_refusal():
    page = models_page()
    tables = [
        [line for line in part.splitlines() if line.startswith("| ")]
        for part in page.split("## Where a model lies")[0].split("## What is known")
    ]
    for name, row in MODELS.items():
        (shape,), (source,) = (
            [line for line in lines if line.startswith((f"| {name} |", f"| [{name}]("))] for lines in tables
        )
        assert f"`{row.native}`" in shape and row.licence in source and row.certainty in source
    for name, why in REFUSED.items():
        assert f"| {name} | {why} |" in page
    for lines in tables:
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1, "a mask token splits a cell"


def test_the_performance_page_says_where_a_goal_is_not_reached(tmp_path, monkeypatch):
    large = performance_page.performance()[performance_page.LARGE]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.json").write_text(json.dumps({performance_page.LARGE: large}))
    monkeypatch.setattr(performance_page, "project_root", lambda: tmp_path)
    assert "| ratio |" not in performance_page.performance_page()
    entry = {
        "value": 1.5,
        "before": 3.0,
        "after": 2.0,
        "names": ["plain", "ours"],
        "unit": "s",
        "goal": "at least 2",
        "reached": False,
        "threads": 1,
        "platform": large["platform"],
        "versions": large["versions"],
    }
    performance_page.note_performance("a thing", {**entry, "value": 9.0, "reached": True})
    performance_page.note_performance("another", {**entry, "before": None})
    performance_page.note_performance("a thing", entry)
    assert "load" not in performance_page.performance_page()
    performance_page.note_performance("a thing", {**entry, "load": 6.5})
    page = performance_page.performance_page()
    assert "ran while that of the machine was up to 6.5" in page
    assert (
        "| a thing | plain 3 s | ours 2 s | 1.50 | at least 2 | **no** |\n| another | – | ours 2 s |" in page
    )
    assert performance_page.performance()[performance_page.LARGE] == large


def test_a_readme_without_its_markers_is_refused(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("nothing")
    monkeypatch.setattr(pages, "project_root", lambda: tmp_path)
    with pytest.raises(ValueError, match="must hold the markers"):
        pages.pages()


def test_readme_keeps_its_text_around_a_block():
    before = f"head\n{readme.begin('claims')}\nold\n{readme.end('claims')}\ntail"
    after = readme.with_blocks(before, {"claims": "| new |"})
    assert after == f"head\n{readme.begin('claims')}\n| new |\n{readme.end('claims')}\ntail"
    assert readme.with_blocks(after, {"claims": "| new |"}) == after
    with pytest.raises(ValueError, match="markers"):
        readme.with_blocks("no markers", {"claims": "t"})


def test_the_long_table_lists_every_claim_with_a_verdict():
    page = pages.pages()["docs/results.md"]
    for claim in claims.ledger():
        (line,) = [line for line in page.splitlines() if f"{claim.says} |" in line]
        assert any(verdict in line for verdict in verdict_rule.VERDICTS)
