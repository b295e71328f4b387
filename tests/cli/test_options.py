"""Options are checked before any work: ranges, combinations that do nothing, misspelt words, files."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune.cli import main
from sinkprune.cli.checks import new_files
from sinkprune.cli.main import parse
from sinkprune.cli.options import options_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune m --out x --sequences=-1", "--sequences: -1 must be a whole number of at least 1"),
        ("prune m --out x --length 1", "--length: 1 must be a whole number of at least 2"),
        ("prune m --out x --sparsity 1", "--sparsity: 1 must be a finite number, at least 0 and below 1"),
        ("prune m --out x --sparsity 50", "at least 0 and below 1: give such a number"),
        ("prune m --out x --sequences 1.5", "--sequences: 1.5 must be a whole number of at least 1"),
        ("compare m n --margin inf", "--margin: inf must be a finite number, above 0"),
        ("trace m --prompt 1", "--prompt: 1 must be a whole number of at least 2"),
        ("trace smol-dlm --block 30", "length=64 is not a multiple of block=30"),
        (
            "trace smol-dlm --block 16 --steps 30",
            "steps=30 cannot be shared by 4 blocks: use a multiple of 4",
        ),
        ("train --lengths 64,1", "lengths=(64, 1) must be at least 2 each"),
        ("train --lengths 64,4096", "lengths=(64, 4096) must not exceed batch_tokens=2048"),
    ],
)
def test_a_number_outside_its_range_is_refused_with_its_name_value_and_way_out(line, said, refused):
    found = refused(*line.split())
    assert said in found
    assert any(way_out in found for way_out in ("give", "take", "write", "% is", ": "))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune m", "--out is missing: name the folder the pruned model goes to (or use --dry-run)"),
        (
            "prune m --out x --device cpu --device-map auto",
            "--device cpu does nothing here: --device-map auto names",
        ),
        ("trace m --figure x.txt", "--figure x.txt must end in one of .png, .pdf, .svg"),
        ("trace m --length 12", "Unknown option: --length"),
        (
            "evaluate m --limit 3",
            "--limit 3 does nothing here: it counts items of --tasks or windows of --protocol",
        ),
        ("evaluate m --tasks suite --text x", "--text x does nothing here: it is for held-out text"),
        ("evaluate m --tasks suite --protocol ppl_llada", "--protocol ppl_llada scores a running text"),
        ("evaluate m --text t --protocol ppl_llda", 'Did you mean "ppl_llada"?'),
        ("evaluate m --include-path x", "--include-path x does nothing here: it holds further --tasks"),
        ("evaluate m --tasks blimp --data d --include-path x", "--include-path x does nothing here"),
        ("generate m", "the model needs something to go on from: give --prompt"),
        ("evaluate m --tasks ,", "--tasks , names no task: give one, e.g. --tasks suite"),
        ("train --lengths a,b", "--lengths: a,b must be whole numbers with commas between them, e.g. 64,128"),
    ],
)
def test_options_that_contradict_each_other_or_do_nothing_are_refused(line, said, refused):
    assert said in refused(*line.split())


# names


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("smol-dlmm", "unknown model 'smol-dlmm'; did you mean smol-dlm"),
        ("llada-8b-base", "did you mean GSAI-ML/LLaDA-8B-Base"),
        ("zzz", "unknown model 'zzz'; known names: smol-"),
    ],
)
def test_an_unknown_model_gets_the_nearest_names(model, said, refused):
    found = refused("evaluate", model)
    assert said in found
    assert found.count("/") < 6, "no list of all models"


# files


def test_a_missing_text_is_named(model, tmp_path, refused):
    gone = tmp_path / "gone.txt"
    said = f"--text {gone}: there is no such file; check the name, or leave it out"
    assert refused("evaluate", model, "--text", gone) == said
    folder = refused("evaluate", model, "--text", tmp_path)
    assert f"--text {tmp_path} is a folder: give a text file" in folder


OUTPUTS = [
    ("prune", "--out"),
    ("trace", "--out"),
    ("trace", "--json"),
    ("trace", "--figure"),
    ("evaluate", "--json"),
    ("train", "--export"),
]


@pytest.mark.parametrize(("name", "option"), OUTPUTS)
def test_nothing_is_overwritten_and_an_output_that_cannot_be_written_is_found_out_first(
    name, option, model, tmp_path, refused, no_model
):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"taken")

    assert f"{option} {taken} exists: choose another name or remove it first" in refused(
        name, model, option, taken
    )
    assert taken.read_bytes() == b"taken"

    assert f"{option} {taken}/below.png cannot be written: {taken}: not a directory" in refused(
        name, model, option, taken / "below.png"
    )

    gone = tmp_path / "gone" / "deep" / "t.png"
    assert f"{option} {gone}: there is no folder {gone.parent}; make it first" in refused(
        name, model, option, gone
    )

    long = tmp_path / ("n" * 245 + ".png")  # a name that exists, but not with the suffix of a scratch folder
    said = refused(name, model, option, long)
    assert said.startswith(f"{option} {tmp_path}/nnnnnnnn")
    assert f"n.png cannot be written: {tmp_path}: file name too long" in said

    assert {file.name for file in tmp_path.iterdir()} == {"llada", "text.txt", "taken.png"}


SPELLINGS = ["./a.png", "inner/../a.png", "{here}/a.png", "link/a.png", "link/link/a.png"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_two_outputs_that_are_one_file_are_refused(spelling, model, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    other = spelling.format(here=tmp_path)
    said = f"a.png and --json {Path(other)} are one place: give two names"
    assert refused("trace", model, "--out", "a.png", "--json", other) == f"--out {said}"
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("trace", "--out", "{loop}/a"),
        ("trace", "--out", "{loop}"),
        ("prune", "--out", "{loop}/a", "--work", "w"),
        ("prune", "--out", "a", "--work", "{loop}"),
        ("prune", "--out", "a", "--text", "wikitext-2", "--data", "{loop}"),
        ("evaluate", "--text", "{loop}"),
        ("evaluate", "--tasks", "wikitext", "--data", "{loop}"),
    ],
)
def test_a_link_that_leads_to_itself_is_one_sentence(options, model, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    name, *rest = (part.format(loop=loop) for part in options)
    assert str(loop) in refused(name, model, *rest)


def test_a_cache_that_leads_to_itself_is_one_sentence(model, tmp_path, refused, monkeypatch):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    monkeypatch.setenv("SINKPRUNE_CACHE", str(loop))
    assert str(loop) in refused("evaluate", "smol-ar")


# what the pages say


def command_lines() -> list[str]:
    lines = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")

        for line in text.splitlines():
            if line.startswith("sinkprune "):
                lines.append(line.partition("#")[0].strip())  # noqa: PERF401
    return lines


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_of_the_pages_can_be_parsed(line):
    assert isinstance(parse(shlex.split(line)[1:]), options_of(line.split()[1]))


def test_what_a_command_writes_is_held_from_before_the_work(tmp_path):
    files = {"out": tmp_path / "trace", "json": tmp_path / "table.json", "figure": None}

    with new_files(**files):
        another = subprocess.run(
            [sys.executable, "-c", HOLD, str(files["json"])], capture_output=True, text=True
        )
        assert f"{files['json']} is in use by another process" in another.stdout
        files["json"].touch()

    with (
        pytest.raises(FileExistsError, match=r"--json .*table.json exists: choose another name"),
        new_files(**files),
    ):
        pass

    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


HOLD = """
import sys
from pathlib import Path
from sinkprune.cli.checks import new_files
try:
    with new_files(json=Path(sys.argv[1])):
        pass
except RuntimeError as error:
    print(error)
"""


def test_names_may_be_given_with_commas_or_one_by_one():
    together = main.parse(["publish", "--notebooks", "a,b,c"]).notebooks
    apart = main.parse(["publish", "--notebooks", "a,b", "--notebooks", "c"]).notebooks
    assert together == apart == ("a", "b", "c")
