"""The notebooks as readers get them: pairs in step, checked parameters, clean outputs."""

import ast
import json
import re
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
import yaml
from notebook_cells import (
    MODELS,
    NOTEBOOKS,
    TINY,
    parameter_cells,
    run_cells,
    save_tiny_pair,
    tagged,
)
from papermill.exceptions import PapermillExecutionError

from sinkprune_companion.experiments.parameters import check, declared, defaults
from sinkprune_companion.pages.publish import clean_notebook
from sinkprune_companion.run.progress_bars import WIDGETS, is_progress, remove_progress_bars

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(source.stem for source in NOTEBOOKS.glob("*.py"))


def test_every_notebook_is_a_pair():
    assert NAMES and sorted(committed.stem for committed in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_has_the_cells_of_its_reviewed_source(name):
    committed = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    source = jupytext.read(NOTEBOOKS / f"{name}.py")
    found, expected = ([(cell.cell_type, cell.source) for cell in read.cells] for read in (committed, source))
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_a_question_and_directly_below_it_the_published_answer(name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    assert "**Question.**" in cells[0].source
    assert cells[1].metadata.tags == ["answer"] and cells[1].source.startswith("**Answer.**")
    pictures = re.findall(r"\]\(\.\./(figures/[^)]*)\)", cells[1].source)
    assert all((ROOT / picture).exists() for picture in pictures)
    assert pictures, "the answer names its key picture"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["06_gain_at_75", "07_best_recipe", "08_what_results_depend_on"])
def test_a_notebook_that_profile_quick_leaves_out_runs_to_its_end(name, tmp_path, monkeypatch):
    for module in ("run.records", "experiments.parameters"):  # results go here and not to the clone
        monkeypatch.setattr(f"sinkprune_companion.{module}.project_root", lambda: tmp_path)
    pair = save_tiny_pair(tmp_path)
    run_cells(name, profile="tiny", **{model: pair[model] for model in MODELS[name]}, **TINY[name])
    assert (tmp_path / "runs" / "tiny" / "findings" / f"{name}.json").exists()


def stated_values(config: Path, name: str) -> list[tuple[str, object]]:
    """Return every parameter that a profile sets for a notebook, those of its sweep value by value."""
    stated = yaml.safe_load(config.read_text())
    swept = (stated.get("sweep", {}).get(name) or {}).items()
    return [
        *(stated["notebooks"].get(name) or {}).items(),
        *((parameter, value) for parameter, values in swept for value in values),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_sets_parameters_that_exist(name):
    known = declared(parameter_cells(name))
    for config in (ROOT / "workflow" / "config").glob("*.yml"):
        for parameter, value in stated_values(config, name):
            check(name, {parameter: known[parameter]}, {parameter: value})


@pytest.mark.parametrize("name", NAMES)
def test_run_all_does_what_profile_quick_does(name):
    stated = stated_values(ROOT / "workflow" / "config" / "quick.yml", name)
    stored = defaults(parameter_cells(name))
    assert {parameter: stored[parameter] for parameter, _ in stated} == dict(stated)


@pytest.mark.parametrize("name", NAMES)
def test_run_all_is_not_refused(name):
    cells = parameter_cells(name)
    check(name, declared(cells), defaults(cells))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_of_parameters_has_at_most_a_dozen_names_and_no_name_stands_twice(name):
    first, *seldom_changed = map(ast.parse, parameter_cells(name))
    assert len(first.body) <= 12
    names = [line.target.id for cell in (first, *seldom_changed) for line in cell.body]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_clean(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)

    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"

    for cell in notebook.cells:
        assert "injected-parameters" not in cell.metadata.get("tags", []) and "papermill" not in cell.metadata
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr"
            assert WIDGETS not in output.get("data", {})
            picture = output.get("data", {}).get("image/png", "")
            assert len(picture) <= 4 / 3 * 150_000, "a picture of at most 150 kB"

    text = path.read_text(encoding="utf-8")
    absolute = r"/(?:root|home|Users)/\w|[\"\s]/(?:tmp|mnt|opt|srv|var|work)/\w|\b[A-Z]:\\\\{2}\w"
    assert not re.search(absolute, text), "an absolute path"
    assert WIDGETS.replace("view", "state") not in text

    numbers = range(len(notebook.cells))
    assert [cell.id for cell in notebook.cells] == [f"cell-{number:02d}" for number in numbers]


# parameters


@pytest.mark.slow
def test_papermill_shows_a_bad_parameter_as_one_line_and_stops(tmp_path):
    source = tmp_path / "in.ipynb"
    nbformat.write(jupytext.read(NOTEBOOKS / "00_start_here.py"), source)

    with pytest.raises(PapermillExecutionError, match="draws=0"):
        papermill.execute_notebook(
            source, tmp_path / "out.ipynb", {"draws": 0}, kernel_name="python3", progress_bar=False
        )

    ran = nbformat.read(tmp_path / "out.ipynb", 4)
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    (error,) = [output for output in outputs if output.output_type == "error"]
    assert len(error.traceback) == 1, "one line, not a traceback"

    executed = [cell.source for cell in ran.cells if cell.get("execution_count")]
    assert executed[-1] == tagged("00_start_here", "setup")


# publishing


def executed() -> tuple:
    """Return a notebook as papermill leaves it, and its source."""
    markdown, code, output = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell, nbformat.v4.new_output

    declared = code("profile: str = 'manual'\na: int = 1", metadata={"tags": ["parameters"]})
    source = nbformat.v4.new_notebook(cells=[markdown("# t"), declared, code("a")])

    ran = nbformat.from_dict(json.loads(json.dumps(source)))
    injected = {"tags": ["injected-parameters"]}
    ran.cells.insert(2, code('# Parameters\nprofile = "p"\na = 2\n', metadata=injected))

    about = {"image/png": {"alt": "a line", "width": 9}, "scrolled": True}
    ran.cells[3].outputs = [
        output("stream", name="stderr", text="warning"),
        output("display_data", {WIDGETS: {"model_id": "x"}, "text/plain": "0%"}),
        output("execute_result", {"text/plain": "2"}, execution_count=9, metadata=about),
    ]

    for cell in (ran.cells[1], ran.cells[3]):
        cell.execution_count = 1

    kernel = {"name": "python3", "display_name": "x"}
    ran.metadata = {"widgets": {"state": {}}, "papermill": {"output_path": "x"}, "kernelspec": kernel}
    return ran, source


def test_publishing_keeps_results_and_nothing_else():
    clean = clean_notebook(*executed())
    assert [cell.source for cell in clean.cells] == ["# t", "profile: str = 'manual'\na: int = 1", "a"]
    assert [output.output_type for output in clean.cells[2].outputs] == ["execute_result"]
    assert clean.cells[2].outputs[0].execution_count == clean.cells[2].execution_count == 2
    assert clean.cells[2].outputs[0].metadata == {"image/png": {"alt": "a line", "width": 9}}
    assert set(clean.metadata) == {"kernelspec", "language_info"}


def test_words_may_change_after_a_notebook_ran():
    ran, source = executed()
    source.cells.insert(1, nbformat.v4.new_markdown_cell("an answer", metadata={"tags": ["answer"]}))
    source.cells[0].source = "# other words"
    clean = clean_notebook(ran, source)
    assert [cell.source for cell in clean.cells[:2]] == ["# other words", "an answer"]
    assert clean.cells[3].outputs[0].data == {"text/plain": "2"}


def test_publishing_refuses_stale_failed_and_leaking_runs():
    ran, source = executed()
    source.cells[2].source = "a + 1"
    with pytest.raises(ValueError, match="other code"):
        clean_notebook(ran, source)

    ran, source = executed()
    ran.cells[3].execution_count = None
    with pytest.raises(ValueError, match="code cell 2 of 2 was never run"):
        clean_notebook(ran, source)

    failed = nbformat.v4.new_output("error", ename="E", evalue="boom", traceback=[])
    leaking = nbformat.v4.new_output("stream", name="stdout", text=str(Path.home() / "x"))

    for output, message in ((failed, "boom"), (leaking, "print paths relative")):
        ran, source = executed()
        ran.cells[3].outputs = [output]
        with pytest.raises(ValueError, match=message):
            clean_notebook(ran, source)


def test_a_notebook_that_ran_keeps_no_progress_bar_and_everything_else(tmp_path):
    ran, _ = executed()
    output = nbformat.v4.new_output
    bars = ["draws:   0%|          | 0/2\r", "draws: 100%|██████████| 2/2\n"]
    ran.cells[3].outputs.append(output("stream", name="stderr", text="".join(bars)))
    file = tmp_path / "ran.ipynb"
    nbformat.write(ran, file)
    assert sum(map(is_progress, ran.cells[3].outputs)) == 2

    remove_progress_bars(file)
    left = nbformat.read(file, 4)
    nbformat.validate(left)
    assert [each.get("text") for each in left.cells[3].outputs] == ["warning", None]
    assert left.cells[3].outputs[1].data == {"text/plain": "2"}
    assert "widgets" not in left.metadata and "papermill" in left.metadata
    assert [cell.source for cell in left.cells] == [cell.source for cell in ran.cells]
