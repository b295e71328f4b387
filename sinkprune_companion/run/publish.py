"""From a run to what readers see: executed notebooks without traces of the machine, figures, findings, and
the pages that are computed from them.

Only the pipeline writes committed outputs, so what GitHub shows is what `make reproduce` made.
"""

import json
import os
import shutil
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.figures import figures
from sinkprune_companion.pages import pages
from sinkprune_companion.run import crate, record_archive, run_costs
from sinkprune_core.files import atomic, project_root

if TYPE_CHECKING:  # what publishes nothing does without Jupyter
    from nbformat import NotebookNode

WIDGETS = "application/vnd.jupyter.widget-view+json"


def clean_notebook(executed: "NotebookNode", source: "NotebookNode") -> "NotebookNode":
    """Return the notebook `source` with the outputs of `executed`.

    Its parameters cell keeps the defaults, so that *Run all* takes minutes; the values that made the outputs
    are in the output of the set-up cell. The injected cell, progress bars, widget state, warnings on stderr
    and papermill's metadata stay out; the alternative text of pictures stays. Raises ValueError when the
    cells differ, an output is an error, or an output names the home or the project directory.
    """
    import nbformat

    clean = nbformat.from_dict(source)
    ran = [cell for cell in _code_cells(executed) if not _has_tag(cell, "injected-parameters")]
    mine = _code_cells(clean)
    if [cell.source for cell in ran] != [cell.source for cell in mine]:
        raise ValueError(
            "the executed notebook has other cells than its source: run it again before publishing"
        )
    for count, (cell, done) in enumerate(zip(mine, ran, strict=True), 1):
        cell.outputs = _clean_outputs(done.outputs, count)
        cell.execution_count = count
    for number, cell in enumerate(clean.cells):
        cell.id = f"cell-{number:02d}"
    clean.metadata = _clean_metadata(source.metadata)
    text = nbformat.writes(clean)
    for place in {str(Path.home()), str(project_root())} - {os.sep}:
        if json.dumps(place).strip('"') in text:
            raise ValueError(f"an output names {place!r}: print paths relative to the project")
    return clean


def _has_tag(cell: "NotebookNode", tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _code_cells(notebook: "NotebookNode") -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _clean_outputs(outputs: list, count: int) -> list:
    """Return the outputs of code cell `count` that readers see; raises ValueError for an error."""
    kept = []
    for output in outputs:
        if output.output_type == "error":
            raise ValueError(f"cell {count} ended with {output.ename}: {output.evalue}")
        data = output.get("data", {})
        if output.get("name") == "stderr" or WIDGETS in data:
            continue
        output.pop("transient", None)
        if "metadata" in output:
            output["metadata"] = _alternative_texts(output["metadata"])
        if "image/png" in data:
            smaller = figures.with_palette(b64decode(data["image/png"]))
            data["image/png"] = b64encode(smaller).decode()
        if output.output_type == "execute_result":
            output["execution_count"] = count
        kept.append(output)
    return kept


def _alternative_texts(metadata: dict) -> dict:
    """Return the alternative texts of pictures in an output's metadata, by media type."""
    return {
        kind: {"alt": about["alt"]}
        for kind, about in metadata.items()
        if isinstance(about, dict) and "alt" in about
    }


def _clean_metadata(metadata: dict) -> dict:
    """Return a notebook's metadata that is the same wherever it ran."""
    clean = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if "jupytext" in metadata:
        paired = dict(metadata["jupytext"])
        paired.pop("text_representation", None)
        clean["jupytext"] = paired
    return clean


def publish(profile: str) -> list[Path]:
    """Write notebooks, figures, findings, records, the pages computed from them and the crate; return the
    files.

    They are of `runs/<profile>`. What its notebooks took counts only where they measured all their records
    themselves. Raises FileNotFoundError when the profile has no finished run, and PresumedVerdictError when a
    sentence presumes another verdict than the run gives.
    """
    root = project_root()
    folder = root / "runs" / profile
    if (folder / "findings").is_dir():
        pages.pages(folder)  # a sentence that does not hold any more stops here, before anything is replaced
    written = [*_publish_notebooks(root, folder), *_publish_figures(root, folder)]
    if not record_archive.restored(profile):
        written += run_costs.put(profile, run_costs.measured(folder))
    written.append(record_archive.pack(profile, record_archive.files_behind(folder)))
    return [*written, *pages.write(), crate.write(root)]


def _publish_notebooks(root: Path, folder: Path) -> list[Path]:
    """Write a run's notebooks to the project if all are clean; return the files written."""
    import jupytext
    import nbformat

    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    if not executed:
        raise FileNotFoundError(
            f"no finished run in runs/{folder.name}: run `sinkprune reproduce --profile {folder.name}` first"
        )
    cleaned = {}
    for file in executed:
        source = jupytext.read(root / "notebooks" / f"{file.stem}.py")
        cleaned[root / "notebooks" / file.name] = clean_notebook(nbformat.read(file, 4), source)
    for target, notebook in cleaned.items():
        with atomic(target) as partial:
            nbformat.write(notebook, partial)
    return list(cleaned)


def _publish_figures(root: Path, folder: Path) -> list[Path]:
    """Copy a run's figures and findings to the project's `figures/` and remove those that it no longer
    makes; return the files written.
    """
    sources = {file: file.relative_to(folder / "figures") for file in (folder / "figures").rglob("*")}
    sources |= {file: file.relative_to(folder) for file in (folder / "findings").glob("*.json")}
    for notebook in (folder / "findings").glob("*.json"):
        shutil.rmtree(root / "figures" / notebook.stem, ignore_errors=True)
    written = []
    for source, place in sorted(sources.items()):
        if source.is_file():
            target = root / "figures" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            written.append(target)
    return written
