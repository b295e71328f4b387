"""Every notebook alone, as Colab meets it: no clone, the plain package from its wheel, Colab's older Jupyter.

An environment without anything is made, Colab's versions of its kernel's packages go in, and the set-up cell
of the first notebook installs the wheel itself. `make wheel-test` runs this: about ten minutes and 2 GB.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from notebook_cells import MODELS, TINY, save_tiny_pair

ROOT = Path(__file__).resolve().parents[2]
JUPYTER = {"ipykernel": "6.17.1", "jupyter_client": "7.4.9", "ipywidgets": "7.7.1"}  # Colab's
CLONE = "# On another machine: clone the repository, and open this notebook in the clone with `make lab`."
INSTALL = '!test -z "$COLAB_RELEASE_TAG" || pip install --quiet "{}"'  # as CONTRIBUTING.md has it
KERNEL = "without-a-clone"
VERSIONS = """
import importlib.metadata as metadata, json, sinkprune_core
versions = {name: metadata.version(name) for name in %r}
print(json.dumps([sinkprune_core.__file__, versions]))
"""


def run(*command: object, **settings: object) -> str:
    """Return what a command prints; fail with it where the command fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the tracked files, with nothing of this folder beside it."""
    place = tmp_path_factory.mktemp("built")
    packed = ("pyproject.toml", "README.md", "LICENSE", "sinkprune_core", "sinkprune", "sinkprune_companion")
    tracked = run("git", "ls-files", "-z", *packed, cwd=ROOT)

    for name in filter(None, tracked.split("\0")):
        target = place / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", place, place / "source")
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory, wheel) -> Path:
    """The Python of an environment that has Colab's Jupyter and no package of this project yet."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder / "environment", with_pip=True)
    interpreter = folder / "environment" / "bin" / "python"

    pins = [f"{name}=={version}" for name, version in JUPYTER.items()]
    run(interpreter, "-m", "pip", "install", "--quiet", *pins)

    kernel = folder / "jupyter" / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    argv = [str(interpreter), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": KERNEL, "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about), encoding="utf-8")

    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patches.setenv("COLAB_RELEASE_TAG", "1")
        patches.setenv("PATH", f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}")
        patches.delenv("PYTHONPATH", raising=False)
        yield interpreter


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, str]:
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", TINY)
def test_a_notebook_runs_alone_in_an_empty_folder_to_its_last_cell(name, python, wheel, pair, tmp_path):
    """The first on the embedded models, whose adapters the wheel brings, the others on tiny ones."""
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace(CLONE, INSTALL.format(wheel))

    source, folder = tmp_path / f"{name}.ipynb", tmp_path / "alone"
    nbformat.write(notebook, source)
    folder.mkdir()

    models = {} if name == "00_start_here" else {parameter: pair[parameter] for parameter in MODELS[name]}
    parameters = {"profile": "tiny", **models, **TINY[name]}

    done = papermill.execute_notebook(
        source, source, parameters, kernel_name=KERNEL, cwd=folder, progress_bar=False
    )

    codes = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in codes)

    said = "".join(output.get("text", "") for cell in codes for output in cell.outputs)
    assert f"results go to {folder / 'runs' / 'tiny'}\n" in said
    assert (folder / "runs" / "tiny" / "findings" / f"{name}.json").is_file()
    assert {file.name for file in folder.iterdir()} == {"runs"}


def test_installing_the_package_replaced_nothing_of_the_kernel(python):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = run(python, "-c", VERSIONS % list(JUPYTER), cwd=python.parent, env=environment)
    place, versions = json.loads(said.splitlines()[-1])
    assert Path(place).is_relative_to(python.parents[1])
    assert versions == JUPYTER
