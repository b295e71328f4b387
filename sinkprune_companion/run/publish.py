"""From a run to what readers see: executed notebooks without traces of the machine, figures, findings, and
the pages that are computed from them.
"""

import json
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from sinkprune.files import file_digest, flush, make_folder, write_json
from sinkprune.models.weight_files import read_json
from sinkprune.scratch import scratch_folder
from sinkprune_companion import project_root
from sinkprune_companion.figures import figures
from sinkprune_companion.ledger import claims
from sinkprune_companion.ledger.claims_table import write_claims
from sinkprune_companion.pages import pages, sources
from sinkprune_companion.run import profiles
from sinkprune_companion.run.profiles import jobs_by_notebook, lock_of_all_runs, run_folder

MOST = 300  # characters of an error in another's words
WIDGETS = "application/vnd.jupyter.widget-view+json"
SAME_EVERYWHERE = {  # a notebook's metadata, wherever it ran
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def clean_notebook(executed: NotebookNode, source: NotebookNode) -> NotebookNode:
    """Return the notebook `source`, with its defaults as parameters, and the outputs of `executed`.

    The injected cell, progress bars, widget state, warnings on stderr and papermill's metadata stay out.
    Raises ValueError when the cells differ, one was not run, or an output is an error or names the home or
    the project directory.
    """
    clean = nbformat.from_dict(source)
    ran = _code_cells(executed)
    mine = _code_cells(clean)
    if [cell.source for cell in ran] != [cell.source for cell in mine]:
        raise ValueError("the executed notebook has other cells than its source: run it before publishing")
    for count, (cell, done) in enumerate(zip(mine, ran, strict=True), 1):
        if cell.source.strip() and done.execution_count is None:
            raise ValueError(f"code cell {count} of {len(mine)} was never run")
        shown = [_clean_output(output, count) for output in done.outputs]
        cell.outputs = [output for output in shown if output is not None]
        cell.execution_count = count
    for number, cell in enumerate(clean.cells):
        cell.id = f"cell-{number:02d}"
    clean.metadata.get("jupytext", {}).pop("text_representation", None)
    clean.metadata.update(SAME_EVERYWHERE)
    text = nbformat.writes(clean)
    for place in {str(Path.home()), str(project_root())} - {os.sep}:
        if json.dumps(place).strip('"') in text:
            raise ValueError(f"an output names {place!r}: print paths relative to the project")
    return clean


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells but the one that papermill injects."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def _clean_output(output: NotebookNode, count: int) -> NotebookNode | None:
    """Return an output of code cell `count` as readers see it, None for none; ValueError for an error."""
    if output.output_type == "error":
        raise ValueError(f"cell {count} ended with {output.ename}: {output.evalue}")
    data = output.get("data", {})
    if output.get("name") == "stderr" or WIDGETS in data:
        return None
    if "metadata" in output:
        texts = {kind: about for kind, about in output["metadata"].items() if isinstance(about, dict)}
        output["metadata"] = {kind: {"alt": about["alt"]} for kind, about in texts.items() if "alt" in about}
    if "image/png" in data:
        data["image/png"] = b64encode(figures.with_palette(b64decode(data["image/png"]))).decode()
    if output.output_type == "execute_result":
        output["execution_count"] = count
    return output


def publish(profile: str, notebooks: Sequence[str] = ()) -> list[Path]:
    """Write notebooks, figures, findings and records of `runs/<profile>`, and pages, anew; return the files.

    Claims follow from these findings and published ones of other notebooks. With `notebooks`, all but these
    stay as published. What notebooks took counts only where they measured all their records themselves.

    Raises, with everything as it was, ValueError for a profile that is no name or has no file, and for a
    notebook, finding, figure or record that is not whole; FileNotFoundError for one that is missing; and
    PresumedVerdictError where a sentence presumes another verdict than the run gives.
    """
    root = project_root()
    folder = run_folder(profile)
    with lock_of_all_runs(), scratch_folder(root / "publication") as scratch:
        known = jobs_by_notebook(profile)
        for name in notebooks:
            if name not in known:
                raise ValueError(f"--notebooks {name}: the profile has {', '.join(known)}")
        chosen = [name for name in known if not notebooks or name in notebooks]
        cleaned = {name: clean_run(root, folder, name) for name in chosen}
        claims.findings(folder)
        records = records_behind(folder, chosen)
        if notebooks and profiles.archive_file(profile).exists():
            profiles.unpack(profile)  # a clone that ran these alone lacks the records of the others
            records |= set(profiles.published_files(profile))
        shutil.copytree(folder / "findings", scratch / "findings")
        for file in (root / "figures" / "findings").glob("*.json"):
            if file.stem not in chosen:
                shutil.copyfile(file, scratch / "findings" / file.name)
        write_claims(profile, scratch)
        pages.pages(scratch)  # a sentence that does not hold any more stops here
        new = scratch / "new"
        _write_new(new, folder, cleaned)
        profiles.pack(profile, records, new / "figures" / profiles.archive_file(profile).name)
        if not (folder / "records" / profiles.MARK).exists():
            costs = sources.with_costs(profile, sources.measured_costs(folder))
            write_json(new / profiles.COSTS, costs)
        written = _replace(root, new, scratch / "old")
    return [*written, *pages.write()]


# what is looked at first


def clean_run(root: Path, folder: Path, name: str) -> NotebookNode:
    """Return one executed notebook of a run as readers see it; raise an error that names it."""
    file = folder / "notebooks" / f"{name}.ipynb"
    place = file.relative_to(root)
    again = f"run `sinkprune reproduce --profile {folder.name}` first"
    if not file.exists():
        raise FileNotFoundError(f"no finished run: {place} is missing; {again}")
    try:
        return clean_notebook(nbformat.read(file, 4), jupytext.read(root / "notebooks" / f"{name}.py"))
    except (ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:MOST]  # nbformat's words quote the whole file
        raise ValueError(f"{place} is not a whole notebook: {reason}; {again}") from error


def records_behind(folder: Path, names: list[str]) -> set[Path]:
    """Return the files of the records that findings and figures of a run's notebooks rest on.

    Raises ValueError for a record, or a file of a figure, that is missing or is not what was written, and for
    a file that belongs to no figure.
    """
    files = set()
    for name in names:
        place = folder / "figures" / name
        strange = {file.name for file in place.glob("*")}
        for file in [folder / "findings" / f"{name}.json", *sorted(place.glob("*.json"))]:
            about = read_json(file)
            for group in about.get("provenance", about).get("records", []):
                for record in group["names"]:
                    parts = set((folder / "records").glob(f"{record}.*"))
                    if len(parts) < 2:  # the record and what it is known by
                        raise ValueError(f"{file} rests on record {record}, which is missing: run it again")
                    files |= parts
            if "files" in about:  # else data that a figure has, or a figure of an earlier version
                strange -= {file.name, *about["files"]}
                for part, digest in about["files"].items():
                    _check_digest(place / part, digest)
        if strange:
            raise ValueError(
                f"{place} holds what belongs to none of its figures: {', '.join(sorted(strange))}; "
                "run the notebook again, and remove what it does not make any more"
            )
    for file in sorted(files):
        if file.suffix != ".json":
            _check_digest(file, read_json(file.with_suffix(".json")).get("sha256"))
    return files


def _check_digest(file: Path, expected: str | None) -> None:
    if not file.is_file() or file_digest(file) != expected:
        raise ValueError(f"{file} is not what was written: run the notebook again")


# what is written


def _write_new(new: Path, folder: Path, cleaned: dict[str, NotebookNode]) -> None:
    """Write notebooks, their figures and findings, and the claims below `new` as they are published."""
    make_folder(new / "notebooks")
    make_folder(new / "figures" / "findings")
    for file in (folder / "figures").glob("claims.*"):
        shutil.copy(file, new / "figures")
    for name, notebook in cleaned.items():
        nbformat.write(notebook, new / "notebooks" / f"{name}.ipynb")
        if (folder / "figures" / name).is_dir():
            shutil.copytree(folder / "figures" / name, new / "figures" / name)
        shutil.copy(folder / "findings" / f"{name}.json", new / "figures" / "findings")


def _replace(root: Path, new: Path, old: Path) -> list[Path]:
    """Put everything below `new` in its place below `root`; return the files. The folder of a notebook's
    figures is replaced as a whole: what it no longer makes goes into `old`.
    """
    flush(new)
    make_folder(old)
    files = [file for file in sorted(new.rglob("*")) if file.is_file()]
    whole = [new / "figures" / file.stem for file in files if file.suffix == ".ipynb"]
    whole = [folder for folder in whole if folder.is_dir()]
    for part in [*whole, *(file for file in files if file.parent not in whole)]:
        place = root / part.relative_to(new)
        make_folder(place.parent)
        if place.is_dir():
            os.replace(place, old / place.name)
        os.replace(part, place)
    return [root / file.relative_to(new) for file in files]
