"""From a run to what readers see: notebooks without traces of the machine, figures, findings and pages."""

import json
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import jupytext
import nbformat
from jinja2 import UndefinedError
from nbformat import NotebookNode

from sinkprune.files import flush, make_folder, write_json
from sinkprune.scratch import scratch_folder
from sinkprune_companion import project_in, project_root
from sinkprune_companion.figures import figures
from sinkprune_companion.figures.claims_table import write_claims
from sinkprune_companion.ledger import claims
from sinkprune_companion.pages import pages, sources
from sinkprune_companion.run import profiles, run_files
from sinkprune_companion.run.notebook_code import code_cells
from sinkprune_companion.run.profiles import jobs_by_notebook, lock_of_all_runs, run_folder
from sinkprune_companion.run.progress_bars import is_progress

MOST = 300  # characters of an error in another's words
SAME_EVERYWHERE = {  # a notebook's metadata, wherever it ran
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def clean_notebook(executed: NotebookNode, source: NotebookNode) -> NotebookNode:
    """Return the notebook `source`, with its defaults as parameters, and the outputs of `executed`.

    Words in other cells than code may have changed since it ran.
    The injected cell, progress bars, widget state, warnings on stderr and papermill's metadata stay out.
    Raises ValueError when the code differs, a cell was not run, or an output is an error or names the home or
    the project directory.
    """
    clean = nbformat.from_dict(source)
    ran = code_cells(executed)
    mine = code_cells(clean)
    if [cell.source for cell in ran] != [cell.source for cell in mine]:
        raise ValueError("the executed notebook has other code than its source: run it before publishing")

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


def _clean_output(output: NotebookNode, count: int) -> NotebookNode | None:
    """Return an output of code cell `count` as readers see it, None for none; ValueError for an error."""
    if output.output_type == "error":
        raise ValueError(f"cell {count} ended with {output.ename}: {output.evalue}")

    data = output.get("data", {})
    if output.get("name") == "stderr" or is_progress(output):
        return None

    if "metadata" in output:
        output["metadata"] = _words_and_widths(output["metadata"])
    if "image/png" in data:
        data["image/png"] = _smaller_picture(data["image/png"], count)
    if output.output_type == "execute_result":
        output["execution_count"] = count

    return output


def _words_and_widths(metadata: Mapping[str, object]) -> dict[str, dict[str, str | int]]:
    """Return the alternative texts of an output and its widths, by the kind of its data, and nothing else."""
    kept = {}
    for kind, about in metadata.items():
        if isinstance(about, dict) and isinstance(about.get("alt"), str):
            kept[kind] = {"alt": about["alt"]}
            if isinstance(about.get("width"), int):
                kept[kind]["width"] = about["width"]
    return kept


def _smaller_picture(encoded: str, count: int) -> str:
    """Return a picture of code cell `count` with a palette; ValueError for what is no picture."""
    try:
        png = b64decode(encoded, validate=False)
        return b64encode(figures.with_palette(png)).decode()
    except (OSError, SyntaxError, TypeError, ValueError):
        raise ValueError(f"cell {count} shows what is no PNG") from None


def publish(profile: str, notebooks: Sequence[str] = ()) -> list[Path]:
    """Write notebooks, figures, findings and records of `runs/<profile>`, and pages, anew; return the files.

    Claims follow from these findings and published ones of other notebooks. With `notebooks`, all but these
    stay as published. What notebooks took counts only where they measured all their records themselves.

    Raises, with everything as it was, ValueError for a profile that is no name or has no file, for a
    notebook, finding, figure or record that is not whole, and for a number that a page takes and no finding
    has; FileNotFoundError for one that is missing; KeyError for a finding that a picture lacks; and
    PresumedVerdictError where a sentence presumes another verdict than the run gives.
    """
    root = project_root()
    folder = run_folder(profile)
    with lock_of_all_runs(), scratch_folder(root / "publication") as scratch:
        chosen = _chosen(profile, notebooks)
        cleaned = {name: clean_run(root, folder, name) for name in chosen}
        records = run_files.records_behind(folder, chosen)
        _gather_findings(root, folder, chosen, scratch)

        new = scratch / "new"
        _write_new(new, folder, cleaned)
        write_claims(profile, scratch, new / "figures")
        if not (folder / "records" / profiles.MARK).exists():  # which unpacking, below, makes
            costs = sources.with_costs(profile, sources.measured_costs(folder))
            write_json(new / profiles.COSTS, costs)

        _write_pages(root, new, scratch / "project")  # a sentence that does not hold any more stops here

        if notebooks and profiles.archive_file(profile).exists():
            profiles.unpack(profile)  # a clone that ran these alone lacks the records of the others
            records |= set(profiles.published_files(profile))
        profiles.pack(profile, records, new / "figures" / profiles.archive_file(profile).name)

        return _replace(root, new, scratch / "old")


# what is looked at first


def _chosen(profile: str, notebooks: Sequence[str]) -> list[str]:
    """Return the notebooks of a profile that are published; ValueError for one that it does not have."""
    known = jobs_by_notebook(profile)
    for name in notebooks:
        if name not in known:
            raise ValueError(f"--notebooks {name}: the profile has {', '.join(known)}")
    return [name for name in known if not notebooks or name in notebooks]


def clean_run(root: Path, folder: Path, name: str) -> NotebookNode:
    """Return one executed notebook of a run as readers see it; raise an error that names it."""
    file = folder / "notebooks" / f"{name}.ipynb"
    place = file.relative_to(root)
    again = f"run `sinkprune reproduce --profile {folder.name}` first"
    if not file.exists():
        raise FileNotFoundError(f"no finished run: {place} is missing; {again}")

    try:
        executed = read_notebook(file)
        return clean_notebook(executed, jupytext.read(root / "notebooks" / f"{name}.py"))
    except ValueError as error:
        reason = " ".join(str(error).split())[:MOST]  # nbformat's words quote the whole file
        raise ValueError(f"{place} is not a whole notebook: {reason}; {again}") from error


def read_notebook(file: Path) -> NotebookNode:
    """Return a notebook of format 4; raise ValueError for what is none."""
    try:
        content = json.loads(file.read_bytes())
    except RecursionError as error:
        raise ValueError(str(error)) from None

    if not isinstance(content, dict) or content.get("nbformat") != 4:
        raise ValueError("it is no notebook of format 4")

    try:
        nbformat.validate(content)
    except nbformat.ValidationError as error:
        raise ValueError(error.message) from None
    except (AttributeError, KeyError, TypeError) as error:  # before it validates, nbformat looks for ids
        raise ValueError(f"its cells are not those of a notebook ({error})") from None

    return nbformat.reads(json.dumps(content), as_version=4)


def _gather_findings(root: Path, folder: Path, chosen: list[str], scratch: Path) -> None:
    """Put findings of a run's notebooks, and published ones of all others, below `scratch`."""
    make_folder(scratch / "findings")
    for name in chosen:
        shutil.copyfile(folder / "findings" / f"{name}.json", scratch / "findings" / f"{name}.json")

    for file in (root / "figures" / "findings").glob("*.json"):
        if file.stem not in chosen:
            run_files.read_findings(file)
            shutil.copyfile(file, scratch / "findings" / file.name)

    claims.findings(scratch)  # whose numbers must be estimates


# what is written


def _write_new(new: Path, folder: Path, cleaned: dict[str, NotebookNode]) -> None:
    """Write notebooks, their figures and their findings below `new` as they are published."""
    make_folder(new / "notebooks")
    make_folder(new / "figures" / "findings")

    for name, notebook in cleaned.items():
        nbformat.write(notebook, new / "notebooks" / f"{name}.ipynb")
        if (folder / "figures" / name).is_dir():
            shutil.copytree(folder / "figures" / name, new / "figures" / name)
        shutil.copy(folder / "findings" / f"{name}.json", new / "figures" / "findings")


def _write_pages(root: Path, new: Path, project: Path) -> None:
    """Put pages, and the pictures on them, below `new`, as they will be with everything that is there by now.

    They are written in `project`, a copy of what they read.
    """
    make_folder(project)
    shutil.copyfile(root / "pyproject.toml", project / "pyproject.toml")  # with the repository's address

    archives = shutil.ignore_patterns("records-*")
    for name in ("docs", "figures", "notebooks"):
        if (root / name).is_dir():
            shutil.copytree(root / name, project / name, ignore=archives)

    for folder in _whole_folders(new):
        shutil.rmtree(project / folder.relative_to(new), ignore_errors=True)
    shutil.copytree(new, project, dirs_exist_ok=True)

    try:
        with project_in(project):
            written = pages.write()
    except UndefinedError as error:
        raise ValueError(f"a page takes a number that no finding has: {error}") from None

    for file in written:
        place = new / file.relative_to(project)
        make_folder(place.parent)
        os.replace(file, place)


def _whole_folders(new: Path) -> list[Path]:
    """Return the folders of figures below `new` that replace others as a whole: those of its notebooks."""
    folders = [new / "figures" / file.stem for file in sorted((new / "notebooks").glob("*.ipynb"))]
    return [folder for folder in folders if folder.is_dir()]


def _replace(root: Path, new: Path, old: Path) -> list[Path]:
    """Put everything below `new` in its place below `root`; return the files. The folder of a notebook's
    figures is replaced as a whole: what it no longer makes goes into `old`.
    """
    flush(new)
    make_folder(old)
    files = [file for file in sorted(new.rglob("*")) if file.is_file()]
    whole = _whole_folders(new)

    for part in [*whole, *(file for file in files if file.parent not in whole)]:
        place = root / part.relative_to(new)
        make_folder(place.parent)
        if place.is_dir():
            os.replace(place, old / place.name)
        os.replace(part, place)

    return [root / file.relative_to(new) for file in files]
