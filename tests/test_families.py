"""Families: every public format gives the numbers that the papers' formulas give, in a native class and without remote code."""

import pytest
import torch
from families import CASES, reference, write

from sinkprune_core.models import load

LENGTH = 11


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A function that writes a case's checkpoint once: (folder, parts)."""
    known = {}

    def get(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("public") / name.replace(" ", "-")
            known[name] = folder, write(CASES[name], folder)
        return known[name]

    return get


def some_ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(21, 66, (LENGTH,), generator=torch.Generator().manual_seed(seed))


def outputs(lm, ids_T: torch.Tensor) -> torch.Tensor:
    return lm.model(ids_T[None], use_cache=False).logits[0]


@pytest.mark.parametrize("name", CASES)
def test_a_public_checkpoint_gives_what_the_formulas_give(name, written):
    case, (folder, parts) = CASES[name], written(name)
    lm, ids_T = load(folder), some_ids()
    ids_T[[2, 7]] = case.mask or 30
    expected_TV = reference(parts, case.shape, ids_T, causal=case.causal)
    found_TV = outputs(lm, ids_T)
    torch.testing.assert_close(found_TV[:, : expected_TV.shape[1]], expected_TV, atol=1e-4, rtol=1e-4)
    assert expected_TV.std() > 0.1
