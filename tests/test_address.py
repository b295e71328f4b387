"""The repository's address stands in one place, and everything that it decides follows."""

import shutil
import subprocess
import sys
from pathlib import Path

import address
import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(file.stem for file in (ROOT / "notebooks").glob("*.py"))
URL = "https://github.com/some-owner/a.name"
INSTALL = address.INSTALL.format(f"git+{URL}@{address.REF}")


def tree(folder: Path) -> Path:
    """Return a copy of the files that name the address."""
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of the project with an address."""
    folder = tree(tmp_path_factory.mktemp("published"))
    address.write(URL, folder)
    return folder


def test_everything_is_in_step_with_the_address_of_pyproject(tmp_path):
    assert address.write(address.address(ROOT), tree(tmp_path)) == []


def test_a_notebook_installs_the_package_from_the_address_and_from_no_registry(published, tmp_path):
    """Without an address it says how to clone: a bare name would be that of whoever registers it."""
    unpublished = tree(tmp_path)
    address.write("", unpublished)
    for name in NAMES:
        code = (published / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
        assert f"\n# {INSTALL}\n" in code and address.CLONE not in code
        code = (unpublished / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
        assert f"\n{address.CLONE}\n" in code and "pip install" not in code

    notebook = nbformat.read(published / "notebooks" / "00_start_here.ipynb", 4)
    assert any(f"{INSTALL}\n" in cell.source for cell in notebook.cells)


def test_an_address_can_be_changed_and_taken_back_without_a_trace(published, tmp_path):
    folder = tree(tmp_path)
    address.write("", folder)
    before = contents(folder)

    address.write("https://github.com/first/one", folder)
    changed = address.write(URL, folder)
    assert contents(folder) == contents(published)
    assert len(changed) == 3 + 2 * len(NAMES)

    address.write("", folder)
    assert contents(folder) == before


def test_an_address_that_colab_cannot_open_is_refused():
    url = "https://example.org/x/y"
    command = [sys.executable, str(ROOT / "tools" / "address.py"), url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.endswith(  # torch for CUDA may have said that there is none
        f"error: URL={url} is no address that Colab opens: write https://github.com/OWNER/NAME\n"
    )
