"""Random weights of one architecture, and counts of prompts."""

import pandas as pd
import pytest
import torch
from scipy import stats

from sinkprune_companion.experiments.random_null import paired_counts, with_random_weights


def test_random_weights_are_those_of_the_seed_in_both_kinds_and_in_both_directions(
    tiny_dlm, tiny_ar, make_ids
):
    before = torch.random.get_rng_state()

    made = {
        (lm.kind, seed): with_random_weights(lm, seed, "float32")
        for lm in (tiny_dlm, tiny_ar)
        for seed in (0, 1)
    }

    assert torch.equal(before, torch.random.get_rng_state())

    for seed in (0, 1):
        one, other = (made[kind, seed] for kind in ("diffusion", "autoregressive"))
        pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)

    assert made["diffusion", 0].fingerprint() != made["diffusion", 1].fingerprint()
    assert made["diffusion", 0].fingerprint() != tiny_dlm.fingerprint()

    ids_NT = make_ids(1, 12)
    changed_NT = ids_NT.clone()
    changed_NT[0, -1] = ids_NT[0, 0]

    for (kind, _), lm in made.items():
        moved = (lm.hidden(ids_NT) - lm.hidden(changed_NT))[0, 0].abs().max()
        assert (moved > 0) == (kind == "diffusion")


def test_counts_are_of_prompts_whose_trajectories_are_averaged():
    larger = {0: (3.0, 1.0), 1: (2.0, 0.0), 2: (1.0, 1.0), 3: (0.0, 4.0), 4: (5.0, 0.5)}
    rows = []
    for prompt, (dlm, ar) in larger.items():
        for trajectory_number, shift in enumerate((-0.5, 0.5)):
            rows.append((prompt, trajectory_number, "diffusion", dlm + shift))
            rows.append((prompt, trajectory_number, "autoregressive", ar - shift))

    counts = paired_counts(pd.DataFrame(rows, columns=["prompt", "trajectory", "kind", "x"]), "x")

    differences = [2.0, 2.0, 0.0, -4.0, 4.5]
    assert (counts["larger"], counts["smaller"], counts["tied"], counts["prompts"]) == (3, 1, 1, 5)
    assert counts["median"] == 2.0
    assert counts["sign test"] == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert counts["Wilcoxon"] == pytest.approx(stats.wilcoxon(differences).pvalue)
