"""README keeps its word: commands exist, the example runs, links lead somewhere, the table is up to date."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune_companion.cli.main import main
from sinkprune_companion.run.parameters import declared
from sinkprune_core.pruning.recipe import PRESETS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {
    language: re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) for language in ("bash", "python")
}


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make (\w+)|^make (\w+)", TEXT, re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= targets


def test_the_first_commands_are_the_two():
    assert [line.split("#")[0].strip() for line in BLOCKS["bash"][0].splitlines()] == [
        "make reproduce",
        "make test",
    ]


def test_every_subcommand_exists(capsys):
    page = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`sinkprune (\w+)", TEXT + page)):
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
    assert "usage: sinkprune" in capsys.readouterr().out


def test_papermill_commands_name_parameters_that_exist():
    import jupytext

    for line in "\n".join(BLOCKS["bash"]).splitlines():
        if line.startswith("papermill") and " -p " in line:
            name = re.search(r"notebooks/(\w+)\.ipynb", line).group(1)
            (cell,) = [
                cell
                for cell in jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
                if "parameters" in cell.metadata.get("tags", [])
            ]
            assert set(re.findall(r"-p (\w+)", line)) <= set(declared([cell.source]))


def test_every_link_and_picture_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_preset_is_explained():
    page = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    table = page[page.index("| preset |") :]
    assert set(re.findall(r"`([\w-]+)`", table[: table.index("\n\n")])) == set(PRESETS)


def test_every_link_of_docs_is_there():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), (page.name, target)


def test_readme_is_short():
    assert len(TEXT.encode()) <= 9_000


@pytest.mark.slow
def test_the_example_runs_on_less_text(tmp_path):
    (code,) = BLOCKS["python"]
    assert code.count("[:8]") == 2
    code = code.replace("[:8]", "[:1]")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    sparsity, nelbo = map(float, ran.stdout.split())
    assert sparsity == 0.5 and 1 < nelbo < 11
    assert (tmp_path / "smol-dlm-pruned-too" / "model.safetensors").exists()


def test_an_expected_error_of_the_command_is_one_line(capsys):
    assert main(["claims", "--profile", "no-such-run"]) == 1
    assert (
        capsys.readouterr().err
        == "error: no findings in runs/no-such-run: run `sinkprune reproduce --profile no-such-run` first\n"
    )
    assert main(["reproduce", "--profile", "no-such-profile"]) == 1
    assert "choose one of evidence, full, hour, paper, quick" in capsys.readouterr().err
    assert main(["train", "--tokens", "0"]) == 1
    assert "--tokens: 0 must be a whole number of at least 1" in capsys.readouterr().err
