"""What `make lab` tells JupyterLab, beside the settings in `labconfig`; a reader's own settings go first.

Notebooks open as they are kept. What their kernel adds to their metadata, its version among it, is there from
the beginning, so that a look changes nothing, and it is taken out again when a notebook is saved.
"""

from pathlib import Path

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelspec import get_kernel_dict
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

ROOT = Path(__file__).resolve().parents[2]
PAIRED = "[0-9][0-9]_*.py"  # the reviewed sources of notebooks
NAME = "python3"
KEPT = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": NAME},
    "language_info": {"name": "python"},
}


def of_kernel() -> dict[str, dict]:
    """Return what a notebook's metadata say when its kernel runs."""
    about = get_kernel_dict()
    spec = {"display_name": about["display_name"], "language": about["language"], "name": NAME}
    return {"kernelspec": spec, "language_info": dict(IPythonKernel.language_info)}


class Notebooks(AsyncLargeFileManager):
    """Files of the project, among them notebooks that are not changed by being looked at."""

    async def get(self, path, content=True, type=None, format=None, require_hash=False):
        """Return a file; see AsyncContentsManager."""
        model = await super().get(path, content, type, format, require_hash)
        if _is_notebook(model):
            model["content"]["metadata"] |= of_kernel()
        return model

    async def save(self, model, path=""):
        """Save a file; see AsyncContentsManager."""
        if _is_notebook(model):
            model["content"]["metadata"] |= KEPT
        return await super().save(model, path)


def _is_notebook(model: dict) -> bool:
    """Return whether a model holds a notebook of the project's kernel."""
    if model["type"] != "notebook" or model.get("content") is None:
        return False
    return model["content"]["metadata"].get("kernelspec", {}).get("name") == NAME


c = get_config()  # noqa: F821 (Jupyter gives it)
c.ServerApp.root_dir = str(ROOT)
c.ServerApp.contents_manager_class = Notebooks
c.ServerApp.jpserver_extensions = {"jupyterlab_jupytext": False}  # it refuses pairs by their times in a clone
c.ContentsManager.hide_globs = ["__pycache__", "*.egg-info", PAIRED, "ruff.toml"]
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.LabApp.workspaces_dir = str(ROOT / "build" / "lab")  # tabs of other projects stay there
