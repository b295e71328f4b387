"""What a newcomer meets first: stated versions, the Makefile, what the package holds, no machine paths."""

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

PACKAGES = ("sinkprune_core", "sinkprune_companion")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = PROJECT["requires-python"].removeprefix(">=")
EXTRAS = PROJECT["optional-dependencies"]
README = ROOT / "README.md"
ENVIRONMENTS = {"environment.yml": "pytorch-cpu", "environment-gpu.yml": "pytorch-gpu"}
INSTALLS = {"environment.yml": "-e .", "environment-gpu.yml": "-e .[notebooks,eval]"}


def split(requirement: str) -> tuple[str, str]:
    """Return the name and the version range of a requirement; `=` and `==` pins keep their operator."""
    name, versions = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    return name.lower(), versions.replace(" ", "")


RANGES = dict(split(requirement) for requirement in PROJECT["dependencies"])
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Run make as from a fresh shell, also when these tests were started by make."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "PROFILE", "VENV", "ARGS")
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def fake_python(folder: Path, refuse: str, version: str = "3.12") -> Path:
    """Return an interpreter that claims `version`, and fails when asked to run code with `refuse` in it."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$2" in *"{refuse}"*) exit 1;; *print*) echo {version};; esac\n')
    path.chmod(0o755)
    return path


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


def test_the_matrix_of_public_runs_covers_what_is_admitted():
    """Every Python line from the lowest on, and the lowest versions of the ranges in pyproject.toml."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["fast"]["strategy"]["matrix"]
    lines = [int(line.partition(".")[2]) for line in matrix["python"]]
    assert matrix["python"][0] == PYTHON and lines == list(range(lines[0], lines[0] + len(lines)))
    (lowest,) = [entry["pins"].split() for entry in matrix["include"] if entry["versions"] == "lowest"]
    least = {name: RANGES[name].partition(",")[0].removeprefix(">=") for name in ("torch", "transformers")}
    assert lowest == [f"{name}=={version}.*" for name, version in least.items()]
    assert matrix["versions"] == [entry["versions"] for entry in matrix["include"]]


def test_binder_gets_what_a_notebook_needs_and_nothing_that_only_pipelines_need():
    """Notebooks run from the plain package; Binder has JupyterLab anyway."""
    stated = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = dict(split(line) for line in stated["dependencies"] if isinstance(line, str))
    notebooks = dict(map(split, EXTRAS["notebooks"]))
    assert set(conda) == {"python", "pip", "pytorch-cpu", "jupyterlab", "ipywidgets"}
    assert all(conda[name] == notebooks[name] for name in ("jupyterlab", "ipywidgets"))
    (pip,) = [entry["pip"] for entry in stated["dependencies"] if isinstance(entry, dict)]
    assert not [line for line in pip if "[" in line], "no extra"


@pytest.mark.skipif(not README.exists(), reason="no README.md here")
def test_readme_agrees_with_pyproject():
    text = (
        re.sub(r"[`*]", "", README.read_text(encoding="utf-8")).replace("≥", ">=").replace("%E2%89%A5", ">=")
    )
    pythons = re.findall(r"Python\s*(?:>=\s*)?(3\.\d+)", text)
    assert pythons, f"README.md should say: Python >= {PYTHON}"
    assert set(pythons) == {PYTHON}
    for package in ("torch", "transformers"):
        floor = RANGES[package].split(",")[0].removeprefix(">=")
        stated = re.findall(rf"\b{package}\s*>=\s*([\d.]+\d)", text)
        assert stated, f"README.md should say: {package} >= {floor}"
        assert set(stated) == {floor}


def test_this_environment_is_inside_the_ranges():
    from packaging.specifiers import SpecifierSet

    assert sys.version_info[:2] >= tuple(map(int, PYTHON.split(".")))
    for package, versions in RANGES.items():
        assert SpecifierSet(versions).contains(version(package), prereleases=True), package


def test_makefile_checks_for_the_python_of_pyproject():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({PYTHON.replace('.', ', ')})" in text
    assert f"Python {PYTHON} or newer" in text


def test_makefile_installs_every_extra():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (installed,) = re.findall(r"--editable '\.\[([\w,]+)\]'", text)
    assert set(installed.split(",")) == set(EXTRAS)
    assert "snakemake" in dict(map(split, EXTRAS["notebooks"]))  # `make reproduce` needs it


def test_citation_states_the_version_and_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == PROJECT["version"]
    assert cited["license"] == PROJECT["license"] == "Apache-2.0"
    assert "2602.17664" in cited["references"][0]["url"]
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text(encoding="utf-8")


# the Makefile


@needs_make
def test_make_alone_lists_the_targets():
    listing = make().stdout
    for target in ("reproduce", "test", "lab", "train", "publish", "benchmark", "clean"):
        assert f"make {target} " in listing


@needs_make
@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("test",), "bin/python -m pytest -q"),
        (("reproduce",), "bin/sinkprune reproduce --profile quick"),
        (("reproduce", "PROFILE=full"), "bin/sinkprune reproduce --profile full"),
        (("lab",), "bin/jupyter lab notebooks"),
        (("train", "ARGS=--help"), "bin/sinkprune train --help"),
        (("benchmark",), "bin/python -m pytest tests/benchmarks"),
    ],
)
def test_a_target_makes_the_environment_and_then_runs_its_command(arguments, command, tmp_path):
    venv = tmp_path / "venv"
    planned = make("-n", *arguments, f"VENV={venv}")
    assert planned.returncode == 0, planned.stderr
    order = [
        planned.stdout.find(step) for step in (f"-m venv --clear {venv}", "--editable", f"{venv}/{command}")
    ]
    assert -1 not in order and order == sorted(order)
    assert not venv.exists()


@needs_make
def test_the_environment_is_made_again_only_when_pyproject_is_newer(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    stamp = tmp_path / ".venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (2e9, 2e9))
    assert "pip install" not in make("-n", "test", folder=tmp_path).stdout
    os.utime(tmp_path / "pyproject.toml", (2.1e9, 2.1e9))
    assert "pip install" in make("-n", "test", folder=tmp_path).stdout


@needs_make
def test_an_old_python_gives_one_clear_error(tmp_path):
    python = fake_python(tmp_path, "version_info <", version="3.9")
    refused = make("venv", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert refused.returncode != 0
    assert refused.stderr.count("error: ") == 1
    assert f"Python {PYTHON} or newer is needed and {python} is 3.9" in refused.stderr
    assert not (tmp_path / "venv").exists()


@needs_make
def test_a_missing_python_gives_one_clear_error(tmp_path):
    refused = make("venv", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}")
    assert refused.returncode != 0
    assert f"Python {PYTHON} or newer is needed and no-such-python is missing" in refused.stderr
    assert "Traceback" not in refused.stderr


@needs_make
def test_a_python_without_ensurepip_names_the_package_to_install(tmp_path):
    python = fake_python(tmp_path, "import ensurepip")
    refused = make("venv", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert refused.returncode != 0
    assert "apt install python3.12-venv" in refused.stderr
    assert not (tmp_path / "venv").exists()


@needs_make
def test_a_half_made_environment_is_made_anew(tmp_path):
    """An environment whose Python does not run is cleared; the fake interpreter stops right there."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    broken = tmp_path / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.symlink_to(tmp_path / "gone")
    (tmp_path / ".venv" / "rubbish").touch()
    marker = tmp_path / "python"
    marker.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{tmp_path}/calls"\n'
        'case "$2" in *print*) echo 3.12;; esac\n'
        '[ "$2" != venv ]\n'
    )
    marker.chmod(0o755)
    stopped = make("venv", f"PYTHON={marker}", folder=tmp_path)
    assert stopped.returncode != 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "-m venv --clear .venv"
    assert not (tmp_path / ".venv" / ".ready").exists(), "the stamp must come last"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX script")
def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "make test" in script.read_text(encoding="utf-8")


# the package


@pytest.mark.parametrize("script", PROJECT["scripts"].values())
def test_every_command_of_the_package_leads_to_a_function(script):
    module, _, name = script.partition(":")
    assert callable(getattr(import_module(module), name))


def test_a_wheel_holds_every_file_of_the_package_and_nothing_else(tmp_path):
    if (
        int(version("setuptools").split(".")[0]) < 77
    ):  # asked without importing it, which would meddle with distutils here
        pytest.skip("setuptools is too old to build this package")
    source = tmp_path / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
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
    hosts = [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download.pytorch", "org"),
        ("anaconda", "org"),
        ("npmjs", "org"),
        ("deb.debian", "org"),
    ]
    forbidden = [rb"/(?:root|home|Users)/\w"] + [re.escape(".".join(host)).encode() for host in hosts]
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
