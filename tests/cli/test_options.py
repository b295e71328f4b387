"""Options are checked before any work: ranges, combinations that do nothing, misspelt words, files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune_companion.cli.main import parse
from sinkprune_companion.cli.options import new_files
from sinkprune_core.spelling import suggestion

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune m --out x --sequences=-1", "--sequences: -1 must be a whole number of at least 1"),
        ("prune m --out x --sequences -1", "--sequences: -1 must be a whole number of at least 1"),
        ("prune m --out x --length 0", "--length: 0 must be a whole number of at least 2"),
        ("prune m --out x --length 1", "--length: 1 must be a whole number of at least 2"),
        ("prune m --out x --batch 0", "--batch: 0 must be a whole number of at least 1"),
        ("prune m --out x --seed -1", "--seed: -1 must be a whole number of at least 0"),
        ("prune m --out x --sparsity 1", "--sparsity: 1 must be a finite number of at least 0 and below 1"),
        ("prune m --out x --sparsity 50", "at least 0 and below 1: 50 % is 0.5"),
        ("prune m --out x --sparsity nan", "--sparsity: nan must be a finite number"),
        ("trace m --block 0", "--block: 0 must be a whole number of at least 1"),
        ("trace m --prompt 1", "--prompt: 1 must be a whole number of at least 2"),
        ("trace m --tokens 0", "--tokens: 0 must be a whole number of at least 1"),
        ("trace m --steps 0", "--steps: 0 must be a whole number of at least 1"),
        ("trace m --temperature nan", "--temperature: nan must be a finite number of at least 0"),
        ("trace m --temperature inf", "--temperature: inf must be a finite number of at least 0"),
        ("trace m --temperature=-0.5", "--temperature: -0.5 must be a finite number of at least 0"),
        ("trace m --steps 65", "--steps 65 exceeds --tokens 64"),
        ("trace m --block 30", "--block 30 does not divide --tokens 64"),
        ("trace m --block 16 --steps 30", "--steps 30 cannot be shared by 4 blocks of 16 tokens"),
        ("evaluate m --draws 0", "--draws: 0 must be a whole number of at least 1"),
        ("evaluate m --tasks suite --limit 0", "--limit: 0 must be a whole number of at least 1"),
        ("train --tokens 0", "--tokens: 0 must be a whole number of at least 1"),
        ("train --learning-rate 0", "--learning-rate: 0 must be a finite number above 0"),
        ("train --decay-share 1.5", "--decay-share: 1.5 must be a finite number of at least 0 and at most 1"),
        ("train --lengths 64,1", "lengths=(64, 1) must be at least 2 each"),
        ("train --lengths 64,x", "--lengths: '64,x' is not a list of whole numbers"),
        ("train --lengths 64,4096", "lengths=(64, 4096) must not exceed batch_tokens=2048"),
        ("card --sequences 1", "--sequences: 1 must be a whole number of at least 2"),
        ("card --items 0", "--items: 0 must be a whole number of at least 1"),
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
        ("prune m --out x --stream --device-map auto", "--stream and --device-map exclude each other"),
        (
            "prune m --out x --device cpu --device-map auto",
            "--device does nothing here: --device-map auto names",
        ),
        ("prune m --out x --device-map {broken", "give auto, a device, or a JSON object"),
        ("trace m --figure x.txt", "--figure x.txt must end in one of .png, .pdf, .svg"),
        ("trace m --length 12", "sinkprune trace does not take --length"),
        (
            "evaluate m --limit 3",
            "--limit does nothing here: it counts items of --tasks or windows of --protocol",
        ),
        ("evaluate m --family llada", "--family does nothing here: it chooses settings of --tasks"),
        ("evaluate m --tasks suite --text x", "--text does nothing here: it is for held-out text"),
        ("evaluate m --tasks suite --sequences 3", "--sequences does nothing here"),
        ("evaluate m --tasks suite --length 3", "--length does nothing here"),
        ("evaluate m --tasks blimp --data d --split test", "--split does nothing here"),
        ("evaluate m --tasks wikitext --split test", "--split test chooses among local files of WikiText-2"),
        ("evaluate m --tasks suite --protocol ppl_llada", "--protocol ppl_llada scores a running text"),
        ("evaluate m --tasks ,", "--tasks names no task"),
        ("evaluate m --protocol ppl_llada", "give --text and no --tasks"),
        ("evaluate m --text t --protocol ppl_llda", "did you mean ppl_llada?"),
        ("evaluate m --text t --protocol ppl_llada --sequences 3", "--sequences does nothing here"),
        ("evaluate m --text t --protocol ppl_llada --draws 3", "--draws does nothing here"),
        ("train --mask-token x", "--mask-token does nothing here: it is for other bases"),
        ("train --from-scratch --rank 8", "--rank does nothing here: --from-scratch trains no adapter"),
        ("card --render --draws 2", "--draws does nothing here: --render measures nothing"),
    ],
)
def test_options_that_contradict_each_other_or_do_nothing_are_refused(line, said, refused):
    assert said in refused(*line.split())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("fp32", "float32"),
        ("float16", "float16"),
        ("auto", "auto"),
    ],
)
def test_short_names_of_dtypes(alias, name):
    _, options = parse(["prune", "m", "--dry-run", "--dtype", alias])
    assert options.dtype == name


def test_an_unknown_dtype_gets_a_suggestion(refused):
    assert "bfloat32 is unknown; did you mean" in refused("trace", "m", "--dtype", "bfloat32")
    assert "choose one of float32, bfloat16, float16, auto" in refused("trace", "m", "--dtype", "int8")


def test_given_options_are_known():
    _, options = parse(["evaluate", "m", "--draws", "8", "--tasks=piqa"][:4])
    assert options.given == {"model", "draws"}


# names


@pytest.mark.parametrize("name", ["prune", "trace", "evaluate", "train"])
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("smol-dlmm", "unknown model 'smol-dlmm'; did you mean smol-dlm"),
        ("llada-8b-base", "did you mean GSAI-ML/LLaDA-8B-Base"),
        ("gsai-ml/llada-8b-base", "did you mean GSAI-ML/LLaDA-8B-Base"),
        ("zzz", "unknown model 'zzz'; known names: smol-"),
        ("smol-ar@v1", "and hub ids of docs/models.md, these also with @revision"),
    ],
)
def test_an_unknown_model_gets_the_nearest_names(name, model, said, refused):
    out = ("--out", "unused") if name == "prune" else ()
    found = refused(name, model, *out)
    assert said in found
    assert found.count("/") < 6, "no list of all models"


def test_a_folder_without_a_model_is_said(tmp_path, refused):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        said = refused("trace", path)
        assert f"unknown model '{path}'" in said and "a folder with config.json and safetensors" in said


def test_suggestions_ignore_case_and_owners():
    assert suggestion("LLAMA-7B", ["meta/Llama-7b", "other"]) == "; did you mean meta/Llama-7b?"
    assert suggestion("nothing like it", ["a", "b"]) == ""


# files


@pytest.mark.parametrize("name", ["prune", "trace", "evaluate", "train"])
def test_a_missing_text_is_named(name, model, tmp_path, refused):
    out = ("--out", tmp_path / "out") if name == "prune" else ()
    gone = tmp_path / "gone.txt"
    assert refused(name, model, "--text", gone, *out) == (
        f"--text {gone}: there is no such file; check the name, or leave it out"
    )
    assert f"--text {tmp_path} is a folder: give a text file" in refused(
        name, model, "--text", tmp_path, *out
    )


def test_a_text_that_is_no_text_is_said(model, tmp_path, refused):
    (tmp_path / "picture").write_bytes(b"\xff\xfe\xff")
    assert "picture is not UTF-8 text" in refused("evaluate", model, "--text", tmp_path / "picture")


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
    name, option, model, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(
        "sinkprune_companion.cli.inputs.open_model", lambda *_: pytest.fail("the model was loaded")
    )
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
    assert f"{option} {long} cannot be written: {tmp_path}: file name too long" in refused(
        name, model, option, long
    )
    assert {file.name for file in tmp_path.iterdir()} == {"llada", "text.txt", "taken.png"}


@pytest.mark.parametrize("spelling", ["plain", "relative", "through a link", "round about"])
def test_two_outputs_that_lead_to_one_file_are_refused(spelling, model, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = {
        "plain": tmp_path / "a.png",
        "relative": "a.png",
        "through a link": tmp_path / "link" / "a.png",
        "round about": tmp_path / "llada" / ".." / "a.png",
    }
    one, two = tmp_path / "a.png", spellings[spelling]
    assert f"--out {one} and --figure {two} are one place: give two names" in refused(
        "trace", model, "--out", one, "--figure", two
    )
    assert f"--out {one} and --work {two} are one place: give two names" in refused(
        "prune", model, "--out", one, "--work", two
    )
    assert not one.exists()


def test_an_output_that_is_a_link_is_refused(model, tmp_path, refused):
    for name, target in (("loop", "loop"), ("dangling", "gone")):
        (tmp_path / name).symlink_to(tmp_path / target)
        assert f"--json {tmp_path / name} exists" in refused("trace", model, "--json", tmp_path / name)


# what the pages say


def command_lines() -> list[str]:
    lines = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("sinkprune "):
                lines.append(line.partition("#")[0].strip())  # noqa: PERF401
    return lines


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_of_the_pages_can_be_parsed(line):
    name, _ = parse(line.split()[1:])
    assert name == line.split()[1]


def test_what_a_command_writes_is_held_from_before_the_work(tmp_path):
    files = {"out": tmp_path / "trace", "json": tmp_path / "table.json", "figure": None}
    with new_files(**files):
        another = subprocess.run(
            [sys.executable, "-c", HOLD, str(files["json"])], capture_output=True, text=True
        )
        assert f"{files['json']} is in use by process {os.getpid()} on " in another.stdout
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
from sinkprune_companion.cli.options import new_files
try:
    with new_files(json=Path(sys.argv[1])):
        pass
except RuntimeError as error:
    print(error)
"""
