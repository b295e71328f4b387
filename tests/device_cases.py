"""Everything that reaches a model on another device than the CPU gives what it gives on the CPU.

On a GPU where there is one: `pytest tests/device_cases.py`. Elsewhere on the device of `fake_device.py`, in a process of its
own, which test_devices.py starts.
"""

import math
from contextlib import nullcontext
from itertools import product

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from sinkprune_core.cli.main import main
from sinkprune_core.diffusion import compute
from sinkprune_core.diffusion.sampling import Sampler, decode, generate
from sinkprune_core.evaluation import quality
from sinkprune_core.evaluation.likelihood import exact_log_likelihood, log_likelihood, perplexity, score
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.models.language_model import load, open_checkpoint
from sinkprune_core.models.random_weights import CASES, write
from sinkprune_core.models.streaming import stream
from sinkprune_core.pruning import engine, structured
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.engine import preset, prune, weights_kept
from sinkprune_core.pruning.recipe import PRESETS, Recipe
from sinkprune_core.sinks.hiding import Hiding, hiding_model
from sinkprune_core.sinks.trace import trace
from sinkprune_core.training import lora

if torch.cuda.is_available():
    PLACE, second_device = torch.device("cuda", 0), nullcontext
else:
    from fake_device import PLACE, second_device

LEVELS = {"noise_levels": 3}
RECIPES = {
    name: preset(name, **({} if "noise_levels" in fields else LEVELS)) for name, fields in PRESETS.items()
}
RECIPES |= {
    "2:4": preset("unstable", pattern="2:4", sparsity=0.5, **LEVELS),
    "sparsegpt 2:4": preset("sparsegpt", pattern="2:4", sparsity=0.5),
    "global": Recipe(propagation="dense", pattern="global"),
    "owl": Recipe(allocation="owl"),
    "rollout": preset("unstable", noise="rollout", noise_levels=2),
    "dense sparsegpt": Recipe("sparsegpt", propagation="dense", pattern="layer"),
}


@pytest.fixture(autouse=True)
def device():
    with second_device():
        yield


@pytest.fixture
def pair(make_lm):
    """A function that returns a tiny model here and the same one at PLACE."""

    def make(kind: str = "diffusion", shape: str = "gqa"):
        here, there = make_lm(kind, shape), make_lm(kind, shape)
        there.model.to(PLACE)
        assert there.device == PLACE
        return here, there

    return make


def weights(lm) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in lm.model.state_dict().items()}


def assert_alike(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> None:
    assert here.keys() == there.keys()
    for name, value in here.items():
        torch.testing.assert_close(
            there[name], value, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert torch.equal(value == 0, there[name] == 0), name


def assert_frames(here: pd.DataFrame, there: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
@pytest.mark.parametrize("name", RECIPES)
def test_pruning(pair, make_ids, tmp_path, name, kept):
    text = Calibration(make_ids(4, 24), 0, batch=2)
    found = []
    for where, lm in zip(("here", "there"), pair(shape="gqa-24" if ":" in name else "gqa"), strict=True):
        report = prune(
            lm, RECIPES[name], text, progress=False, work=tmp_path / where if kept == "on disk" else None
        )
        found.append((lm, report))
    (here, one), (there, other) = found
    assert_alike(weights(here), weights(there))
    assert one.linears.to_dict("list") == other.linears.to_dict("list")
    if one.kept_units:
        small = [structured.shrink(lm, report.kept_units) for lm, report in found]
        assert small[1].device == PLACE
        assert_alike(*map(weights, small))


@pytest.mark.parametrize("name", ["wanda", "unstable", "sparsegpt"])
def test_a_killed_run_goes_on(pair, make_ids, tmp_path, killed_at, name):
    text, (here, there) = Calibration(make_ids(4, 24), 0, batch=2), pair()
    prune(here, RECIPES[name], text, progress=False)
    with killed_at(2):
        prune(there, RECIPES[name], text, progress=False, work=tmp_path / "work")
    _, again = pair()
    prune(again, RECIPES[name], text, progress=False, work=tmp_path / "work")
    assert_alike(weights(here), weights(again))


@pytest.mark.parametrize(("kept", "where"), [("in memory", PLACE.type), ("on disk", "cpu")])
@pytest.mark.parametrize("name", ["wanda", "noised-dense", "dense sparsegpt"])
def test_hidden_states_of_a_run_with_a_work_folder_take_no_room_beside_the_model(
    pair, make_ids, tmp_path, monkeypatch, name, kept, where
):
    waited, run_block = set(), engine.run_block

    def watched(block, states, *args, **kwargs):
        waited.update(state.hidden_BTD.device.type for state in states)
        return run_block(block, states, *args, **kwargs)

    monkeypatch.setattr(engine, "run_block", watched)
    prune(
        pair()[1],
        RECIPES[name],
        Calibration(make_ids(4, 24), 0, batch=2),
        progress=False,
        work=tmp_path / "work" if kept == "on disk" else None,
    )
    assert waited == {where}


@pytest.mark.parametrize("name", ["wanda", "unstable", "sparsegpt"])
def test_streaming(tmp_path, killed_at, name):
    """Pruned in two goes, so that finished blocks come back from the work folder, then scored."""
    write(CASES["llada"], tmp_path / "llada")
    checkpoint = open_checkpoint(tmp_path / "llada")
    here, there = (stream(checkpoint, "streamed", torch.float32, place) for place in ("cpu", PLACE))
    text = Calibration(
        torch.randint(
            21, here.model.config.vocab_size - 1, (4, 20), generator=torch.Generator().manual_seed(1)
        ),
        0,
        batch=2,
    )
    prune(here, RECIPES[name], text, progress=False, work=tmp_path / "here")
    with killed_at(1):
        prune(there, RECIPES[name], text, progress=False, work=tmp_path / "there")
    again = stream(checkpoint, "streamed", torch.float32, PLACE)
    prune(again, RECIPES[name], text, progress=False, work=tmp_path / "there")
    for layer in range(len(here.blocks)):
        with here.resident(layer) as one, again.resident(layer) as other:
            assert next(other.parameters()).device == PLACE
            assert_alike(
                dict(one.named_parameters()),
                {key: value.detach().cpu() for key, value in other.named_parameters()},
            )
    assert_frames(*(score(lm, text.ids_NT, draws=2) for lm in (here, again)))


def test_weights_come_back(pair, make_ids):
    here, there = pair()
    with weights_kept(there):
        prune(there, RECIPES["flap"], Calibration(make_ids(4, 24), 0, batch=2), progress=False)
        assert here.fingerprint() != there.fingerprint()
    assert here.fingerprint() == there.fingerprint()


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_scores(pair, make_ids, kind):
    (here, there), ids_NT = pair(kind), make_ids(3, 20)
    assert_frames(*(score(lm, ids_NT) for lm in (here, there)))
    pairs = [(row_T[: 5 + index], row_T[5 + index : 12]) for index, row_T in enumerate(ids_NT)]
    assert_frames(
        *((log_likelihood if lm.is_diffusion else exact_log_likelihood)(lm, pairs) for lm in (here, there))
    )
    one, other = (perplexity(lm, make_ids(1, 90)[0], Protocol(chunk=16, context=16)) for lm in (here, there))
    assert math.isclose(one.nats, other.nats, rel_tol=1e-4)


def test_filling(pair, make_ids):
    (here, there), (ar_here, ar_there) = pair(), pair("autoregressive")
    assert_frames(
        quality.filling(here, ar_here, make_ids(3, 20)), quality.filling(there, ar_there, make_ids(3, 20))
    )


SAMPLERS = {
    "llada": Sampler(12, 6, block=6),
    "guided": Sampler(12, 6, block=6, guidance=0.5, temperature=0.7),
    "dream": Sampler(
        12,
        6,
        block=None,
        order="entropy",
        schedule="time",
        proposal="filtered",
        temperature=0.8,
        top_p=0.9,
        top_k=20,
        order_temperature=0.5,
    ),
    "random": Sampler(12, 6, block=None, order="random", temperature=1.0),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_writing(pair, make_ids, name):
    (here, there), prompt_BT = pair(), make_ids(2, 8)
    mask_BT = torch.ones_like(prompt_BT)
    mask_BT[0, :3] = 0  # a row that is padded
    assert torch.equal(
        *(generate(lm, prompt_BT, SAMPLERS[name], 3, attention_mask_BT=mask_BT) for lm in (here, there))
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding(pair, make_ids, temperature):
    (here, there), prompt_BT = pair("autoregressive"), make_ids(2, 8)
    mask_BT = torch.ones_like(prompt_BT)
    mask_BT[0, :3] = 0
    assert torch.equal(
        *(decode(lm, prompt_BT, 6, temperature, 3, attention_mask_BT=mask_BT) for lm in (here, there))
    )


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_traces(pair, make_ids, kind):
    one, other = (trace(lm, make_ids(2, 8), Sampler(12, 6, block=None), progress=False) for lm in pair(kind))
    assert torch.equal(one.ids_BSK, other.ids_BSK)
    torch.testing.assert_close(one.layers_BSLK, other.layers_BSLK)
    assert torch.equal(one.sinks(), other.sinks())


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
@pytest.mark.parametrize("keys", ["top", "random"])
def test_hiding(pair, make_ids, kind, keys):
    (here, there), ids_NT = pair(kind), make_ids(2, 24)
    blind = [hiding_model(lm, Hiding(keys, 2)) for lm in (here, there)]
    assert_frames(*(score(lm, ids_NT) for lm in blind))
    assert_frames(*(pd.DataFrame(lm.log) for lm in blind))


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_training(tiny_base, make_ids, tmp_path, monkeypatch, kind):
    """Six steps there, the last two of them after a restart."""
    settings = {
        "kind": kind,
        "length": 8,
        "batch": 2,
        "rank": 4,
        "alpha": 8,
        "warmup_steps": 1,
        "learning_rate": 1e-2,
        "samples": 300,
    }
    data = {
        f"{split}_{source}": make_ids(10, 8, seed).int()
        for seed, (split, source) in enumerate(product(("train", "held_out"), ("samples", "documentation")))
    }
    if PLACE.type != "cuda":
        monkeypatch.setattr(
            lora, "half_precision", nullcontext
        )  # autocast knows the devices that torch brings
    for device, stops in (("cpu", [6]), (PLACE, [4, 6])):
        folder = tmp_path / str(device)
        folder.mkdir()
        save_file(data, folder / "data.safetensors")
        for steps in stops:
            checkpoint = lora.train(
                lora.Training(tokens=steps * 16, decay_share=0.0, **settings),
                folder,
                check_every=2,
                draws=1,
                device=device,
            )
    here, there = (
        pd.read_json(tmp_path / str(device) / "log.jsonl", lines=True).filter(regex="^step$|nelbo|nll")
        for device in ("cpu", PLACE)
    )
    assert here.step.tolist() == [2, 4, 6] and checkpoint.is_dir()
    pd.testing.assert_frame_equal(here, there, rtol=0.02)  # of bfloat16, through another kernel of attention


def test_costs(pair, make_ids):
    (here, there), ids_BT = pair(), make_ids(2, 12)
    where_BT = torch.arange(12).expand_as(ids_BT) > 5
    assert_frames(*(compute.account(lm, ids_BT, where_BT) for lm in (here, there)))
    assert len(compute.latency({"there": there}, ids_BT, where_BT, rounds=2)) == 2


@pytest.mark.parametrize(
    ("preset_name", "more"),
    [("wanda", []), ("unstable", []), ("structured", []), ("sparsegpt", ["--stream"])],
)
def test_the_command_line(tmp_path, preset_name, more):
    """A public checkpoint is pruned, saved and scored by one command each."""
    write(CASES["llada"], tmp_path / "llada")
    (tmp_path / "text.txt").write_text(
        "\n\n".join(
            f"Paragraph {number} tells of things that a model may read, and of more than that."
            for number in range(60)
        ),
        encoding="utf-8",
    )
    common, scores = (
        ["--text", str(tmp_path / "text.txt"), "--sequences", "4", "--length", "24", "--dtype", "float32"],
        [],
    )
    for name, place in (("here", "cpu"), ("there", str(PLACE))):
        out = tmp_path / name
        assert (
            main(
                [
                    "prune",
                    str(tmp_path / "llada"),
                    "--preset",
                    preset_name,
                    *common,
                    "--batch",
                    "2",
                    "--device",
                    place,
                    *more,
                    "--out",
                    str(out),
                ]
            )
            == 0
        )
        assert (
            main(["evaluate", str(out), *common, "--device", place, "--json", str(tmp_path / f"{name}.json")])
            == 0
        )
        scores.append(pd.read_json(tmp_path / f"{name}.json"))
    assert_alike(weights(load(tmp_path / "here")), weights(load(tmp_path / "there")))
    assert_frames(*scores)
