"""Tiny tasks of lm-evaluation-harness in a folder."""

import datasets
import pytest
from lm_eval.tasks import TaskManager
from tiny_tasks import write_tasks


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    """A folder of tiny tasks; the data sets' cache lies beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


@pytest.fixture(scope="module")
def manager(task_folder):
    return TaskManager(include_path=str(task_folder), include_defaults=False)
