"""Every notebook, by its defaults, computes on the GPU of a machine that has one.

Without a GPU, on the device of `fake_device.py`, which has no units for bfloat16: `make device-test`.
"""

import json
from contextlib import nullcontext

import pytest
import torch
from notebook_cells import MODELS, TINY, run_cells, save_tiny_pair

from sinkprune.models.devices import choose_dtype

if torch.cuda.is_available():
    DEVICE = torch.device("cuda", 0)
    second_device = nullcontext
else:
    from fake_device import DEVICE, second_device


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", TINY)
def test_a_notebook_takes_the_gpu_and_a_dtype_that_it_has(name, pair, tmp_path, monkeypatch, capsys):
    for module in ("records", "parameters"):
        monkeypatch.setattr(f"sinkprune_companion.run.{module}.project_root", lambda: tmp_path)
    models = {parameter: pair[parameter] for parameter in MODELS[name]}

    with second_device():
        run_cells(name, profile="tiny", **models, **TINY[name])

    dtype = str(choose_dtype("auto", DEVICE)).removeprefix("torch.")
    said = capsys.readouterr().out
    assert f"results go to {tmp_path / 'runs' / 'tiny'}\n" in said
    assert f"computed on {DEVICE.type}" in said and f" in {dtype}\n" in said

    records = list((tmp_path / "runs" / "tiny" / "records").glob("*/*.json"))
    devices = {json.loads(file.read_text(encoding="utf-8"))["device"] for file in records}
    assert len(devices) == 1 and devices.pop().startswith(DEVICE.type)
