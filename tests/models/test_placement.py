"""A model spread over devices gives the same numbers as another, and a bad map is told early.

There is one device here: parts get accelerate's hooks as on several, and what may lie where is checked on the
map itself.
"""

import types

import pytest
import torch
from random_models.cases import CASES
from transformers import AutoModelForCausalLM

from sinkprune_companion.cli import main
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models import hub, placement
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.loading import language_model, load
from sinkprune_core.models.placement import device_of, place
from sinkprune_core.models.reader import Checkpoint
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import preset
from sinkprune_core.pruning.shrink import shrink
from sinkprune_core.sinks.trace import trace

SAMPLER = Sampler(length=8, steps=4, block=4)
NAMES = ("llada", "dream", "a2d qwen3", "diffugpt", "smdm", "llama", "gpt2")


def parts(name: str) -> dict[str, str]:
    """Return a map with an entry for every part of a model of three blocks."""
    if CASES[name].shape.gpt2:
        ends = ["transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"]
        blocks = [f"transformer.h.{layer}" for layer in range(3)]
    else:
        ends = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
        blocks = [f"model.layers.{layer}" for layer in range(3)]
    return dict.fromkeys(ends + blocks, "cpu")


def hooked(lm) -> int:
    return sum(hasattr(module, "_hf_hook") for module in lm.blocks)


@pytest.mark.parametrize("name", NAMES)
def test_a_spread_model_does_all_that_another_does(name, folder, tmp_path):
    lm, spread = load(folder(name)), load(folder(name), device_map=parts(name))
    assert hooked(spread) == 3 and hooked(lm) == 0
    text_NT = torch.randint(21, 66, (6, 16), generator=torch.Generator().manual_seed(1))
    prompts_BT = text_NT[:2, :4]
    one, other = (trace(model, prompts_BT, SAMPLER, progress=False) for model in (lm, spread))
    assert torch.equal(one.layers_BSLK, other.layers_BSLK) and torch.equal(one.final_BK, other.final_BK)
    sink_aware = preset("unstable" if lm.is_diffusion else "wanda", sink_std=1.0)
    for recipe in (preset("sparsegpt", block_size=16), sink_aware):
        with weights_kept(lm), weights_kept(spread):
            calibration = Calibration(text_NT, batch=3)
            report, other = (prune(model, recipe, calibration, progress=False) for model in (lm, spread))
            assert report.linears.equals(other.linears)
            pruned = spread.model.state_dict()
            assert all(torch.equal(value, pruned[key]) for key, value in lm.model.state_dict().items())
            assert score(spread, text_NT, draws=2).value.equals(score(lm, text_NT, draws=2).value)

    def write_on(model):
        if model.is_diffusion:
            return generate(model, prompts_BT, SAMPLER)
        return decode(model, prompts_BT, 8)

    assert torch.equal(write_on(lm), write_on(spread)) and spread.fingerprint() == lm.fingerprint()
    stock = AutoModelForCausalLM.from_pretrained(spread.save(tmp_path / "saved"))
    assert torch.equal(stock(text_NT, use_cache=False).logits, lm.model(text_NT, use_cache=False).logits)


def test_a_spread_model_is_shrunk_too(folder):
    lm, spread = load(folder("llada")), load(folder("llada"), device_map=parts("llada"))
    text_NT = torch.randint(21, 66, (6, 16), generator=torch.Generator().manual_seed(1))
    smaller = [
        shrink(model, prune(model, preset("structured"), Calibration(text_NT), progress=False).kept_units)
        for model in (lm, spread)
    ]
    torch.testing.assert_close(*(model.hidden(text_NT) for model in smaller))


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_one_device_needs_no_hooks(device_map, folder):
    lm = load(folder("llada"), "bfloat16", device_map=device_map)
    assert (
        hooked(lm) == 0
        and lm.device.type == "cpu"
        and lm.fingerprint() == load(folder("llada"), "bfloat16").fingerprint()
    )


def skeleton(folder):
    checkpoint = Checkpoint(folder)
    return language_model(checkpoint, checkpoint.skeleton())


def refuse(folder, device_map, error, said) -> None:
    lm = skeleton(folder)
    with pytest.raises(error, match=said) as caught:
        place(lm.model, lm.blocks_name, device_map, torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({}, "device_map={} must be 'auto', a device such as 'cuda:1', or a mapping"),
        (7, "device_map=7 must be"),
        ("balanced", r"device_map={'': 'balanced'} is no device: give auto, cpu"),
        ({"": "disk"}, r"'disk'} is no device"),
        ({"": "meta"}, "is no device"),
        ({"": "cuda:97"}, r"'cuda:97'}: (PyTorch finds no GPU|there are \d+ GPUs) here"),
        ({"": 97}, "'cuda:97'}: "),
        (
            {"model.layer.0": "cpu", "": "cpu"},
            "names 'model.layer.0': a part of LlamaForCausalLM is a module outside the blocks,",
        ),
        (
            {"model.layers.0.mlp": "cpu", "": "cpu"},
            "a whole block, e.g. model.layers.0",
        ),
        ({"model.layers": "cpu"}, "leaves something out: .*"),
    ],
)
def test_a_bad_map_is_one_error_before_any_weight_is_read(device_map, said, folder, monkeypatch):
    monkeypatch.setattr(Checkpoint, "tensor", lambda *args: pytest.fail("read a weight"))
    refuse(folder("llada"), device_map, ValueError, said)


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that says it has two GPUs, with `free` bytes of free memory each."""
    machine = types.SimpleNamespace(free=20_000)

    def available_memory(device) -> int:
        return machine.free if torch.device(device).type == "cuda" else 1 << 40

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(placement, "available_memory", available_memory)
    return machine


def test_auto_fills_gpus_in_order_with_whole_blocks(folder, two_gpus):
    lm = skeleton(folder("llada grouped"))
    size = sum(parameter.numel() for parameter in lm.blocks[0].parameters()) * 4
    two_gpus.free = int((2.6 * size + 2 * 72 * 32 * 4) / placement.SHARE)
    places = place(lm.model, lm.blocks_name, "auto", torch.float32)
    where = [device_of(f"model.layers.{layer}.mlp.up_proj.weight", places).index for layer in range(3)]
    assert where == sorted(where) and set(where) == {0, 1}
    assert {device_of(name, places) for name, _ in lm.model.named_parameters()} == {
        torch.device("cuda:0"),
        torch.device("cuda:1"),
    }


def test_a_model_too_large_for_its_devices_is_told_to_stream(folder, two_gpus):
    two_gpus.free = 20_000
    refuse(
        folder("llada grouped"),
        "auto",
        RuntimeError,
        r"does not fit the 2 GPUs here, which have 0.0 GB for weights: "
        r"model\.\S+ and what follows find no place; stream it",
    )
    refuse(
        folder("llada grouped"),
        {"": 0},
        RuntimeError,
        r"asks for 0.0 GB on cuda:0, which has 0.0 GB: spread it otherwise",
    )


def test_parts_that_would_wait_on_the_cpu_are_refused(folder, two_gpus):
    refuse(
        folder("llada"),
        {"": 0, "model.layers.1": "cpu"},
        ValueError,
        "mixes cpu, cuda: parts that wait on the CPU for their turn cannot be pruned; stream",
    )


def test_a_tied_head_stays_with_its_embedding(folder, two_gpus):
    two_gpus.free = 1 << 40
    refuse(
        folder("illada"),
        {"model": 0, "lm_head": 1},
        ValueError,
        "the output head on cuda:1 and the input embedding on cuda:0, but they are one tensor",
    )
    lm = skeleton(folder("illada"))
    device_map = {"model": 0, "model.layers.2": 1, "lm_head": 0}
    places = place(lm.model, lm.blocks_name, device_map, torch.float32)
    assert device_of("lm_head", places).index == 0


def test_the_shell_takes_a_device_map(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(
        "\n\n".join(" ".join(f"word{20 + (line + word) % 50}" for word in range(30)) for line in range(20))
    )
    command = ["prune", str(folder("llada")), "--preset", "wanda", "--out", str(tmp_path / "out")]
    command += ["--text", str(tmp_path / "text.txt"), "--length", "12", "--sequences", "6"]
    assert main.main([*command, "--device-map", "auto", "--stream"]) == 1
    assert "--stream and --device-map exclude each other" in capsys.readouterr().err
    assert main.main([*command, "--device-map", "{broken"]) == 1
    assert "give auto, a device, or a JSON object" in capsys.readouterr().err
    assert main.main([*command, "--device-map", '{"": "cpu"}']) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert hub.available_memory("cpu") > 0
