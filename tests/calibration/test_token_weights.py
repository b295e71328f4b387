"""Weights of calibration tokens, from transformers' own attention maps and in the official code's units."""

import math
import statistics

import naive
import numpy as np
import pytest
import torch
from naive import linears_of, matrix, zeros_of
from naive_attention import eager

from sinkprune_core import Calibration, Recipe, preset, prune
from sinkprune_core.calibration.text import trajectory
from sinkprune_core.calibration.token_weights import rows_for

LEVELS, LENGTH = 3, 24


def noised(lm, calibration, noise: str, noise_levels: int) -> torch.Tensor:
    return trajectory(lm, calibration, noise_levels, noise).flatten(0, 1)


# hard masks


def naive_weights(lm, calibration, tokens: str, inputs: str, stability_threshold: float) -> list[list[float]]:
    """Return a weight per token: of every row of noised inputs, or of every sequence of clean ones."""
    masses, weights = naive.eager_masses(lm, noised(lm, calibration, "grid", LEVELS)), []

    for sequence in range(len(calibration.ids_NT)):
        sinks = []
        for mass in masses[sequence * LEVELS : (sequence + 1) * LEVELS]:
            threshold = statistics.fmean(mass) + 2 * statistics.pstdev(mass)
            sinks.append([value > threshold for value in mass])

        stable = [sum(step[key] for step in sinks) >= stability_threshold * LEVELS for key in range(LENGTH)]
        out = {
            "all": lambda step, key, sinks=sinks: sinks[step][key],
            "non-sinks": lambda step, key, sinks=sinks: not sinks[step][key],
            "stable": lambda step, key, sinks=sinks, stable=stable: sinks[step][key] and stable[key],
            "unstable": lambda step, key, sinks=sinks, stable=stable: sinks[step][key] and not stable[key],
        }[tokens]

        if inputs == "noised":
            weights += [[0.0 if out(step, key) else 1.0 for key in range(LENGTH)] for step in range(LEVELS)]
        else:
            weights.append(
                [1 - sum(out(step, key) for step in range(LEVELS)) / LEVELS for key in range(LENGTH)]
            )

    return weights


@pytest.mark.parametrize("tokens", ["all", "unstable", "stable", "non-sinks"])
@pytest.mark.parametrize(
    ("inputs", "propagation", "norm"),
    [("noised", "dense", "root"), ("noised", "sequential", "sum"), ("clean", "dense", "sum")],
)
def test_sink_aware_wanda_equals_naive_loops(tiny_dlm, calibration, tokens, inputs, propagation, norm):
    ids_RT = noised(tiny_dlm, calibration, "grid", LEVELS) if inputs == "noised" else calibration.ids_NT
    weights = naive_weights(tiny_dlm, calibration, tokens, inputs, 0.6)

    flat = [weight for row in weights for weight in row]
    assert len(set(flat)) > 1

    expected = naive.prune(tiny_dlm, "wanda", 0.5, "row", ids_RT, weights, propagation, norm)
    report = prune(
        tiny_dlm,
        Recipe(
            inputs=inputs,
            propagation=propagation,
            norm_reduction=norm,
            exclude=tokens,
            noise_levels=LEVELS,
            stability_threshold=0.6,
        ),
        calibration,
        progress=False,
    )

    assert zeros_of(tiny_dlm) == expected
    assert report.left_out_share == pytest.approx(1 - statistics.fmean(flat))


# soft masks, in the official code's units


@pytest.mark.parametrize("noise", ["official", "dream"])
@pytest.mark.parametrize(("sink_std", "alpha"), [(2.0, None), (1.0, 0.05), (2.0, 0.5)])
def test_official_weights_are_a_sigmoid_of_mass_summed_over_layers_heads_and_queries(
    tiny_dlm, calibration, noise, sink_std, alpha
):
    """alpha is per unit of summed mass, of which an even share has layers x heads."""
    masses = naive.eager_masses(tiny_dlm, noised(tiny_dlm, calibration, noise, 4))
    assert statistics.fmean(masses[0]) == pytest.approx(3 * 4, rel=1e-5)
    out = [naive.official_out(mass, sink_std, 5.0 if alpha is None else alpha) for mass in masses]
    assert any(0.01 < value < 0.99 for row in out for value in row)

    key = Recipe(
        inputs="noised", noise=noise, noise_levels=4, exclude="official", sink_std=sink_std, alpha=alpha
    ).statistics_key
    weight_RT = rows_for(tiny_dlm, calibration, key, progress=False).weight_RT
    torch.testing.assert_close(weight_RT, 1 - torch.tensor(out, dtype=torch.float32), rtol=0, atol=2e-4)


def test_soft_sinks_count_alpha_per_even_share(tiny_dlm, calibration):
    def weights(tokens: str, alpha: float | None = None) -> torch.Tensor:
        recipe = Recipe(inputs="noised", exclude=tokens, alpha=alpha, noise_levels=3)
        return rows_for(tiny_dlm, calibration, recipe.statistics_key, progress=False).weight_RT

    units = 3 * 4
    torch.testing.assert_close(weights("all", 6.0), weights("official", 6.0 / units))
    hard = weights("all")
    torch.testing.assert_close(weights("all", 1e6), hard)
    assert hard.unique().tolist() == [0.0, 1.0]


def test_a_causal_model_counts_visible_keys_only(tiny_ar, calibration):
    """Soft weights of clean rows are means over query windows; a key that some query cannot see stays in."""
    key = Recipe(exclude="official", noise_levels=LEVELS).statistics_key
    weight_NT = rows_for(tiny_ar, calibration, key, progress=False).weight_RT
    maps = eager(tiny_ar, calibration.ids_NT)[1].double().mean((1, 2))  # (N, Q, K)

    windows = [(6, 12), (12, 18), (18, 24)]
    for sequence in range(len(calibration.ids_NT)):
        left_out = [0.0] * LENGTH
        for first, last in windows:
            profile = [
                sum(maps[sequence, query, key].item() for query in range(first, last))
                / sum(1 / (query + 1) for query in range(first, last))
                for key in range(first + 1)
            ]

            threshold = statistics.fmean(profile) + 2 * statistics.pstdev(profile)
            for key, value in enumerate(profile):
                left_out[key] += 1 / (1 + math.exp(-5 * 12 * (value - threshold))) / LEVELS

        assert weight_NT[sequence].tolist() == pytest.approx([1 - value for value in left_out], abs=1e-3)


# the presets, end to end


@pytest.mark.parametrize(("name", "noise"), [("paper", "official"), ("paper-dream", "dream")])
@pytest.mark.parametrize("family", ["llama-gqa", "qwen2"])
def test_the_papers_wanda_equals_a_naive_calculation(make_family, make_ids, name, noise, family):
    """A soft mask per state; one norm per forward of one sequence, summed over them; dense activations."""
    lm, calibration = make_family(family), Calibration(make_ids(3, 12, seed=7), seed=5, batch=20)
    ids_RT = noised(lm, calibration, noise, 10)

    weights = [[1 - out for out in naive.official_out(mass)] for mass in naive.eager_masses(lm, ids_RT)]
    expected = naive.prune(lm, "wanda", 0.5, "row", ids_RT, weights, "dense", norm_reduction="sum")

    report = prune(lm, preset(name), calibration, progress=False)

    assert zeros_of(lm) == expected
    assert report.left_out_share == pytest.approx(
        1 - statistics.fmean(weight for row in weights for weight in row), abs=1e-4
    )
    assert report.calibration_tokens == 3 * 10 * 12


@pytest.mark.parametrize("family", ["llama-gqa", "qwen2"])
def test_the_papers_sparsegpt_equals_a_naive_calculation(make_family, make_ids, family):
    """Soft masks averaged over states; the weighted Gram matrix of clean text, passed on pruned."""
    lm, calibration = make_family(family), Calibration(make_ids(4, 16, seed=7), seed=5, batch=3)

    outs = [
        naive.official_out(mass) for mass in naive.eager_masses(lm, noised(lm, calibration, "official", 10))
    ]
    weights = []
    for sequence in range(4):
        states = outs[10 * sequence : 10 * sequence + 10]
        weights.append([1 - statistics.fmean(state[key] for state in states) for key in range(16)])

    expected = naive.prune_by_sparsegpt(lm, "layer", 0.5, calibration.ids_NT, weights)
    prune(lm, preset("paper-sparsegpt"), calibration, progress=False)

    for place, linear in linears_of(lm).items():
        found = matrix(linear)
        assert np.array_equal(found == 0, expected[place] == 0)
        assert np.abs(found - expected[place]).max() <= 1e-4 * np.abs(expected[place]).max()
