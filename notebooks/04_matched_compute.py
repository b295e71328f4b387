# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Does it hold at matched compute?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/04_matched_compute.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/04_matched_compute.ipynb)
#
# **Question.** A DLM can be made cheaper in two ways: zero weights, or fewer denoising steps, which costs nothing to set
# up. At the same compute, which gives the better model, and is sink-aware pruning better than its baselines there?
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about 3 minutes | 1.7 GB |
# | full | an estimated 70 minutes | not measured |
#
# *Matched* means here, each time said which: the same sparsity of the same weights; the same number of calibration tokens;
# the same effective FLOPs of generation, where a zero weight counts as skipped work.

# %% [markdown]
# **Parameters.**

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
sparsity: float = 0.5  # share of zeros in the blocks' linear maps
steps: list[int] = [8, 16, 32, 64]  # numbers of denoising steps at which pruned models are measured
sequences: int = 32  # held-out sequences, half samples of the AR model, half documentation
draws: int = 4  # noise draws per sequence
calibration: int = 16  # calibration sequences of the noised recipes
levels: int = 8  # noise levels per calibration sequence
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
dtype: str = "bfloat16"  # of the weights

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any work, and says where
# results go.

# %% tags=["setup"]
try:
    import sinkprune_core  # noqa: F401
except ModuleNotFoundError:  # a place that has only this notebook
    import subprocess
    import sys

    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "sinkprune[notebooks] @ git+https://github.com/sinkprune/sinkprune@v0.1.0"])
from sinkprune_core.notebook import start

run = start("04_matched_compute", globals())

# %% [markdown]
# ## The claim
#
# > Without retraining, our method achieves a better quality-efficiency trade-off and outperforms strong prior pruning
# > baselines under matched compute. (abstract)
#
# **What would falsify it.** With as many calibration tokens, Wanda does as well (the interval of the paired difference
# reaches zero). Or: the dense model with fewer steps, at the same effective FLOPs, does as well as the pruned one.
#
# ## The measure
#
# Quality after *K* denoising steps needs a likelihood that knows about steps. Reveal tokens in random order in *K* groups
# of even size, each group predicted in parallel from what was revealed before: the cross-entropies of that procedure bound
# the negative log-likelihood. A uniformly chosen token belongs to some group and pays the cross-entropy at the masks that
# were there when its group was predicted. With as many steps as tokens this is the ordinary NELBO; fewer steps cost more.

# %%
import pandas as pd

from sinkprune_core import compute, corpus
from sinkprune_core.experiments import calibration_draw, variant_scores
from sinkprune_core.models import load
from sinkprune_core.pruning import preset

for count in steps:
    if not 1 <= count < length:
        raise ValueError(f"steps={count} must lie in 1 … {length - 1}, the number of tokens to reveal")
recipes = {name: preset(name, sparsity=sparsity, **({} if name == "wanda" else {"levels": levels})) for name in ("wanda", "dwanda", "noised-dense", "unstable")}
dlm = load(model, dtype)
fingerprint = dlm.fingerprint()
texts = corpus.texts(dlm.tokenizer, sequences, length, held_out=True)

# %% [markdown]
# ## Compute, from shapes and by count
#
# FLOPs per forward come from the model's shapes. torch's own counter on a real forward checks them.

# %%
import torch

ids_BT = texts["samples"][:1]
where_BT = (torch.arange(length) > 0).expand_as(ids_BT)
cost = compute.forward_cost(dlm, length, length - 1)
counted = compute.counted_flops(dlm, ids_BT, where_BT)
shares = {part: getattr(cost, part) / cost.total for part in ("linears", "attention", "head")}
print(f"one forward of {length} tokens: {cost.total / 1e9:.2f} GFLOP from shapes, {counted / 1e9:.2f} counted, ratio {cost.total / counted:.4f}")
print("shares:", ", ".join(f"{part} {share:.1%}" for part, share in shares.items()), "- only the linear maps of the blocks are pruned")

# %% [markdown]
# For every number of steps *K* of the pruned model: how many steps may the dense model take for the same effective FLOPs?

# %%
tokens = length - 1


def dense_steps(count: int) -> int:
    budget = compute.generation_flops(dlm, tokens, 1, count, sparsity)
    return max((k for k in range(1, tokens + 1) if compute.generation_flops(dlm, tokens, 1, k) <= budget), default=1)


matched = pd.DataFrame([{"steps": count, "dense_steps": dense_steps(count)} for count in steps])
matched["pruned_tflop"] = [compute.generation_flops(dlm, tokens, 1, k, sparsity) / 1e12 for k in matched.steps]
matched["dense_tflop"] = [compute.generation_flops(dlm, tokens, 1, k) / 1e12 for k in matched.dense_steps]
matched.round(3)

# %% [markdown]
# ## The experiment
#
# Wanda sees clean text once; noised recipes see every sequence at several noise levels. To match calibration tokens, Wanda
# gets as many more sequences. Finding sinks takes one more pass, which is counted below.

# %%
from tqdm.auto import tqdm

grid = sorted({*steps, *matched.dense_steps})
parts = [variant_scores(run, dlm, fingerprint, None, None, texts, draws, [None, *grid], variant="dense", seed=0)]
for seed in tqdm(range(first_seed, first_seed + seeds), desc="calibration draws"):
    for name, recipe in recipes.items():
        rows = calibration * (levels if recipe.inputs == "clean" else 1)
        drawn_text = calibration_draw(dlm, rows, length, seed)
        measured = [None, *steps] if name in ("wanda", "unstable") else [None]
        parts.append(variant_scores(run, dlm, fingerprint, recipe, drawn_text, texts, draws, measured, variant=name, seed=seed))
scores = pd.concat(parts, ignore_index=True)
scores.groupby("variant", sort=False)[["zeros", "calibration_tokens", "left_out_share", "prune_seconds"]].mean().round(3)

# %% [markdown]
# ## The figure: quality against effective compute
#
# Down and to the left is better. The zero line is the dense model that reveals one token per step; everything is paired
# with it by sequence and noise.

# %%
from sinkprune_core import figures
from sinkprune_core.results import crossed_interval, pivot


def values(variant: str, count: int):
    return pivot(scores[(scores.variant == variant) & (scores.steps == count)])


rows = []
for variant, count in scores[["variant", "steps"]].drop_duplicates().itertuples(index=False):
    found = crossed_interval(values(variant, count) - values("dense", 0))
    share = 0.0 if variant == "dense" else sparsity
    rows.append({"variant": variant, "steps": count or tokens, "tflop": compute.generation_flops(dlm, tokens, 1, count or tokens, share) / 1e12, "excess": found.value, "low": found.low, "high": found.high})
front = pd.DataFrame(rows)
labels = {"tflop": "effective TFLOP per generated sequence", "excess": "bound above the dense NELBO (nats per token)"}
figures.save_figure(run, figures.plot_curves(front, "tflop", "excess", "variant", labels, ("low", "high"), logx=True), "front", front, "quality against effective generation FLOPs; bars: 95 % bootstrap interval over calibration draws and sequences")

# %% [markdown]
# ## Paired differences
#
# The same sequences under the same noise. Above: against the dense model with fewer steps. Below: against other recipes at
# the same sparsity, effective FLOPs and calibration tokens.

# %%
from sinkprune_core.results import paired


def at(variant: str, count: int) -> dict:
    return {"variant": variant, "steps": count}


forest, groups = {}, {}
for row in matched.itertuples():
    label = f"unstable, {row.steps} steps − dense, {row.dense_steps} steps"
    forest[label], groups[label] = paired(scores, at("unstable", row.steps), at("dense", row.dense_steps)), "against fewer steps"
for other in ("wanda", "dwanda", "noised-dense"):
    label = f"unstable − {other}, NELBO"
    forest[label], groups[label] = paired(scores, at("unstable", 0), at(other, 0)), "against other recipes"
data = pd.DataFrame([{"comparison": label, "value": e.value, "low": e.low, "high": e.high, "interval": e.method} for label, e in forest.items()])
figures.save_figure(run, figures.plot_forest(forest, "difference at matched compute (nats per token)", groups), "differences", data, "paired differences at matched compute")

# %% [markdown]
# ## What calibration costs
#
# FLOPs through the blocks, by recipe: sequential propagation passes twice, dense propagation once, finding sinks once more.

# %%
PASSES = {"wanda": 2, "dwanda": 2, "noised-dense": 1, "unstable": 2}
costs = pd.DataFrame([{"recipe": name, "TFLOP": compute.calibration_flops(dlm, length, calibration * levels, PASSES[name]) / 1e12} for name in recipes])
costs["seconds here"] = [scores[scores.variant == name].prune_seconds.mean() for name in costs.recipe]
costs["generated sequences worth as much"] = costs.TFLOP / (compute.generation_flops(dlm, tokens, 1, max(steps)) / 1e12)
costs.round(2)

# %% [markdown]
# ## And the clock?
#
# Effective FLOPs idealise. Dense kernels multiply zeros like any other number: here is one forward of the dense and of the
# pruned model, in turns, median of nine.

# %%
import statistics
import time

from sinkprune_core.pruning import prune, weights_kept


def seconds() -> float:
    begun = time.perf_counter()
    dlm.hidden(texts["samples"][:8])
    return time.perf_counter() - begun


with torch.inference_mode():
    before = [seconds() for _ in range(10)][1:]
    with weights_kept(dlm):
        prune(dlm, preset("magnitude", sparsity=sparsity), progress=False)
        after = [seconds() for _ in range(10)][1:]
print(f"pruned / dense time of a forward: {statistics.median(after) / statistics.median(before):.2f}, at {cost.effective(sparsity) / cost.total:.2f} of the effective FLOPs")

# %% [markdown]
# ## The reading

# %%
import numpy as np

over_steps = np.mean([values("unstable", row.steps) - values("dense", row.dense_steps) for row in matched.itertuples()], axis=0)
found = {"pruned_minus_dense_steps": crossed_interval(over_steps)}
found |= {f"unstable_minus_{other.replace('-', '_')}": forest[f"unstable − {other}, NELBO"] for other in ("wanda", "dwanda", "noised-dense")}
run.find(found if sparsity == 0.5 else {})
for finding, estimate in found.items():
    print(f"{finding:<28} {estimate}   {estimate.method}")

# %% [markdown]
# ## The verdict

# %%
from sinkprune_core import claims

verdicts = claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook)
verdicts[["claim", "metric", "here", "interval", "claimed", "verdict"]]

# %% [markdown]
# **What this does not show.** Random order, not the confident order that samplers use; likelihood, not task accuracy; a
# small model that tolerates pruning less than an 8B model does. Hardware that skips zeros in 2:4 groups exists; row-wise
# unstructured zeros save nothing today.
