"""From a run to what readers see: executed notebooks without traces of the machine, figures, and README's claims table.

Only the pipeline writes committed outputs, so what GitHub shows is what `make reproduce` made.
"""

import json
import os
import shutil
from base64 import b64decode, b64encode
from pathlib import Path

from sinkprune_core.companion import claims, figures, style
from sinkprune_core.companion.records import Run
from sinkprune_core.files import atomic, project_root

BEGIN, END = "<!-- claims: written by `make publish` -->", "<!-- end of claims -->"
WIDGETS = "application/vnd.jupyter.widget-view+json"


def clean_notebook(executed, source):
    """Return the notebook `source` with the outputs of `executed`, and nothing else of it.

    The injected cell, progress bars, widget state, warnings on stderr and papermill's metadata stay out; the alternative
    text of pictures stays. Raises
    ValueError when the cells differ, an output is an error, or an output names the home or the project directory.
    """
    import nbformat

    ran = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    code = [cell for cell in ran if cell.cell_type == "code"]
    clean = nbformat.from_dict(source)
    mine = [cell for cell in clean.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] != [cell.source for cell in mine]:
        raise ValueError(
            "the executed notebook has other cells than its source: run it again before publishing"
        )
    for count, (cell, done) in enumerate(zip(mine, code, strict=True), 1):
        outputs = []
        for output in done.outputs:
            if output.output_type == "error":
                raise ValueError(f"cell {count} ended with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr" or WIDGETS in output.get("data", {}):
                continue
            output.pop("transient", None)
            if "metadata" in output:
                output["metadata"] = {
                    kind: {"alt": about["alt"]}
                    for kind, about in output["metadata"].items()
                    if isinstance(about, dict) and "alt" in about
                }
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = b64encode(
                    style.with_palette(b64decode(output["data"]["image/png"]))
                ).decode()
            if output.output_type == "execute_result":
                output["execution_count"] = count
            outputs.append(output)
        cell.outputs, cell.execution_count = outputs, count
    for number, cell in enumerate(clean.cells):
        cell.id = f"cell-{number:02d}"
    clean.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if "jupytext" in source.metadata:
        clean.metadata["jupytext"] = {
            name: value
            for name, value in source.metadata["jupytext"].items()
            if name != "text_representation"
        }
    text = nbformat.writes(clean)
    for place in {str(Path.home()), str(project_root())} - {os.sep}:
        if json.dumps(place).strip('"') in text:
            raise ValueError(f"an output names {place!r}: print paths relative to the project")
    return clean


def publish(profile: str) -> list[Path]:
    """Write notebooks, figures and README's table from `runs/<profile>`; return the files written.

    Raises FileNotFoundError when the profile has no finished run.
    """
    import jupytext
    import nbformat

    root = project_root()
    folder = root / "runs" / profile
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    if not executed:
        raise FileNotFoundError(
            f"no finished run in runs/{profile}: run `sinkprune reproduce --profile {profile}` first"
        )
    cleaned = {
        file.name: clean_notebook(
            nbformat.read(file, 4), jupytext.read(root / "notebooks" / f"{file.stem}.py")
        )
        for file in executed
    }
    written = []
    for name, notebook in cleaned.items():
        with atomic(root / "notebooks" / name) as partial:
            nbformat.write(notebook, partial)
        written.append(root / "notebooks" / name)
    for source in sorted((folder / "figures").rglob("*")):
        if source.is_file():
            target = root / "figures" / source.relative_to(folder / "figures")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            written.append(target)
    readme = root / "README.md"
    table = (
        claims.for_readme(claims.verdicts(claims.ledger(), claims.findings(folder))) + "\n\n" + origin(folder)
    )
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    return [*written, readme]


def origin(folder: Path) -> str:
    """Return one sentence on where a run's numbers come from: profile, commits, sources and versions."""
    runs = [
        json.loads(file.read_text(encoding="utf-8"))["provenance"]
        for file in sorted((folder / "findings").glob("*.json"))
    ]
    commits = ", ".join(sorted({str(run["git_commit"])[:12] for run in runs}))
    sources = ", ".join(sorted({run["core_source"] for run in runs}))
    versions = {package: runs[0]["versions"][package] for package in ("python", "torch", "transformers")}
    return (
        f"From profile `{folder.name}`; commit {commits}; core source {sources}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "."
    )


def with_table(readme: str, table: str) -> str:
    """Return README's text with the table between its two markers; raises ValueError when the markers are gone."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold the markers {BEGIN} and {END} once each")
    head, rest = readme.split(BEGIN)
    return head + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]


def write_claims(profile: str) -> Path:
    """Write the claims table of a run to `runs/<profile>/figures/claims.*` (PNG, PDF, CSV, JSON, Markdown); return the Markdown."""
    run = Run("", profile, {})
    table = claims.verdicts(claims.ledger(), claims.findings(run.folder))
    figures.save_figure(
        run,
        figures.plot_verdicts(table),
        "claims",
        table.reset_index(),
        "every claim with its verdict, computed from the findings of this run",
    )
    with atomic(run.folder / "figures" / "claims.md") as partial:
        partial.write_text(claims.as_markdown(table, "../") + "\n", encoding="utf-8")
    return run.folder / "figures" / "claims.md"
