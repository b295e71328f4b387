"""What a newcomer meets first: stated versions, what the package holds, no paths of a machine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import sinkprune
import sinkprune_core

PACKAGES = ("sinkprune_core", "sinkprune", "sinkprune_companion")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = PROJECT["requires-python"].removeprefix(">=")
ENVIRONMENTS = {"environment.yml": "pytorch-cpu", "environment-gpu.yml": "pytorch-gpu"}
INSTALLS = {"environment.yml": "-e .", "environment-gpu.yml": "-e .[notebooks,eval]"}


def split(requirement: str) -> tuple[str, str]:
    """Return the name and the version range of a requirement; `=` and `==` pins keep their operator."""
    name, versions = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    return name.lower(), versions.replace(" ", "")


RANGES = dict(split(requirement) for requirement in PROJECT["dependencies"])


# versions


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_file_agrees_with_pyproject(name):
    stated = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    conda = dict(split(line) for line in stated["dependencies"] if isinstance(line, str))
    (pip,) = [entry["pip"] for entry in stated["dependencies"] if isinstance(entry, dict)]

    assert stated["channels"][0] == "conda-forge"
    assert conda["python"] == f"={PYTHON}"  # one `=`: Binder looks for that
    assert conda[ENVIRONMENTS[name]] == RANGES["torch"]
    assert "pip" in conda
    assert INSTALLS[name] in pip  # the package itself, or no notebook can import it

    for package, versions in map(split, (line for line in pip if not line.startswith("-"))):
        assert versions == RANGES[package]
    assert "transformers" in dict(split(line) for line in pip if not line.startswith("-"))


# the package


@pytest.mark.parametrize("script", PROJECT["scripts"].values())
def test_every_command_of_the_package_leads_to_a_function(script):
    module, _, name = script.partition(":")
    assert callable(getattr(import_module(module), name))


def test_a_wheel_holds_every_file_of_the_package_and_nothing_else(tmp_path):
    # asked without importing it, which would meddle with distutils here
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is too old to build this package")
    source = tmp_path / "source"

    def touch(_: str, copy: str) -> None:
        Path(copy).touch()

    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / package, source / package, ignore=ignored, copy_function=touch)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    (source / "figures").mkdir()  # what lies beside the package stays out
    (source / "figures" / "draw.py").touch()
    # without pip, so without a network
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    built = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }


# traces


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in os.fsdecode(listed).split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_holds_a_path_of_a_machine_or_the_host_of_a_registry():
    hosts = ("pypi", "pythonhosted", "download.pytorch", "anaconda", "npmjs", "deb.debian")
    forbidden = [rb"/(?:root|home|Users)/\w", *(re.escape(f"{host}.org").encode() for host in hosts)]

    if len(ROOT.parts) > 2:  # this checkout's own place, unless it is too short to tell
        forbidden.append(re.escape(os.fsencode(ROOT)) + rb"\b")
    pattern = re.compile(b"|".join(forbidden))

    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in tracked_files()
        if (match := pattern.search(path.read_bytes()))
    }
    assert not found


def test_no_tracked_file_is_larger_than_the_adapter_may_be():
    assert not [path for path in tracked_files() if path.stat().st_size > 25 * 2**20]


# what Binder would build: a dry run of repo2docker, which needs no Docker and no network


def plan(folder: Path) -> tuple[str, list[str]]:
    """Return what repo2docker says about a folder, and its Dockerfile without comments."""
    options = ["--no-build", "--debug", "--user-id", "1000", "--user-name", "jovyan"]
    command = [sys.executable, "-m", "repo2docker", *options, str(folder)]
    planned = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout + planned.stderr
    lines = said[said.index("\nFROM ") :].splitlines()
    return said, [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.slow
def test_binder_builds_the_environment_of_the_root_and_nothing_besides():
    pytest.importorskip("repo2docker", reason="it comes with the extra `dev`")
    said, dockerfile = plan(ROOT)
    assert f"Building conda environment for python={PYTHON}\n" in said
    text = "\n".join(dockerfile)
    assert re.findall(r'env update -p \S+ --file "([^"]+)"', text) == ["environment.yml"]
    for surprise in ("postBuild", "requirements.txt", "apt.txt", "pip install", "runtime.txt", "binder/"):
        assert surprise not in text, surprise
    assert not [line for line in dockerfile if line.startswith("FROM ")][1:], "one stage"


@pytest.mark.parametrize("package", [sinkprune, sinkprune_core])
def test_public_names_are_listed_and_found(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)
