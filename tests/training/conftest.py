"""A run that is short, and data for it that are easy to learn."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import word_tokenizer

from sinkprune_companion.training.crops import origin, write_data
from sinkprune_companion.training.settings import Training, training_dtype

SHORT = {
    "tokens": 64,
    "lengths": (8,),
    "batch_tokens": 16,
    "rank": 4,
    "alpha": 8,
    "warmup_steps": 1,
    "decay_share": 1.0,
    "dtype": training_dtype("auto", "cpu"),
}  # four steps, each with a rate of its own


@pytest.fixture(scope="session")
def short() -> Callable[..., Training]:
    """A function that returns the settings of a short run, with some of them changed."""
    return lambda **changes: Training(**{**SHORT, **changes})


@pytest.fixture(scope="session")
def save_data():
    """A function that writes the data of a run into its folder."""

    def save(folder: Path, data: dict[str, torch.Tensor]) -> Path:
        folder.mkdir()
        write_data(folder / "data.safetensors", data, origin(word_tokenizer(), None))
        return folder

    return save


@pytest.fixture
def prepared(tiny_base, tmp_path, make_ids, save_data) -> Path:
    """The folder of a run whose data are already there.

    Most crops repeat one word, as all held-out sequences do, so that there is much to learn.
    """
    data = {}
    for seed, source in enumerate(("samples", "documentation")):
        words = make_ids(1, 20, seed)[0]
        data[f"train_{source}"] = words.repeat_interleave(64)
        data[f"held_out_{source}_crops"] = words[:6, None].expand(-1, 8)
        data[f"held_out_{source}_beginnings"] = words[6:12, None].expand(-1, 8)
    return save_data(tmp_path / "run", data)


@pytest.fixture
def copied(prepared, tmp_path):
    """A function that returns another folder with the data of `prepared`, for a second run."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "data.safetensors").write_bytes((prepared / "data.safetensors").read_bytes())
        return folder

    return copy


@pytest.fixture(scope="session")
def rows_of():
    """A function that returns the rows of a log."""
    return lambda file: [json.loads(line) for line in file.read_text().splitlines()]
