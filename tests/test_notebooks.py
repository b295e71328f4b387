"""The notebooks as readers get them: pairs in step, one set-up, typed parameters, clean outputs."""

import ast
import itertools
import json
import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from jupytext.cli import jupytext as jupytext_command
from notebook_cells import run_cells
from papermill.exceptions import PapermillExecutionError

from sinkprune_companion.run.parameters import OTHERS, ParameterError, check, declared
from sinkprune_companion.run.publish import WIDGETS, clean_notebook

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = [source.stem for source in SOURCES]
COMMITTED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(name: str, kind: str | None = None) -> list:
    read = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    return [cell for cell in read.cells if kind is None or cell.cell_type == kind]


def tagged(name: str, tag: str) -> str:
    (source,) = [cell.source for cell in cells(name, "code") if tag in cell.metadata.get("tags", [])]
    return source


def published(name: str) -> list:
    """Return the cells of a committed notebook."""
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells


def put_in(name: str) -> dict[str, object]:
    """Return the values that the set-up cell of a committed notebook says were put in for the defaults."""
    (setup,) = [cell for cell in published(name) if "setup" in cell.metadata.get("tags", [])]
    printed = "".join(output.get("text", "") for output in setup.outputs)
    body = ast.parse(printed.partition(OTHERS)[2].strip()).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


def values_in(source: str) -> dict[str, object]:
    """Return the values of a parameters cell by name."""
    return {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def test_every_notebook_is_a_pair():
    assert NAMES and [path.stem for path in COMMITTED] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_has_the_cells_of_its_reviewed_source(name):
    assert [(cell.cell_type, cell.source) for cell in published(name)] == [
        (cell.cell_type, cell.source) for cell in cells(name)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_set_up_cell_differs_in_the_notebook_name_only(name):
    assert tagged(name, "setup").replace(name, "NAME") == tagged(NAMES[0], "setup").replace(NAMES[0], "NAME")


@pytest.mark.parametrize("name", NAMES)
def test_every_code_cell_has_words_before_it_and_is_short(name):
    every = cells(name)
    for before, cell in itertools.pairwise(every):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"
            is_list = "parameters" in cell.metadata.get("tags", [])
            assert is_list or len(cell.source.splitlines()) <= 24, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_type_a_default_and_a_comment(name):
    source = tagged(name, "parameters")
    statements = ast.parse(source).body
    assert all(isinstance(statement, ast.AnnAssign) and statement.value for statement in statements)
    lines = source.splitlines()
    assert all("  # " in lines[statement.end_lineno - 1] for statement in statements), source
    assert list(declared(["1 + 1", source])) == [statement.target.id for statement in statements]


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
    known = declared([tagged(name, "parameters")])
    for config in (ROOT / "workflow" / "config").glob("*.yml"):
        for parameter, value in stated_values(config, name):
            check(name, {parameter: known[parameter]}, {parameter: value})


@pytest.mark.parametrize("name", NAMES)
def test_run_all_does_what_profile_quick_does(name):
    stated = stated_values(ROOT / "workflow" / "config" / "quick.yml", name)
    defaults = values_in(tagged(name, "parameters"))
    assert {parameter: defaults[parameter] for parameter, _ in stated} == dict(stated)


def fits(name: str, annotations: dict[str, str], values: dict[str, object]) -> bool:
    """Return whether values are those of a notebook with such a parameters cell."""
    if set(values) != set(annotations):
        return False
    try:
        check(name, annotations, values)
    except ParameterError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_the_set_up_cell_says_which_values_made_the_outputs(name):
    """A run by the defaults has nothing to say; what other runs say makes the parameters complete."""
    source = tagged(name, "parameters")
    shown = {**values_in(source), **put_in(name), "profile": ""}
    for file in (ROOT / "figures" / name).glob("*.json"):
        made_by = json.loads(file.read_text(encoding="utf-8"))
        if file.name.endswith("_steps.json"):  # the explorer's data: its provenance is the file beside it
            continue
        if not fits(name, declared([source]), made_by["parameters"]):
            pytest.skip("the outputs are of an earlier version of the notebook: `make publish` renews them")
        assert {**made_by["parameters"], "profile": ""} == shown, file.name


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_clean(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert "injected-parameters" not in cell.metadata.get("tags", []) and "papermill" not in cell.metadata
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr"
            assert WIDGETS not in output.get("data", {})
            assert len(output.get("data", {}).get("image/png", "")) <= 4 / 3 * 150_000, (
                "a picture of at most 150 kB"
            )
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"/(?:root|home|Users)/\w|[\"\s]/(?:tmp|mnt|opt|srv|var|work)/\w|\b[A-Z]:\\\\{2}\w", text
    ), "an absolute path"
    assert WIDGETS.replace("view", "state") not in text
    assert [cell.id for cell in notebook.cells] == [
        f"cell-{number:02d}" for number in range(len(notebook.cells))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_syncing_the_pair_changes_neither_file(name, tmp_path, monkeypatch):
    """As a reader would who edits one of the two: jupytext finds nothing to bring in step."""
    for file in (
        ROOT / "jupytext.toml",
        ROOT / "notebooks" / f"{name}.py",
        ROOT / "notebooks" / f"{name}.ipynb",
    ):
        shutil.copyfile(file, tmp_path / file.name)
    source, notebook = tmp_path / f"{name}.py", tmp_path / f"{name}.ipynb"
    read = nbformat.read(notebook, 4)
    for cell, mine in zip(read.cells, cells(name), strict=True):
        cell.source = mine.source  # with the defaults of the source
    nbformat.write(read, notebook)
    before = source.read_text(encoding="utf-8"), nbformat.read(notebook, 4)
    monkeypatch.chdir(tmp_path)
    assert not jupytext_command(["--sync", str(source)])
    assert source.read_text(encoding="utf-8") == before[0]
    after = nbformat.read(notebook, 4)
    assert [(cell.cell_type, cell.source, cell.get("outputs")) for cell in after.cells] == [
        (cell.cell_type, cell.source, cell.get("outputs")) for cell in before[1].cells
    ]
    assert after.metadata == before[1].metadata


def test_the_published_run_decides_no_claim_without_a_finding_and_lists_every_claim():
    from sinkprune_companion.ledger.claims import OTHERS, ledger
    from sinkprune_companion.ledger.claims_table import ledger_digest

    published = json.loads((ROOT / "figures" / "claims.json").read_text(encoding="utf-8"))
    if published["parameters"].get("ledger_sha256") != ledger_digest():
        pytest.skip("the table is of an earlier ledger: `make reproduce` and `make publish` write it anew")
    measured = pd.read_csv(ROOT / "figures" / "claims.csv").set_index("id").here.notna()
    has_finding = {claim.id: claim.finding is not None for claim in ledger()}
    assert set(measured.index) == set(has_finding)
    assert all(has_finding[name] for name in measured.index[measured])
    own = [claim for claim in ledger() if claim.finding and claim.kind != OTHERS]
    assert {claim.notebook for claim in own} <= set(NAMES)


# parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsty": 0.5}, "parameter 'sparsty' does not exist in 00_start_here; it has: profile, model"),
        ({"sequences": "many"}, "sequences='many' must be a whole number of at least 2"),
        ({"sparsity": 1.2}, r"sparsity=1.2 must be a number in \[0, 1\)"),
        ({"model": "gpt-9"}, "model: unknown model 'gpt-9'; known names: smol-ar, smol-dlm"),
        ({"draws": 0}, "draws=0 must be a whole number of at least 1"),
        ({"profile": "../x"}, "profile: '../x' names a folder"),
    ],
)
def test_a_bad_parameter_is_refused_in_the_set_up_cell(parameters, message):
    """And no later cell runs."""
    with pytest.raises(ParameterError, match=message) as refused:
        run_cells("00_start_here", **parameters)
    (ran,) = [entry.frame.f_globals["In"] for entry in refused.traceback if "In" in entry.frame.f_globals]
    assert ran[-1] == tagged("00_start_here", "setup")


def test_papermill_shows_a_bad_parameter_as_one_line_and_stops(tmp_path):
    source = tmp_path / "in.ipynb"
    nbformat.write(jupytext.read(ROOT / "notebooks" / "00_start_here.py"), source)
    with pytest.raises(PapermillExecutionError, match="draws=0 must be a whole number of at least 1"):
        papermill.execute_notebook(
            source, tmp_path / "out.ipynb", {"draws": 0}, kernel_name="python3", progress_bar=False
        )
    ran = nbformat.read(tmp_path / "out.ipynb", 4)
    errors = [
        output for cell in ran.cells for output in cell.get("outputs", []) if output.output_type == "error"
    ]
    assert len(errors) == 1 and len(errors[0].traceback) == 1, "one line, not a traceback"
    assert [cell.source for cell in ran.cells if cell.get("execution_count")][-1] == tagged(
        "00_start_here", "setup"
    )


# publishing


def executed() -> tuple:
    source = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# t"),
            nbformat.v4.new_code_cell(
                "profile: str = 'manual'\na: int = 1", metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell("a"),
        ]
    )
    ran = nbformat.from_dict(json.loads(json.dumps(source)))
    ran.cells.insert(
        2,
        nbformat.v4.new_code_cell(
            '# Parameters\nprofile = "p"\na = 2\n', metadata={"tags": ["injected-parameters"]}
        ),
    )
    bar = nbformat.v4.new_output("display_data", {WIDGETS: {"model_id": "x"}, "text/plain": "0%"})
    ran.cells[3].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="warning"),
        bar,
        nbformat.v4.new_output(
            "execute_result",
            {"text/plain": "2"},
            execution_count=9,
            metadata={"image/png": {"alt": "a line", "width": 9}, "scrolled": True},
        ),
    ]
    for cell in (ran.cells[1], ran.cells[3]):
        cell.execution_count = 1
    ran.metadata = {
        "widgets": {"state": {}},
        "papermill": {"output_path": "x"},
        "kernelspec": {"name": "python3", "display_name": "x"},
    }
    return ran, source


def test_publishing_keeps_results_and_nothing_else():
    clean = clean_notebook(*executed())
    assert [cell.source for cell in clean.cells] == ["# t", "profile: str = 'manual'\na: int = 1", "a"]
    assert [output.output_type for output in clean.cells[2].outputs] == ["execute_result"]
    assert clean.cells[2].outputs[0].execution_count == clean.cells[2].execution_count == 2
    assert clean.cells[2].outputs[0].metadata == {"image/png": {"alt": "a line"}}
    assert set(clean.metadata) == {"kernelspec", "language_info"}


def test_publishing_refuses_stale_failed_and_leaking_runs():
    ran, source = executed()
    source.cells[2].source = "a + 1"
    with pytest.raises(ValueError, match="other cells"):
        clean_notebook(ran, source)
    ran, source = executed()
    ran.cells[3].execution_count = None
    with pytest.raises(ValueError, match="code cell 2 of 2 was never run"):
        clean_notebook(ran, source)
    ran, source = executed()
    ran.cells[3].outputs = [nbformat.v4.new_output("error", ename="E", evalue="boom", traceback=[])]
    with pytest.raises(ValueError, match="boom"):
        clean_notebook(ran, source)
    ran, source = executed()
    ran.cells[3].outputs = [nbformat.v4.new_output("stream", name="stdout", text=str(Path.home() / "x"))]
    with pytest.raises(ValueError, match="print paths relative"):
        clean_notebook(ran, source)
