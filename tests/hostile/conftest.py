import os
import sys
from multiprocessing import forkserver

import pytest
from hostile.processes import FORKS  # which says what is imported before a fork


@pytest.fixture(scope="session", autouse=True)
def forks():
    """The process from which commands are forked."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patches.setenv("CUDA_VISIBLE_DEVICES", "")
        patches.setenv("HF_HUB_OFFLINE", "1")
        patches.setenv("MPLBACKEND", "agg")
        patches.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patches.setenv("PYTHONUNBUFFERED", "1")  # what is said stays in order
        forkserver.ensure_running()
    return FORKS
