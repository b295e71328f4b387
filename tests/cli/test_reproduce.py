"""`sinkprune reproduce` holds its lock before it writes, and says what failed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from sinkprune.cli.main import main
from sinkprune_companion.cli import reproduce
from sinkprune_companion.cli.reproduce import failures
from sinkprune_companion.run import profiles

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
RUN_ON = """
import subprocess, sys
WAIT = "import sys; sys.stdin.read()"
from pathlib import Path
from sinkprune_companion.run import profiles
profiles.project_root = lambda: Path(sys.argv[1])
with profiles.lock_of_all_runs() as lock:
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdin=0, stdout=2, pass_fds=[lock])
    print("started", flush=True)
    process.wait()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a profile, a place and an archive of two records."""
    for module in (profiles, reproduce):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)

    for file, content in (
        ("config/tiny.yml", {"notebooks": {"00_one": {}}}),
        ("profiles/local/config.yaml", {}),
    ):
        (tmp_path / "workflow" / file).parent.mkdir(parents=True)
        (tmp_path / "workflow" / file).write_text(yaml.safe_dump(content))

    records = tmp_path / "runs" / "tiny" / "records"
    (records / "measured").mkdir(parents=True)
    for suffix in ("csv", "json"):
        (records / "measured" / f"0123456789ab.{suffix}").write_text("{}")

    profiles.pack("tiny", records.rglob("*"), profiles.archive_file("tiny"))
    records.rename(tmp_path / "elsewhere")
    return tmp_path


def test_records_wait_for_the_lock(project, refused):
    with profiles.lock_of_all_runs():
        sentence = refused("reproduce", "--profile", "tiny", "--with-records")
    assert sentence.startswith("another `sinkprune reproduce` is running here")
    assert not (project / "runs" / "tiny" / "records").exists()


def test_claims_without_a_run_are_the_published_ones(project, refused, monkeypatch, capsys):
    monkeypatch.setattr("sinkprune_companion.project_root", lambda: project)
    assert "no findings in runs/quick and none in figures/" in refused("claims")
    monkeypatch.setattr("sinkprune_companion.project_root", lambda: ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["claims"]) == 0
    found = capsys.readouterr().out
    assert max(map(len, found.splitlines()[:4])) <= 80
    assert "Claims, published" in found and "these are the published findings" in found
    assert "no findings in runs/tiny" in refused("claims", "--profile", "tiny")


def test_a_dry_run_writes_nothing(project, monkeypatch):
    commands = []

    def plan(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", plan)
    (project / "runs" / ".lock").unlink(missing_ok=True)
    before = sorted(project.rglob("*"))
    assert main(["reproduce", "--profile", "tiny", "--dry-run", "--with-records"]) == 0
    assert sorted(project.rglob("*")) == before and "--dry-run" in commands[0]


@pytest.mark.parametrize("name", ["claims", "publish", "reproduce"])
def test_a_profile_is_a_name_and_never_a_path(name, project, refused):
    sentence = refused(name, "--profile", "../../elsewhere/runs/x")
    assert "is no name" in sentence or "is unknown; choose one of tiny" in sentence


def test_notebooks_that_run_on_hold_the_lock(project):
    command = [sys.executable, "-c", RUN_ON, str(project)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"

    process.kill()
    process.wait()

    with (
        pytest.raises(RuntimeError, match="another `sinkprune reproduce` is running here"),
        profiles.lock_of_all_runs(),
    ):
        pass

    process.stdin.close()  # and what ran on ends


def notebook(folder, *cells) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words"), *cells])
    nbformat.write(made, folder / "00_one.ipynb")


def cell(answered: bool, source: str = "x = 1", **more):
    execution = {"iopub.execute_input": "2026"} | ({"shell.execute_reply": "2026"} if answered else {})
    return nbformat.v4.new_code_cell(source, metadata={"execution": execution}, execution_count=1, **more)


def test_an_error_of_a_notebook_is_a_line_and_a_finished_one_is_none(tmp_path):
    notebook(tmp_path / "notebooks", cell(True), cell(False, source=" \n"), cell(True))
    assert failures(tmp_path, 0.0) == []
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    notebook(tmp_path / "notebooks", cell(True), cell(True, outputs=[error]), cell(False))
    assert failures(tmp_path, 0.0) == ["error in 00_one: ValueError: no"]
    assert failures(tmp_path, time.time() + 60) == [], "it is of an earlier run"


def test_a_notebook_whose_kernel_was_killed_is_named(tmp_path):
    said = "its kernel was killed in code cell 2 of 3, as the system does where memory runs out"
    notebook(tmp_path / "notebooks", cell(True), cell(False), nbformat.v4.new_code_cell("y = 2"))
    assert failures(tmp_path, 0.0) == [f"error in 00_one: {said}"]
    notebook(tmp_path / "cells" / "00_one" / "size-3", cell(True), cell(False), cell(False))
    assert failures(tmp_path, 0.0)[1:] == [f"error in 00_one, cell size-3: {said}"]
