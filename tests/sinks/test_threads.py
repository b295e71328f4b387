"""Threads that share one model: what one of them hides or tracks, no forward of another one sees."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sinkprune_core.sinks.attention import hide
from sinkprune_core.sinks.hiding import Hiding, hiding_model

KINDS = ("autoregressive", "diffusion")


def in_thread(function):
    """Return what a function gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_thread_hides_another_one_sees(make_lm, make_ids, kind):
    lm, ids_BT = make_lm(kind), make_ids(2, 9)
    dense_BTD = lm.hidden(ids_BT)
    hidden_BK = torch.zeros(2, 9, dtype=torch.bool)
    hidden_BK[:, 1] = True
    with hide(lm.model, hidden_BK):
        without_BTD = lm.hidden(ids_BT)
        elsewhere_BTD = in_thread(lambda: lm.hidden(ids_BT))
    assert torch.equal(elsewhere_BTD, dense_BTD)
    assert not torch.allclose(without_BTD, dense_BTD, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_share_a_model_see_nothing_of_each_other(make_lm, make_ids, kind):
    lm = make_lm(kind)
    jobs = [(Hiding(keys, count), make_ids(2, 12, seed)) for seed in range(4) for keys, count in (
        ("top", 0), ("top", 2), ("random", 2), ("first", 1))]  # fmt: skip

    def run(job):
        hiding, ids_BT = job
        return hiding_model(lm, hiding).hidden(ids_BT)

    alone = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(run, jobs * 3), alone * 3, strict=True):
            assert torch.equal(found, expected)
