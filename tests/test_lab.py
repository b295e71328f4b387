"""What `make lab` opens: notebooks that a look leaves as they are, and no sources beside them."""

import asyncio
import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytest.importorskip("jupyter_server", reason="the extra `notebooks` is not installed")

from traitlets.config.loader import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[1]
JUPYTER = ROOT / "tools" / "jupyter"
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def config():
    return PyFileConfigLoader("jupyter_server_config.py", str(JUPYTER)).load_config()


def test_a_notebook_opens_as_its_kernel_makes_it_and_is_saved_as_it_was(config, tmp_path):
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", tmp_path)
    file = tmp_path / "00_start_here.ipynb"
    kept = file.read_bytes()
    manager = config.ServerApp.contents_manager_class(root_dir=str(tmp_path))
    manager.notary.db_file = ":memory:"
    manager.notary.secret = b"of this test"

    model = asyncio.run(manager.get(file.name))
    opened = model["content"]["metadata"]
    assert re.fullmatch(r"3\.\d+\.\S+", opened["language_info"]["version"]), "as a kernel would set it"

    asyncio.run(manager.save(model, file.name))
    assert json.loads(file.read_bytes()) == json.loads(kept)


def test_the_file_browser_shows_notebooks_alone_and_the_first_one_opens(config):
    hidden = config.ContentsManager.hide_globs
    shown = [
        file
        for file in NOTEBOOKS.iterdir()
        if not any(fnmatch(file.name, glob) for glob in [*hidden, ".*"])  # Jupyter lists no dot files
    ]
    assert {file.suffix for file in shown} == {".ipynb"}
    assert len(shown) == len(list(NOTEBOOKS.glob("*.ipynb")))

    first = config.LabApp.default_url.removeprefix("/lab/tree/")
    assert ROOT / first == min(shown)


def test_settings_are_those_that_jupyterlab_knows():
    pytest.importorskip("jupyterlab", reason="the extra `notebooks` is not installed")
    from jupyterlab.commands import get_app_dir

    settings = json.loads((JUPYTER / "labconfig" / "default_setting_overrides.json").read_bytes())
    for name, values in settings.items():
        package, plugin = name.split(":")
        schema = json.loads((Path(get_app_dir()) / "schemas" / package / f"{plugin}.json").read_bytes())
        assert values.keys() <= schema["properties"].keys()
