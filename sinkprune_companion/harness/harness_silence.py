"""Silence for lm-evaluation-harness, whose remarks on its own configuration say nothing to users of ours."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Keep the harness from logging anything but errors, and from asking git about the working directory.

    Its record of the commit, which nothing here reads, is None; git would complain outside of a repository.
    """
    from lm_eval import evaluator

    logger = logging.getLogger("lm_eval")
    level = logger.level
    ask_git = evaluator.get_git_commit_hash
    logger.setLevel(logging.ERROR)
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = ask_git
        logger.setLevel(level)
