"""Runs with one file spoiled: when they are published, what readers see changes as a whole or not at all."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import nbformat
import pandas as pd
import yaml
from hostile.fuzz import Case, spoiled_bytes
from hostile.fuzz_archives import in_project

from sinkprune_companion.figures import figures
from sinkprune_companion.run import publish
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import interval

SOURCE = '# %% [markdown]\n# # One\n\n# %% tags=["parameters"]\nprofile: str = "manual"\n\n# %%\n1 + 1\n'
NAMES = ("00_one", "01_two")
PROFILE = "p"


def runs(root: Path, seed: int = 0) -> Iterator[Case]:
    """A finished run of two notebooks, in which one cell was not run or one file is damaged or gone."""
    sound = root / "sound"
    with in_project(sound):
        finished_run(sound)
    place = root / "place"
    rng = random.Random(seed)
    right = _published_after(sound, place, lambda folder: None)
    run = Path("runs") / PROFILE
    for name in NAMES:
        notebook = run / "notebooks" / f"{name}.ipynb"
        for cell in (1, 2):
            damage = partial(_without_count, notebook, cell)
            yield Case(
                f"{name}: cell {cell} not run", partial(_published_after, sound, place, damage), None, (name,)
            )
    every = [file.relative_to(sound) for file in sorted((sound / run).rglob("*")) if file.is_file()]
    for file in every:
        if "benchmarks" in file.parts:
            continue  # what a job took is no result
        has_digest = file.suffix in (".csv", ".png", ".pdf")
        named = (file.name, file.stem, *NAMES)
        gone = partial(_published_after, sound, place, partial(_remove, file))
        yield Case(f"{file} gone", gone, right, named)
        for done, bad in spoiled_bytes((sound / file).read_bytes(), rng, flips=4 * has_digest, cuts=4):
            run_it = partial(_published_after, sound, place, partial(_write, file, bad))
            yield Case(f"{file}, {done}", run_it, right, named)


def finished_run(root: Path) -> None:
    """Write a project of two notebooks with a finished run, and with what an earlier one published."""
    config = root / "workflow" / "config" / f"{PROFILE}.yml"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.safe_dump({"profile": PROFILE, "notebooks": dict.fromkeys(NAMES)}))
    (root / "notebooks").mkdir()
    for name in NAMES:
        (root / "notebooks" / f"{name}.py").write_text(SOURCE)
        (root / "notebooks" / f"{name}.ipynb").write_text("old")
        (root / "figures" / name).mkdir(parents=True)
        (root / "figures" / name / "old.png").write_bytes(b"old")
        run = Run(name, PROFILE, {})
        table = run.record("measured", lambda: pd.DataFrame({"value": [0.1, 0.2, 0.4]}), seed=len(name))
        drawn = figures.plot_curves(
            table.assign(kind="a", place=table.index), "place", "value", "kind", {"place": "x", "value": "y"}
        )
        figures.save_figure(run, drawn, "curve", table, "a curve")
        run.find({"mean": interval(table.value)})
        cells = [
            nbformat.v4.new_markdown_cell("# One"),
            nbformat.v4.new_code_cell('profile: str = "manual"', execution_count=1),
            nbformat.v4.new_code_cell("1 + 1", execution_count=2),
        ]
        file = run.folder / "notebooks" / f"{name}.ipynb"
        file.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
        job = run.folder / "benchmarks" / f"{name}.tsv"
        job.parent.mkdir(exist_ok=True)
        job.write_text("cpu_time\tmax_pss\n60\t100\n")


def _published_after(sound: Path, place: Path, damage: Callable[[Path], None]) -> dict[str, bytes]:
    """Return what readers see after a spoiled run was published; a refusal leaves everything as it was."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    damage(place)
    before = seen(place)
    no_pages = mock.patch.multiple(publish.pages, pages=mock.Mock(), write=list)  # they are of the project
    with in_project(place), no_pages:
        try:
            publish.publish(PROFILE)
        except Exception:
            if seen(place) != before:
                raise AssertionError("it changed what readers see before it refused") from None
            raise
    return seen(place)


def seen(root: Path) -> dict[str, bytes]:
    """Return what readers see: everything but the run and locks."""
    every = [file for file in root.rglob("*") if file.is_file() and "runs" not in file.parts]
    return {str(file.relative_to(root)): file.read_bytes() for file in every}


def _without_count(file: Path, cell: int, root: Path) -> None:
    notebook = nbformat.read(root / file, 4)
    notebook.cells[cell].execution_count = None
    nbformat.write(notebook, root / file)


def _remove(file: Path, root: Path) -> None:
    (root / file).unlink()


def _write(file: Path, data: bytes, root: Path) -> None:
    (root / file).write_bytes(data)
