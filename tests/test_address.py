"""The repository's address stands in one place, and everything that it decides follows."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import address
import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(file.stem for file in (ROOT / "notebooks").glob("*.py"))
URL = "https://github.com/some-owner/a.name"
BADGE = re.compile(r"colab-badge\.svg|badge_logo\.svg")


def tree(folder: Path) -> Path:
    """Return a copy of the files that name the address."""
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def prose(folder: Path, name: str) -> str:
    cells = jupytext.read(folder / "notebooks" / f"{name}.py").cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of the project with an address."""
    folder = tree(tmp_path_factory.mktemp("published"))
    address.write(URL, folder)
    return folder


def test_everything_is_in_step_with_the_address_of_pyproject(tmp_path):
    assert address.write(address.address(ROOT), tree(tmp_path)) == []


def test_without_an_address_there_is_no_badge_and_with_one_there_are_two_in_every_head(published, tmp_path):
    without = tree(tmp_path)
    address.write("", without)
    for name in NAMES:
        assert not BADGE.search(prose(without, name))
        head = prose(published, name).split("\n\n")[1]
        assert f"/github/some-owner/a.name/blob/{address.REF}/notebooks/{name}.ipynb)" in head
        assert f"/gh/some-owner/a.name/{address.REF}?urlpath=lab/tree/notebooks/{name}.ipynb)" in head
        assert len(BADGE.findall(prose(published, name))) == 2
    assert not BADGE.search((without / "README.md").read_text(encoding="utf-8"))
    readme = (published / "README.md").read_text(encoding="utf-8").splitlines()
    assert readme[0].startswith("# ") and len(BADGE.findall("\n".join(readme[1:4]))) == 2
    assert address.address(without) == "" and address.address(published) == URL
    assert f'repository-code: "{URL}"' in (published / "CITATION.cff").read_text(encoding="utf-8")


def test_with_an_address_no_link_of_a_notebook_leads_nowhere_from_colab(published):
    """Links are absolute, or name another notebook and have one into Colab beside them."""
    for name in NAMES:
        for target, behind in re.findall(r"\]\((?!https:)([^)]*)\)(.{0,90})", prose(published, name)):
            assert (ROOT / "notebooks" / target).is_file(), target
            assert behind.startswith(f" ([Colab]({address.COLAB}/github/some-owner/a.name/"), target
        pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", prose(published, name))
        assert all(f"/raw/{address.REF}/" in target for target in pictures if target.startswith(URL))


def test_links_of_a_clone_lead_to_files():
    for name in NAMES:
        for target in re.findall(r"\]\((?!https:)([^)#]*)\)", prose(ROOT, name)):
            assert (ROOT / "notebooks" / target).exists(), target


def test_a_notebook_installs_the_package_from_the_address_only(published):
    for folder, source in ((ROOT, ""), (published, f"sinkprune @ git+{URL}@{address.REF}")):
        for name in NAMES:
            code = (folder / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
            assert f'\nSOURCE = "{source}"  # ' in code
    notebook = nbformat.read(published / "notebooks" / "00_start_here.ipynb", 4)
    assert any(f'SOURCE = "sinkprune @ git+{URL}@{address.REF}"' in cell.source for cell in notebook.cells)


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


@pytest.mark.parametrize("url", ["github.com/x/y", "https://example.org/x/y", "https://github.com/x"])
def test_an_address_that_colab_cannot_open_is_refused(url):
    command = [sys.executable, str(ROOT / "tools" / "address.py"), url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: URL={url} is no address that Colab opens: write https://github.com/OWNER/NAME\n"
    )
