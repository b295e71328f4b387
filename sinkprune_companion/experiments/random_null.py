"""What the measures of claim 1 give where nothing was learned, and how prompts split beside their mean."""

import copy
from dataclasses import replace

import pandas as pd
import torch
from scipy import stats

from sinkprune.models.devices import choose_dtype
from sinkprune_companion.run.records import Run
from sinkprune_core import Calibration, LanguageModel
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.language_model import set_direction
from sinkprune_core.seeds import seed_of
from sinkprune_core.sinks import detection

STABILITY_REVISION = 1  # of `stability_at_noise`


def with_random_weights(
    lm: LanguageModel, seed: int, dtype: str = "auto", device: str = "cpu"
) -> LanguageModel:
    """Return the same model with weights as transformers begins a training: equal ones by equal seeds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "random weights"))
        config = copy.deepcopy(lm.model.config)
        model = type(lm.model)._from_config(config, dtype=choose_dtype(dtype, device))

    set_direction(model.eval().requires_grad_(False), causal=not lm.is_diffusion)
    return replace(lm, model=model.to(device), name=f"random-{lm.kind}-{seed}")


def stability_at_noise(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    text: Calibration,
    noise_levels: int,
    sink_std: float,
    stability_threshold: float,
) -> pd.DataFrame:
    """Return the record of the sink statistics of calibration text in the states that pruning sees."""

    def compute() -> pd.DataFrame:
        return detection.variability(*sink_profiles(lm, text, noise_levels), **rule)

    rule = {"sink_std": sink_std, "stability_threshold": stability_threshold}
    key = {"model": lm.name, "kind": lm.kind, "fingerprint": fingerprint, "calibration": text.fingerprint}
    return run.record("stability", compute, STABILITY_REVISION, **key, noise_levels=noise_levels, **rule)


def paired_counts(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return counts of DLM - AR in a metric, by prompt, with p-values, which are NaN where all are tied."""
    by_prompt = frame.groupby(["prompt", "kind"])[metric].mean().unstack()  # NaN where no trajectory has it
    difference = (by_prompt["diffusion"] - by_prompt["autoregressive"]).dropna()
    larger, smaller = int((difference > 0).sum()), int((difference < 0).sum())
    untied = larger + smaller  # what the sign test counts

    return {
        "prompts": len(difference),
        "median": float(difference.median()),
        "larger": larger,
        "smaller": smaller,
        "tied": len(difference) - untied,
        "sign test": float(stats.binomtest(larger, untied).pvalue) if untied else float("nan"),
        "Wilcoxon": float(stats.wilcoxon(difference).pvalue) if untied else float("nan"),
    }
