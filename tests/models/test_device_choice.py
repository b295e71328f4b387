"""What `auto` means is what was measured to be faster here, once for a machine."""

import pytest
import torch

from sinkprune.models import devices
from sinkprune.models.devices import choose_dtype


@pytest.fixture
def gains(tmp_path, monkeypatch):
    """A list of gains that are measured one after the other, in an empty cache."""
    waiting: list[float] = []
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(devices, "_measured_gain", lambda: waiting.pop(0))
    devices._measured_once.cache_clear()
    yield waiting
    devices._measured_once.cache_clear()


@pytest.mark.parametrize(("gain", "dtype"), [(7.0, "bfloat16"), (1.1, "float32"), (0.5, "float32")])
def test_auto_is_the_dtype_that_was_measured_to_be_faster(gains, gain, dtype):
    gains.append(gain)
    assert choose_dtype("auto", "cpu") == getattr(torch, dtype)
    with pytest.raises(ValueError, match="int8 is unknown"):
        choose_dtype(torch.int8)


def test_the_gain_of_bfloat16_is_measured_once_for_a_machine_and_its_threads(gains, tmp_path, monkeypatch):
    gains += [3.0, 2.0, 5.0]
    for _ in range(2):
        assert devices.bfloat16_gain() == 3.0
        devices._measured_once.cache_clear()  # as in another process

    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert devices.bfloat16_gain() == 2.0 and len(list(tmp_path.glob("bfloat16-*.json"))) == 2

    for file in tmp_path.glob("bfloat16-*.json"):
        file.write_text("{")
    devices._measured_once.cache_clear()
    assert devices.bfloat16_gain() == 5.0, "a damaged file is measured anew"
