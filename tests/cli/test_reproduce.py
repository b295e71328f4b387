"""`sinkprune reproduce` says what failed, and notebooks that run on after it was killed hold its lock."""

import os
import subprocess
import sys

import nbformat
import pytest

from sinkprune_companion.cli.reproduce import failures, held

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
RUN_ON = """
import subprocess, sys
WAIT = "import sys; sys.stdin.read()"
from pathlib import Path
from sinkprune_companion.cli.reproduce import held
with held(Path(sys.argv[1])) as lock:
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdin=0, stdout=2, pass_fds=[lock])
    print("started", flush=True)
    process.wait()
"""


def test_notebooks_that_run_on_hold_the_lock(tmp_path):
    file = tmp_path / ".lock"
    command = [sys.executable, "-c", RUN_ON, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.wait()
    with pytest.raises(RuntimeError, match="another `sinkprune reproduce` is running here"), held(file):
        pass
    process.stdin.close()  # and what ran on ends


def notebook(folder, *cells) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words"), *cells])
    nbformat.write(made, folder / "00_one.ipynb")


def cell(answered: bool, source: str = "x = 1", **more):
    execution = {"iopub.execute_input": "2026"} | ({"shell.execute_reply": "2026"} if answered else {})
    return nbformat.v4.new_code_cell(source, metadata={"execution": execution}, execution_count=1, **more)


def test_a_finished_notebook_is_no_failure(tmp_path):
    notebook(tmp_path / "notebooks", cell(True), cell(False, source=" \n"), cell(True))
    assert failures(tmp_path) == []


def test_an_error_of_a_notebook_is_a_line(tmp_path):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    notebook(tmp_path / "notebooks", cell(True), cell(True, outputs=[error]), cell(False))
    assert failures(tmp_path) == ["error in 00_one: ValueError: no"]


def test_a_notebook_whose_kernel_was_killed_is_named(tmp_path):
    said = "its kernel was killed in code cell 2 of 3, as the system does where memory runs out"
    notebook(tmp_path / "notebooks", cell(True), cell(False), nbformat.v4.new_code_cell("y = 2"))
    assert failures(tmp_path) == [f"error in 00_one: {said}"]
    notebook(tmp_path / "cells" / "00_one" / "size-3", cell(True), cell(False), cell(False))
    assert failures(tmp_path)[1:] == [f"error in 00_one, cell size-3: {said}"]
