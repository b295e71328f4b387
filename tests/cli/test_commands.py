"""The shell commands on models: they prune, trace and score as Python does, plan before they start, and fail in one line."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from sinkprune_core import corpus
from sinkprune_core.cli import main
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.models.language_model import load
from sinkprune_core.models.random_weights import CASES, write
from sinkprune_core.models.streaming import StreamedModel
from sinkprune_core.pruning import cost
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.cost import pruning_cost
from sinkprune_core.pruning.engine import Recipe, preset, prune

TEXT = "\n\n".join(
    " ".join(f"word{20 + (7 * line + 3 * word) % 50}" for word in range(30)) for line in range(20)
)


@pytest.fixture
def model(tmp_path):
    """A tiny checkpoint in LLaDA's public format, and a text in its vocabulary."""
    write(CASES["llada"], tmp_path / "llada")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "llada"


def run(command: str, model, *flags: object) -> int:
    text = ["--text", model.parent / "text.txt", "--length", 12, "--sequences", 6, "--dtype", "float32"]
    return main.main([str(part) for part in (command, model, *text, *flags)])


def calibration(lm, model) -> Calibration:
    ids_NT = corpus.pack(TEXT.split("\n\n"), lm.tokenizer, 12)
    order = torch.randperm(len(ids_NT), generator=corpus.generator(0, "texts", "text.txt", False))
    return Calibration(ids_NT[order[:6].sort().values])


@pytest.mark.parametrize("flags", [(), ("--stream",)])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unstable", {"noise_levels": 3}),
        ("sparsegpt", {"block_size": 16}),
        ("magnitude", {"allocation": "linear"}),
    ],
)
def test_the_shell_prunes_as_python_does(model, tmp_path, name, fields, flags, capsys):
    out, lm = tmp_path / "out", load(model)
    recipe = preset(name, sparsity=0.4, **fields)
    prune(lm, recipe, calibration(lm, model), progress=False)
    assert (
        run(
            "prune",
            model,
            "--preset",
            name,
            "--sparsity",
            0.4,
            *(f"--set={key}={value}" for key, value in fields.items()),
            "--out",
            out,
            *flags,
        )
        == 0
    )
    assert "of 25,248 weights in the blocks' linears are zero" in capsys.readouterr().out
    state = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[key], value) for key, value in lm.model.state_dict().items())
    card = json.loads((out / "sinkprune.json").read_text())
    assert Recipe(**card["recipe"]) == recipe and card["sparsity"] == pytest.approx(0.4, abs=0.03)
    assert set(pd.read_csv(out / "sinkprune-linears.csv").layer) == {0, 1, 2}
    assert not (tmp_path / "out.work").exists()


def test_a_structured_recipe_saves_a_smaller_model(model, tmp_path):
    assert run("prune", model, "--preset", "structured", "--sparsity", 0.5, "--out", tmp_path / "out") == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.intermediate_size < 45 or config.num_attention_heads < 4
    assert run("prune", model, "--preset", "structured", "--out", tmp_path / "masked", "--masked") == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "masked").config.intermediate_size == 45


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(model, tmp_path, capsys):
    assert run("prune", model, "--dry-run", "--out", tmp_path / "out") == 0
    assert "calibration tokens x 1 passes" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llada", "text.txt"]


def test_a_run_that_cannot_fit_is_refused_before_it_starts(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "available_memory", lambda device: 1000)
    assert run("prune", model, "--out", tmp_path / "out") == 1
    assert "this machine lacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def test_a_full_disk_loses_no_finished_block(model, tmp_path, monkeypatch, capsys):
    def full(*arguments, **card):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(StreamedModel, "save", full)
        assert run("prune", model, "--stream", "--out", tmp_path / "out") == 1
    assert "No space left" in capsys.readouterr().err
    assert len(list((tmp_path / "out.work").glob("job-*/blocks/*"))) == 3
    assert run("prune", model, "--stream", "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sparsity", 1.2, "--out", "x"), "sparsity=1.2 must be a number in [0, 1)"),
        (("--preset", "sinks", "--out", "x"), "preset 'sinks' is unknown"),
        (("--set", "colour=red", "--out", "x"), "--set colour=red: a recipe has no 'colour'"),
        (("--set", "noise_levels=many", "--out", "x"), "--set noise_levels=many: noise_levels takes"),
        (("--pattern", "2:4", "--out", "x"), "needs inputs in groups of 4"),
        ((), "--out is missing"),
        (("--out", "{model}"), "exists: choose another name"),
        (("--sequences", 5000, "--out", "x"), "--sequences 5000: text.txt has"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_1(model, flags, said, capsys):
    assert run("prune", model, *(str(flag).format(model=model) for flag in flags)) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") <= 2


def test_evaluate_prints_the_likelihood_with_its_interval(model, tmp_path, capsys):
    assert run("evaluate", model, "--draws", 2, "--json", tmp_path / "found.json") == 0
    row = json.loads((tmp_path / "found.json").read_text())[0]
    lm = load(model)
    ids_NT = corpus.pack(TEXT.split("\n\n"), lm.tokenizer, 12)
    order = torch.randperm(len(ids_NT), generator=corpus.generator(0, "texts", "text.txt", True))
    assert row["value"] == pytest.approx(nelbo(lm, ids_NT[order[:6].sort().values], 2).value.mean(), rel=1e-4)
    assert row["low"] < row["value"] < row["high"]
    assert "NELBO, nats per token" in capsys.readouterr().out


def test_trace_writes_what_it_saw(model, tmp_path, capsys):
    from sinkprune_core.sinks.trace import Trace

    assert (
        run(
            "trace",
            model,
            "--prompt",
            8,
            "--tokens",
            6,
            "--steps",
            3,
            "--out",
            tmp_path / "trace.safetensors",
        )
        == 0
    )
    assert Trace.load(tmp_path / "trace.safetensors").ids_BSK.shape == (6, 3, 14)
    assert "temporal_variance" in capsys.readouterr().out


def test_a_plan_counts_passes_and_grows_with_the_text(model):
    lm = load(model)
    text = calibration(lm, model)
    passes = {
        name: pruning_cost(lm, preset(name), text).passes
        for name in ("magnitude", "wanda", "noised-dense", "unstable", "sparsegpt")
    }
    assert passes == {"magnitude": 0, "wanda": 2, "noised-dense": 1, "unstable": 1, "sparsegpt": 2}
    more = Calibration(text.ids_NT.repeat(2, 1))
    assert pruning_cost(lm, preset("wanda"), more).flops == 2 * pruning_cost(lm, preset("wanda"), text).flops
    assert pruning_cost(lm, preset("wanda"), text).missing == ()


def test_evaluate_runs_the_offline_suite(model, tmp_path):
    """Tasks are those of the harness; the suite needs a model that knows English words, so the tiny one only shows that it runs."""
    assert (
        main.main(
            [
                "evaluate",
                str(model),
                "--tasks",
                "suite",
                "--limit",
                "1",
                "--dtype",
                "float32",
                "--json",
                str(tmp_path / "found.json"),
            ]
        )
        == 0
    )
    rows = json.loads((tmp_path / "found.json").read_text())
    assert {"sinkprune_suite_facts", "sinkprune_suite_grammar"} <= {row["task"] for row in rows}


def test_a_dry_run_of_a_model_that_is_not_here_downloads_nothing(tmp_path, monkeypatch, capsys):
    """From the published shape: the download, FLOPs by hand, and what this machine lacks, without the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *args, local_files_only, **more: (
            (_ for _ in ()).throw(FileNotFoundError("not here"))
            if local_files_only
            else pytest.fail("downloaded")
        ),
    )
    flags = ["--preset", "wanda", "--sequences", "8", "--length", "256", "--dtype", "bfloat16", "--dry-run"]
    assert main.main(["prune", "GSAI-ML/LLaDA-8B-Base", *flags]) == 0
    said = capsys.readouterr().err
    flop = 2 * 8 * 32 * (2 * (4 * 4096**2 + 3 * 4096 * 12288) * 256 + 4 * 256**2 * 4096)
    assert (
        "16.0 GB to download" in said
        and f"2,048 calibration tokens x 2 passes, {flop / 1e12:.3g} TFLOP" in said
    )
    assert main.main(["prune", "GSAI-ML/LLaDA-8B-Base", *flags, "--length", "5000"]) == 1
    assert "5000 tokens exceed the model's 4096 positions" in capsys.readouterr().err


def test_the_command_that_drives_the_notebooks_holds_no_torch():
    look = "import sys; from sinkprune_core.cli import main; main.parser(light=True).parse_args(['reproduce']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0, (
        "its memory would count beside every notebook"
    )
