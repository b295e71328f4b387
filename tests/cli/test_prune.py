"""`sinkprune prune` does what Python does, plans first, keeps finished blocks, and says what it made."""

import json

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from sinkprune_companion.cli import main
from sinkprune_core import corpus
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.costs import pruning as cost
from sinkprune_core.costs.pruning import pruning_cost
from sinkprune_core.models.loading import load
from sinkprune_core.models.streaming import StreamedModel
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset
from sinkprune_core.seeds import generator

WEIGHTS = 25_248  # in the linears of the tiny checkpoint's blocks
NOT_FETCHED = "GSAI-ML/LLaDA-8B-Base"


@pytest.fixture
def calibration(model):
    """A function that draws the text that the command draws."""

    def draw(lm) -> Calibration:
        text = (model.parent / "text.txt").read_text()
        ids_NT = corpus.pack(text.split("\n\n"), lm.tokenizer, 12)
        order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text", False))
        return Calibration(ids_NT[order[:6].sort().values])

    return draw


@pytest.mark.parametrize("flags", [(), ("--stream",)])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unstable", {"noise_levels": 3}),
        ("sparsegpt", {"block_size": 16}),
        ("wanda", {"allocation": "linear"}),
    ],
)
def test_the_shell_prunes_as_python_does(model, command, calibration, tmp_path, name, fields, flags, capsys):
    out = tmp_path / "out"
    lm = load(model)
    recipe = preset(name, sparsity=0.4, **fields)
    prune(lm, recipe, calibration(lm), progress=False)
    changes = [f"--set={key}={value}" for key, value in fields.items()]
    assert command("prune", "--preset", name, "--sparsity", 0.4, *changes, "--out", out, *flags) == 0

    state = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[key], value) for key, value in lm.model.state_dict().items())
    card = json.loads((out / "sinkprune.json").read_text())
    assert Recipe(**card["recipe"]) == recipe
    assert card["sparsity"] == pytest.approx(0.4, abs=0.03)
    assert set(pd.read_csv(out / "sinkprune-linears.csv").layer) == {0, 1, 2}
    assert not (tmp_path / "out.work").exists()

    came_out, then = capsys.readouterr().out.splitlines()
    assert came_out.startswith(
        f"{out}: {card['sparsity']:.4f} of {WEIGHTS:,} weights in the blocks' linears are zero"
    )
    assert then == f"next: sinkprune compare {model} {out}"


def test_a_recipe_without_calibration_takes_no_text(model, tmp_path, refused):
    magnitude = ["prune", model, "--preset", "magnitude", "--dtype", "float32", "--out", tmp_path / "out"]
    said = refused(*magnitude, "--text", tmp_path / "text.txt")
    assert said == "--text does nothing here: criterion=magnitude uses no calibration text; leave it out"
    for option in ("--sequences", "--length", "--batch", "--seed"):
        assert f"{option} does nothing here" in refused(*magnitude, option, 3)


def test_a_structured_recipe_saves_a_smaller_model(command, tmp_path, capsys):
    structured = ["--preset", "structured", "--sparsity", 0.5]
    assert command("prune", *structured, "--out", tmp_path / "out") == 0
    assert "weights in the blocks' linears are removed" in capsys.readouterr().out
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.intermediate_size < 45 or config.num_attention_heads < 4
    assert command("prune", "--preset", "structured", "--out", tmp_path / "masked", "--masked") == 0
    assert "weights in the blocks' linears are zero" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "masked").config.intermediate_size == 45


def test_a_work_folder_of_ones_own_stays_for_another_sparsity(command, tmp_path):
    work = tmp_path / "work"
    for sparsity in (0.3, 0.5):
        out = tmp_path / f"out-{sparsity}"
        assert (
            command("prune", "--set=noise_levels=2", "--sparsity", sparsity, "--work", work, "--out", out)
            == 0
        )
        assert work.is_dir() and not list(work.glob("job-*"))
    assert (tmp_path / "out-0.5" / "sinkprune.json").exists()


@pytest.mark.parametrize(("preset", "count"), [("wanda", 128), ("unstable", 32), ("paper-sparsegpt", 32)])
def test_text_that_is_seen_at_many_noise_levels_is_shorter_by_default(preset, count, model, refused):
    text = model.parent / "text.txt"
    said = refused("prune", model, "--preset", preset, "--text", text, "--length", 64, "--dry-run")
    assert said.startswith(f"--sequences {count}: text.txt has ")


# plans


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(command, tmp_path, capsys):
    assert command("prune", "--dry-run", "--out", tmp_path / "out") == 0
    assert "calibration tokens x 1 passes" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llada", "text.txt"]


def test_a_run_that_cannot_fit_is_refused_before_it_starts(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "available_memory", lambda device: 1000)
    assert command("prune", "--out", tmp_path / "out") == 1
    assert "this machine lacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def test_a_full_disk_loses_no_finished_block(command, tmp_path, monkeypatch, capsys):
    def full(*arguments, **card):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(StreamedModel, "save", full)
        assert command("prune", "--stream", "--out", tmp_path / "out") == 1
    assert "No space left" in capsys.readouterr().err
    assert len(list((tmp_path / "out.work").glob("job-*/blocks/*"))) == 3
    assert command("prune", "--stream", "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out.work").exists()


def test_a_plan_counts_passes_and_grows_with_the_text(model, calibration):
    lm = load(model)
    text = calibration(lm)
    passes = {
        name: pruning_cost(lm, preset(name), text).passes
        for name in ("magnitude", "wanda", "noised-dense", "unstable", "sparsegpt")
    }
    assert passes == {"magnitude": 0, "wanda": 2, "noised-dense": 1, "unstable": 1, "sparsegpt": 2}
    more = Calibration(text.ids_NT.repeat(2, 1))
    assert pruning_cost(lm, preset("wanda"), more).flops == 2 * pruning_cost(lm, preset("wanda"), text).flops
    assert pruning_cost(lm, preset("wanda"), text).missing == ()


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """A machine that has fetched nothing, and on which a download is an error."""
    from huggingface_hub import constants

    def snapshot_download(*arguments, local_files_only, **more):
        if local_files_only:
            raise FileNotFoundError("not here")
        pytest.fail("downloaded")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)


def test_a_dry_run_of_a_model_that_is_not_here_downloads_nothing(no_hub, capsys):
    """From the published shape: the download, FLOPs by hand, and what this machine lacks, without the hub."""
    flags = ["--preset", "wanda", "--sequences", "8", "--length", "256", "--dtype", "bfloat16", "--dry-run"]
    assert main.main(["prune", NOT_FETCHED, *flags]) == 0
    said = capsys.readouterr().err
    linears = 4 * 4096**2 + 3 * 4096 * 12288
    attention = 4 * 256**2 * 4096
    flops = 2 * 8 * 32 * (2 * linears * 256 + attention)
    assert "16.0 GB to download" in said
    assert f"2,048 calibration tokens x 2 passes, {flops / 1e12:.3g} TFLOP" in said
    assert main.main(["prune", NOT_FETCHED, *flags, "--length", "5000"]) == 1
    assert "a sequence of 5000 tokens exceeds the 4096 positions" in capsys.readouterr().err


# mistakes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sparsity", 1.2), "--sparsity: 1.2 must be a finite number of at least 0 and below 1"),
        (("--preset", "sinks"), "--preset: sinks is unknown; did you mean all-sinks"),
        (("--preset", "wandaa"), "--preset: wandaa is unknown; did you mean wanda"),
        (("--set", "colour=red"), "--set colour=red: a recipe has no 'colour'; it has"),
        (("--set", "noise_level=4"), "a recipe has no 'noise_level'; did you mean noise_levels"),
        (("--set", "noise_levels=many"), "noise_levels='many' must be a whole number of at least 1"),
        (("--set", "noise_levels"), "--set noise_levels: write FIELD=VALUE"),
        (("--set", "sparsity=0.3", "--sparsity", 0.4), "--set sparsity=0.3: sparsity is given twice"),
        (("--set", "owl_m=3", "--set", "owl_m=4"), "--set owl_m=4: owl_m is given twice"),
        (("--pattern", "2:5"), "pattern='2:5' means sparsity=0.4"),
        (("--pattern", "2:4"), "needs inputs in groups of 4"),
        (("--masked",), "--masked does nothing here: it is for pattern=structured, and this recipe has row"),
        (("--out", "{model}"), "exists: choose another name"),
        (("--sequences", 5000), "--sequences 5000: text.txt has"),
        (("--device", "graphics"), "--device graphics is no device: give auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(model, command, tmp_path, flags, said, capsys):
    flags = [str(flag).format(model=model) for flag in flags]
    out = [] if "--out" in flags else ["--out", tmp_path / "out"]
    assert command("prune", *flags, *out) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") <= 2
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["prune", "trace", "evaluate"])
def test_a_gpu_that_is_not_there_is_said_before_any_work(name, model, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(
        "sinkprune_companion.cli.inputs.open_model", lambda *_: pytest.fail("the model was loaded")
    )
    out = ("--out", tmp_path / "out") if name == "prune" else ()
    text = ("--text", tmp_path / "text.txt")
    said = refused(name, model, "--device", "cuda", *text, *out)
    assert "--device cuda: PyTorch finds no GPU here; give cpu or auto" in said
