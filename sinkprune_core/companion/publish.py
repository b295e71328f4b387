"""From a run to what readers see: executed notebooks without traces of the machine, figures, findings, and
the pages that are computed from them.

Only the pipeline writes committed outputs, so what GitHub shows is what `make reproduce` made.
"""

import ast
import hashlib
import json
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_core.companion import (
    claims,
    claims_page,
    crate,
    figures,
    forests,
    ledger_commits,
    pages,
    readme,
    record_archive,
    run_costs,
)
from sinkprune_core.companion.records import Run
from sinkprune_core.files import atomic, project_root

if TYPE_CHECKING:  # what publishes nothing does without Jupyter
    from nbformat import NotebookNode

WIDGETS = "application/vnd.jupyter.widget-view+json"
LINE = 100  # characters of a line of a notebook
SHOWN_VERSIONS = ("python", "torch", "transformers")


def clean_notebook(executed: "NotebookNode", source: "NotebookNode") -> "NotebookNode":
    """Return the notebook `source` with the outputs of `executed` and the parameters that made them.

    The injected cell, progress bars, widget state, warnings on stderr and papermill's metadata stay out; the
    alternative text of pictures stays. Raises ValueError when the cells differ, an output is an error, or an
    output names the home or the project directory.
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
    show_values(clean.cells, _injected(executed))
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


def _injected(executed: "NotebookNode") -> dict[str, object]:
    """Return the values that papermill put in."""
    values = {}
    for cell in _code_cells(executed):
        if _has_tag(cell, "injected-parameters"):
            for node in ast.parse(cell.source).body:
                values[node.targets[0].id] = ast.literal_eval(node.value)
    return values


def show_values(cells: list["NotebookNode"], values: Mapping[str, object]) -> None:
    """Write a run's values into the parameters cell of a notebook, and say before it what they are.

    `profile` stays, so that whoever runs the notebook again overwrites nothing. Where no other value differs
    from its default, nothing changes.
    """
    (place,) = [number for number, cell in enumerate(cells) if _has_tag(cell, "parameters")]
    others = {name: value for name, value in values.items() if name != "profile"}
    shown = with_values(cells[place].source, others)
    if shown == cells[place].source:
        return
    cells[place].source = shown
    cells[place - 1].source += (
        f"\n\nThese values made the outputs below (profile `{values.get('profile')}`), and *Run all* takes\n"
        "as long as that profile. The defaults, in the `.py` beside this notebook, are those of profile\n"
        "quick."
    )


def with_values(source: str, values: Mapping[str, object]) -> str:
    """Return the source of a parameters cell with other values; types and comments stay as they are."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        name = node.target.id
        if name not in values or values[name] == ast.literal_eval(node.value):
            continue
        comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        head = f"{name}: {ast.unparse(node.annotation)} = "
        lines[node.lineno - 1 : node.end_lineno] = _assignment(head, values[name], comment)
    return "\n".join(lines)


def _assignment(head: str, value: object, comment: str) -> list[str]:
    """Return the lines of an assignment, a list that is too long for one line item by item."""
    line = f"{head}{_literal(value)}{comment}"
    if len(line) <= LINE or not isinstance(value, list):
        return [line]
    return [f"{head}[", *(f"    {_literal(item)}," for item in value), f"]{comment}"]


def _literal(value: object) -> str:
    """Return a value as Python with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


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

    They are of `runs/<profile>`. Raises FileNotFoundError when the profile has no finished run.
    """
    root = project_root()
    folder = root / "runs" / profile
    written = run_costs.put(profile, run_costs.measured(folder))
    written += [*_publish_notebooks(root, folder), *_publish_figures(root, folder)]
    written.append(record_archive.pack(profile, record_archive.files_behind(folder)))
    file = root / "README.md"
    text = readme.with_blocks(file.read_text(encoding="utf-8"), {"origin": origin(folder)})
    file.write_text(text, encoding="utf-8")
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


def origin(folder: Path) -> str:
    """Return two sentences on where a run's numbers come from.

    The first has profile, commit and versions of its records, the second the ledger's commit and whether it
    is older.
    """
    origins = list(_records_behind(folder).values())
    commit = _listed(str(one["git_commit"])[:12] for one in origins)
    versions = [
        f"{package} {_listed(one['versions'][package] for one in origins)}" for package in SHOWN_VERSIONS
    ]
    order = ledger_commits.before_the_run(claims.FILE, (one["git_commit"] for one in origins))
    return f"From profile `{folder.name}`: commit {commit}; {', '.join(versions)}. {order}"


def _listed(values: Iterable[str]) -> str:
    """Return different values in order, in words."""
    return " and ".join(sorted(set(values)))


def _records_behind(folder: Path) -> dict[str, dict]:
    """Return where the records behind a run's findings come from, by notebook and name of the record."""
    behind = {}
    for file in sorted((folder / "findings").glob("*.json")):
        provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        for group in provenance["records"]:
            for name in group.pop("names"):
                behind[f"{file.stem}/{name}"] = group
    return behind


def write_claims(profile: str) -> Path:
    """Write the claims table of a run to `runs/<profile>/figures/claims.*`; return the Markdown.

    PNG, PDF, CSV, JSON and Markdown. The figure's provenance is that of the records behind the findings, and
    the digest of the ledger.
    """
    run = Run("", profile, {"ledger_sha256": ledger_digest()})
    run.records_read.update(_records_behind(run.folder))
    ledger = claims.ledger()
    found = claims.findings(run.folder)
    table = claims.verdicts(ledger, found)
    figures.save_figure(
        run,
        forests.plot_verdicts(table[table.kind != claims.CONTROL]),
        "claims",
        table.reset_index(),
        "every claim of the paper with its verdict, computed from the findings of this run, and what others "
        "measured; controls are in the table",
    )
    changes = claims_page.history_text(claims.history())
    parts = [
        claims_page.as_markdown(table, "../"),
        claims_page.EXPLAINED,
        origin(run.folder),
        f"Rows of the first results, by the same rule then and now:\n\n{claims_page.then_and_now(table)}",
        claims_page.without_row_text(claims.without_row(ledger, found)),
        f"What changed in the ledger after results had been seen:\n\n{changes}",
    ]
    markdown = run.folder / "figures" / "claims.md"
    with atomic(markdown) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return markdown


def ledger_digest() -> str:
    """Return the SHA-256 of the ledger, by which a published table tells whether it is up to date."""
    return hashlib.sha256(claims.FILE.read_bytes()).hexdigest()
