"""Tiny checkpoints in the public formats, written once or written to be damaged."""

from dataclasses import replace

import pytest
from random_models.cases import CASES
from random_models.writing import write

from sinkprune.models.saving import save


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A function that writes a case's checkpoint once: (folder, parts). The folder is not to be changed."""
    known = {}

    def get(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("public") / name.replace(" ", "-")
            known[name] = folder, write(CASES[name], folder)
        return known[name]

    return get


@pytest.fixture(scope="session")
def folder(written):
    """A function that returns the folder of a case's checkpoint, which is not to be changed."""

    def get(name):
        return written(name)[0]

    return get


@pytest.fixture
def fresh(tmp_path):
    """A function that writes a case's checkpoint into a folder that may be changed."""

    def get(name, **changes):
        folder = tmp_path / "fresh"
        write(replace(CASES[name], **changes), folder)
        return folder

    return get


@pytest.fixture
def saved(tiny_dlm, tmp_path):
    """A folder that holds a saved diffusion model."""
    return save(tiny_dlm, tmp_path / "model")
