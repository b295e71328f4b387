"""Everything that reaches a model on another device than the CPU gives what it gives on the CPU.

On a GPU where there is one: `pytest tests/device_cases.py`. On a machine without one, on the device of
`fake_device.py`, in a process of its own, which test_devices.py starts.
"""

import math
from contextlib import nullcontext
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import word_tokenizer
from random_models.cases import CASES
from random_models.writing import write

from sinkprune import prune, score
from sinkprune.evaluation.conditional_likelihood import exact_log_likelihood, log_likelihood, perplexity
from sinkprune.evaluation.protocols import SAMPLERS as PUBLISHED
from sinkprune.evaluation.protocols import Protocol
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.shrinking import shrink
from sinkprune.models.streaming import stream
from sinkprune.recovery.checkpoint import check_work
from sinkprune_companion.hiding import Hiding, hiding_model
from sinkprune_companion.training import lora
from sinkprune_companion.training.crops import origin, write_data
from sinkprune_companion.training.settings import Training, training_dtype
from sinkprune_core import PRESETS, Calibration, Recipe, Sampler, generate, preset, trace
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.pruning.recipe import compared_preset

if torch.cuda.is_available():
    DEVICE = torch.device("cuda", 0)
    second_device = nullcontext
else:
    from fake_device import DEVICE, second_device

KINDS = ("diffusion", "autoregressive")


def quick(name: str, **changes) -> Recipe:
    """Return a preset with few noise levels, where it does not choose their number itself."""
    if "noise_levels" not in PRESETS[name]:
        changes["noise_levels"] = 3
    return compared_preset(name, **changes)


RECIPES = {
    **{name: quick(name) for name in PRESETS},
    "2:4": preset("unstable", pattern="2:4", sparsity=0.5, noise_levels=3),
    "sparsegpt 2:4": preset("sparsegpt", pattern="2:4", sparsity=0.5),
    "global": Recipe(propagation="dense", pattern="global"),
    "owl": Recipe(allocation="owl"),
    "dense sparsegpt": Recipe("sparsegpt", propagation="dense", pattern="layer"),
}


@pytest.fixture(autouse=True)
def device():
    with second_device():
        yield


@pytest.fixture
def pair(make_lm):
    """A function that returns a tiny model on the CPU and the same one on DEVICE."""

    def make(kind: str = "diffusion", shape: str = "gqa"):
        on_cpu = make_lm(kind, shape)
        on_device = make_lm(kind, shape)
        on_device.model.to(DEVICE)
        assert on_device.device == DEVICE
        return on_cpu, on_device

    return make


@pytest.fixture
def calibration(make_ids):
    return Calibration(make_ids(4, 24), 0, batch=2)


def weights(lm) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in lm.model.state_dict().items()}


def assert_alike(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Equal but for rounding, and zero at the same places."""
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert torch.equal(value == 0, found[name] == 0), name


def assert_frames(expected: pd.DataFrame, found: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(expected, found, rtol=1e-4, atol=1e-5)


# They differ from another preset in their token weights alone.
TWINS = {"stable", "random", "only-sinks", "paper-sinks-kept", "structured-sinks-kept"}
IN_MEMORY = [(name, "in memory") for name in RECIPES if name not in TWINS]
KEPT = ("wanda", "unstable", "sparsegpt 2:4", "dense sparsegpt", "flap", "global", "owl")
ON_DISK = [(name, "on disk") for name in KEPT]


@pytest.mark.parametrize(("name", "kept"), IN_MEMORY + ON_DISK)
def test_pruning(pair, calibration, tmp_path, name, kept):
    """Every kind of recipe in memory; on disk one of every way to keep rows, statistics, plans and blocks."""
    shape = "gqa-24" if ":" in name else "gqa"
    on_cpu, on_device = pair(shape=shape)

    def pruned(lm, folder: str):
        work = tmp_path / folder if kept == "on disk" else None
        return prune(lm, RECIPES[name], calibration, progress=False, work=work)

    expected = pruned(on_cpu, "on_cpu")
    found = pruned(on_device, "on_device")
    if kept == "on disk":  # once more: its finished blocks come back
        _, on_device = pair(shape=shape)
        found = pruned(on_device, "on_device")
        assert {parameter.device for parameter in on_device.model.parameters()} == {DEVICE}
    assert_alike(weights(on_cpu), weights(on_device))
    assert expected.linears.to_dict("list") == found.linears.to_dict("list")
    if expected.kept_units:
        small = shrink(on_device, found.kept_units)
        assert small.device == DEVICE
        assert_alike(weights(shrink(on_cpu, expected.kept_units)), weights(small))


@pytest.mark.parametrize("name", ["wanda", "unstable", "sparsegpt"])
def test_streaming(tmp_path, killed_at, name):
    """Pruned in two goes, so that finished blocks come back from the work folder, then scored."""
    write(CASES["llada"], tmp_path / "llada")
    checkpoint = open_checkpoint(tmp_path / "llada")

    def streamed(place):
        return stream(checkpoint, "streamed", torch.float32, place)

    on_cpu = streamed("cpu")
    vocabulary = on_cpu.model.config.vocab_size
    ids_NT = torch.randint(21, vocabulary - 1, (4, 20), generator=torch.Generator().manual_seed(1))
    calibration = Calibration(ids_NT, 0, batch=2)
    prune(on_cpu, RECIPES[name], calibration, progress=False, work=tmp_path / "on_cpu")
    with killed_at(1):
        prune(streamed(DEVICE), RECIPES[name], calibration, progress=False, work=tmp_path / "on_device")
    again = streamed(DEVICE)
    prune(again, RECIPES[name], calibration, progress=False, work=tmp_path / "on_device")
    for layer in range(len(on_cpu.blocks)):
        with on_cpu.resident(layer) as expected, again.resident(layer) as found:
            assert next(found.parameters()).device == DEVICE
            values = {key: value.detach().cpu() for key, value in found.named_parameters()}
            assert_alike(dict(expected.named_parameters()), values)
    assert_frames(score(on_cpu, ids_NT, draws=2), score(again, ids_NT, draws=2))


# scores


@pytest.mark.parametrize("kind", KINDS)
def test_scores(pair, make_ids, kind):
    on_cpu, on_device = pair(kind)
    ids_NT = make_ids(3, 20)
    assert_frames(score(on_cpu, ids_NT), score(on_device, ids_NT.to(DEVICE)))

    hidden = [hiding_model(lm, Hiding("top", 2)) for lm in (on_cpu, on_device)]
    assert_frames(*(score(lm, ids_NT) for lm in hidden))

    measure = log_likelihood if kind == "diffusion" else exact_log_likelihood
    texts = [(row_T[: 5 + index], row_T[5 + index : 12]) for index, row_T in enumerate(ids_NT)]
    there = [(prompt.to(DEVICE), target.to(DEVICE)) for prompt, target in texts]
    assert_frames(measure(on_cpu, texts), measure(on_device, there))

    protocol = Protocol(chunk=16, context=16)
    text_T = make_ids(1, 90)[0]
    expected = perplexity(on_cpu, text_T, protocol).nats
    assert math.isclose(perplexity(on_device, text_T.to(DEVICE), protocol).nats, expected, rel_tol=1e-4)


# generation

SAMPLERS = {
    "llada": Sampler(12, 6, block=6),
    "guided": Sampler(12, 6, block=6, guidance=0.5, temperature=0.7),
    "dream": replace(PUBLISHED["dream"], length=12, steps=6, temperature=0.8, top_p=0.9, top_k=20),
    "random": Sampler(12, 6, block=None, order="random", temperature=1.0),
}


@pytest.fixture
def prompts(make_ids):
    """Prompts, int64 (B, T), the first of them padded, and their attention mask."""
    prompt_BT = make_ids(2, 8)
    mask_BT = torch.ones_like(prompt_BT)
    mask_BT[0, :3] = 0
    return prompt_BT, mask_BT


@pytest.mark.parametrize("name", SAMPLERS)
def test_writing(pair, prompts, name):
    prompt_BT, mask_BT = prompts
    expected, found = (generate(lm, prompt_BT, SAMPLERS[name], 3, attention_mask_BT=mask_BT) for lm in pair())
    assert torch.equal(expected, found)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding(pair, prompts, temperature):
    prompt_BT, mask_BT = prompts
    expected, found = (
        decode(lm, prompt_BT, 6, temperature, 3, attention_mask_BT=mask_BT) for lm in pair("autoregressive")
    )
    assert torch.equal(expected, found)


@pytest.mark.parametrize("kind", KINDS)
def test_traces(pair, make_ids, kind):
    sampler = Sampler(12, 6, block=None)
    expected, found = (trace(lm, make_ids(2, 8), sampler, progress=False) for lm in pair(kind))
    assert torch.equal(expected.ids_BSK, found.ids_BSK)
    torch.testing.assert_close(expected.layers_BSLK, found.layers_BSLK)
    assert torch.equal(expected.sinks(), found.sinks())


# training


def training_data(make_ids) -> dict[str, torch.Tensor]:
    data = {}
    for seed, source in enumerate(("samples", "documentation")):
        data[f"train_{source}"] = make_ids(10, 64, seed).flatten().int()
        data[f"held_out_{source}_crops"] = make_ids(6, 8, seed + 2).int()
        data[f"held_out_{source}_beginnings"] = make_ids(6, 8, seed + 4).int()
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_training(tiny_base, make_ids, tmp_path, kind):
    """Six steps on the device, the last two of them after a restart."""
    data = training_data(make_ids)

    def log_of(device, stops: list[int]) -> pd.DataFrame:
        folder = tmp_path / torch.device(device).type
        folder.mkdir()
        write_data(folder / "data.safetensors", data, origin(word_tokenizer(), None))
        for steps in stops:
            size = {"tokens": steps * 16, "lengths": (8,), "batch_tokens": 16, "rank": 4, "alpha": 8}
            pace = {"learning_rate": 1e-2, "warmup_steps": 1, "decay_share": 0.0}
            settings = Training(kind=kind, **size, **pace, dtype=training_dtype("auto", DEVICE))
            lora.train(settings, folder, check_every=2, device=device)
        log = pd.DataFrame(check_work(folder / lora.CHECKPOINT)["progress"]["log"])
        return log.filter(regex="^step$|nelbo|nll")

    expected = log_of("cpu", [6])
    found = log_of(DEVICE, [4, 6])
    assert expected.step.tolist() == [2, 4, 6]
    pd.testing.assert_frame_equal(expected, found, rtol=0.02)  # of bfloat16, through another attention kernel
