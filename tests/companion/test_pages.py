"""Pages are in step with what they are written from, and no sentence outlives the verdict it presumes."""

import json
import shlex
import shutil

import pandas as pd
import pytest
import torch
from jinja2 import DictLoader, UndefinedError

from sinkprune_companion.cli import main
from sinkprune_companion.harness import benchmarks
from sinkprune_companion.ledger import claims, published
from sinkprune_companion.pages import pages, render, sources
from sinkprune_companion.run import shown
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.evaluation.verdict_rule import NO_DIFFERENCE
from sinkprune_core.files import project_root
from sinkprune_core.models.catalog import MODELS, REFUSED
from sinkprune_core.models.meta_model import meta_model
from sinkprune_core.pruning.recipe import check, preset

EVERY = [*published.results(), *published.unprinted()]
SIZES = {"README.md": 9_000, "docs/results.md": 25_000}  # bytes


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """All pages as they are written now."""
    return pages.pages(project_root() / "figures")


@pytest.fixture
def templates(monkeypatch):
    """Templates by name, in the place of those of the package."""
    by_name: dict[str, str] = {}
    before = render.environment

    def environment():
        made = before()
        made.loader = DictLoader(by_name)
        return made

    monkeypatch.setattr(render, "environment", environment)
    return by_name


# templates


def test_the_pages_are_in_step_with_what_they_are_written_from(written):
    for name, text in written.items():
        file = project_root() / name
        assert file.read_text(encoding="utf-8") == text, f"{name}: run python -m sinkprune_companion.pages"
        assert len(text.encode()) <= SIZES.get(name, 25_000)


def test_a_sentence_stops_where_its_verdict_has_changed_and_says_where_it_stands(tmp_path):
    """The whole way: published findings of which one has moved to the other side of zero."""
    shutil.copytree(project_root() / "figures" / "findings", tmp_path / "findings")
    file = tmp_path / "findings" / "03_pruning_results.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    estimate = kept["findings"]["paper_minus_wanda"]
    estimate |= {"value": -estimate["value"], "low": -estimate["high"], "high": -estimate["low"]}
    file.write_text(json.dumps(kept))
    with pytest.raises(render.PresumedVerdictError) as stopped:
        pages.pages(tmp_path)
    lines = (render.FOLDER / "readings" / "03_pruning_results.md.j2").read_text(encoding="utf-8").splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if 'holds("paper-beats-wanda",' in text]
    assert str(stopped.value) == (
        f"pages/readings/03_pruning_results.md.j2:{line}: 'paper-beats-wanda' is presumed to be contradicted "
        "and is now reproduced: write the sentence anew"
    )


def results(**verdicts: str) -> sources.Results:
    """Results of no run, with these verdicts."""
    made = sources.Results([], {"03_pruning_results/x": Estimate(0.0197, 0.0102, 0.0310, 9, "")})
    made.__dict__["verdict"] = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    return made


def test_a_sentence_holds_under_each_verdict_that_it_names(templates):
    templates["page.md"] = 'It works.{{ holds("a-claim", "reproduced", "undecided") }}'
    for verdict in ("reproduced", "undecided"):
        assert render.render_results("page.md", results(a_claim=verdict)) == "It works."
    with pytest.raises(
        ValueError, match="is presumed to be reproduced or undecided and is now no difference"
    ):
        render.environment().get_template("page.md").render(
            holds=render.holds_by(results(a_claim=NO_DIFFERENCE))
        )
    with pytest.raises(ValueError, match="now no claim of the ledger"):
        render.environment().get_template("page.md").render(holds=render.holds_by(results()))


def test_numbers_have_one_format_and_an_unknown_name_is_an_error(templates):
    numbers = '{{ f["03/x"] | amount("nats") }}, {{ share | percent }}, {{ big | count }}'
    templates["page.md"] = numbers + ", {{ bar | cell }}"
    page = render.render_results("page.md", results(), share=0.0014, big=-12345, bar="a|b\nc")
    assert page.replace("\N{NO-BREAK SPACE}", " ") == "0.020 nats [0.010, 0.031], 0.14 %, −12,345, a\\|b c"
    with pytest.raises(UndefinedError, match="share"):
        render.render_results("page.md", results())


def test_every_notebook_that_shows_a_reading_has_one():
    readings = {file.name.removesuffix(".md.j2") for file in pages.READINGS.glob("*.md.j2")}
    notebooks = project_root().glob("notebooks/*.py")
    assert readings == {file.stem for file in notebooks if "\nreading(run)\n" in file.read_text("utf-8")}


def test_a_smaller_run_shows_numbers_and_verdicts_and_no_written_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    published_estimates = claims.findings(project_root() / "figures")
    prefix = "04_matched_compute/"
    own = {name.removeprefix(prefix): one for name, one in published_estimates.items() if prefix in name}
    shown_by = {}
    for profile in ("quick", shown.PUBLISHED):
        run = Run("04_matched_compute", profile, {})
        run.find(own)
        shown_by[profile] = shown.reading(run).data
    table = shown_by["quick"]
    assert table.startswith("| ") and "0.20 [0.16," in table
    assert shown_by[shown.PUBLISHED].endswith(table) and len(shown_by[shown.PUBLISHED]) > len(table) + 200


def test_every_figure_that_a_claim_leads_to_is_one_that_its_notebook_saves(written):
    rows = [line for line in written["docs/claims_to_figures.md"].splitlines() if line.count("|") > 5][2:]
    assert len(rows) > 10
    for row in rows:
        finding = row.split("`")[1]
        notebook = finding.split("/")[0]
        if "../figures/" in row:
            assert f"](../figures/{notebook}/" in row, row
        else:
            assert f"](../notebooks/{notebook}.ipynb)" in row, row


# the paper's numbers, and the commands that measure them


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


def test_published_numbers_stand_beside_ours_and_what_was_not_run_says_so():
    model = "GSAI-ML/LLaDA-8B-Base"
    empty = published.beside(model)
    assert set(empty.here) == {published.NOT_RUN} and len(empty) == 5 * 7 + 4 * 4
    tasks = [("piqa", "acc", "none", 0.7125), ("piqa", "acc_norm", "none", 0.9)]
    tasks += [("gsm8k", "exact_match", "strict-match", 0.5), ("mmlu_law", "acc", "none", 0.1)]
    ours = pd.DataFrame(tasks, columns=["task", "metric", "filter", "value"])
    changed = published.beside(model, {("wanda", 0.5): ours})
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


def test_the_models_page_has_every_row_and_every_refusal(written):
    page = written["docs/models.md"]
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


def test_a_benchmark_takes_the_place_of_an_older_one_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.json").write_text('{"large": {"seconds": 1}, "a": {"value": 1}}')
    monkeypatch.setattr(sources, "project_root", lambda: tmp_path)
    sources.note_performance("a", {"value": 2})
    assert sources.performance() == {"large": {"seconds": 1}, "a": {"value": 2}}
