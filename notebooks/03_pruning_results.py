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
# # 03 · Does leaving sinks out give better pruned models?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/03_pruning_results.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/03_pruning_results.ipynb)
#
# **Question.** When weights are scored on calibration text, does it help to leave attention sinks out of the statistics:
# all of them, as the official code does, or only the unstable ones, as the paper's title says? And is it the sinks that do
# it, or what else the official comparison changes?
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about 6 minutes | 2.1 GB |
# | full | an estimated 2 hours | not measured |
#
# Every variant is measured on the same held-out sequences under the same noise, and repeated over calibration draws.

# %% [markdown]
# **Parameters.**

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
twin: str = "smol-ar"  # its autoregressive counterpart, pruned as a control
sparsities: list[float] = [0.5, 0.75]  # shares of zeros in the blocks' linear maps; verdicts are read at 0.5
recipes: list[str] = ["magnitude", "wanda", "dwanda", "noised-dense", "all-sinks", "unstable", "stable", "random", "only-sinks"]  # presets
sequences: int = 48  # held-out sequences, half samples of the AR model, half documentation
draws: int = 4  # noise draws per sequence
calibration: int = 16  # calibration sequences
levels: int = 8  # noise levels per calibration sequence
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
deviations: float = 2.0  # a sink gets more than mean + this many standard deviations
stable_from: float = 0.8  # a position that is a sink in this share of levels is stable
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

run = start("03_pruning_results", globals())

# %% [markdown]
# ## The claim
#
# > we propose Sink-Aware Pruning, which automatically identifies and prunes unstable sinks in DLMs (prior studies usually
# > keep sinks for AR LLMs). Without retraining, our method achieves a better quality-efficiency trade-off and outperforms
# > strong prior pruning baselines under matched compute. (abstract)
#
# **What would falsify it.** A paired difference in NELBO, method − Wanda, whose 95 % interval reaches zero. And for the
# word *sink-aware*: the same difference when only the sink weights are switched on and nothing else changes.
#
# ## The experiment
#
# The official comparison with Wanda changes three things at once: calibration text is noised instead of clean, later
# blocks are calibrated on dense instead of pruned outputs, and sinks are left out. Here each is a switch.
#
# | recipe | calibration text | propagation | left out of the statistics |
# |---|---|---|---|
# | `magnitude` | – | – | – |
# | `wanda` | clean | sequential | nothing |
# | `dwanda` | noised | sequential | nothing |
# | `noised-dense` | noised | dense | nothing |
# | `all-sinks` | noised | dense | all sinks (after the published method, with hard masks) |
# | `unstable` | noised | dense | unstable sinks |
# | `stable` | noised | dense | stable sinks |
# | `random` | noised | dense | as many random tokens as `all-sinks` |
# | `only-sinks` | noised | dense | everything but the sinks |

# %%
from sinkprune_core.pruning import Recipe, preset

switches = {"levels": levels, "deviations": deviations, "stable_from": stable_from}
grid = {(name, share): preset(name, sparsity=share, **switches) for share in sparsities for name in recipes}
causal = {("wanda, " + tokens, share): Recipe(sparsity=share, tokens=tokens, **switches) for share in sparsities for tokens in ("none", "all", "random")}
print(f"{len(grid)} variants of the DLM, {len(causal)} of the AR model, {seeds} calibration draws")

# %% [markdown]
# Load the pair and the text. Every recipe's result is a record: a run that was killed goes on where it was.

# %%
from sinkprune_core import corpus
from sinkprune_core.experiments import SharedStatistics, calibration_draw, variant_scores
from sinkprune_core.models import load

dlm, ar = load(model, dtype), load(twin, dtype)
prints = {lm.name: lm.fingerprint() for lm in (dlm, ar)}
texts = corpus.texts(dlm.tokenizer, sequences, length, held_out=True)
draw = {seed: calibration_draw(dlm, calibration, length, seed) for seed in range(first_seed, first_seed + seeds)}
shared = {seed: SharedStatistics(dlm, grid.values(), text) for seed, text in draw.items()}

# %% [markdown]
# Prune, measure, put the weights back. Recipes with dense propagation share their pass over the calibration text: what a
# dense model computes depends on no recipe.

# %%
import pandas as pd
from tqdm.auto import tqdm

jobs = [(lm, name, share, recipe, seed) for seed in draw for lm, recipes_of in ((dlm, grid), (ar, causal)) for (name, share), recipe in recipes_of.items()]
parts = [variant_scores(run, lm, prints[lm.name], None, None, texts, draws, variant="dense", sparsity=0.0, seed=0) for lm in (dlm, ar)]
for lm, name, share, recipe, seed in tqdm(jobs, desc="prune and measure", unit="variant"):
    parts.append(variant_scores(run, lm, prints[lm.name], recipe, draw[seed], texts, draws, shared=shared[seed] if lm is dlm else None, variant=name, sparsity=share, seed=seed))
scores = pd.concat(parts, ignore_index=True)

# %% [markdown]
# ## The figure: what pruning costs
#
# NELBO of the pruned DLM above that of the dense one, on the same sequences under the same noise, mean over text and
# calibration draws; lower is better. (The NELBO itself is in the table beside the figure's file.)

# %%
from sinkprune_core import figures
from sinkprune_core.results import crossed_interval, pivot

dense = pivot(scores[(scores.model == dlm.name) & (scores.variant == "dense")])
rows = []
for (variant, share), part in scores[(scores.model == dlm.name) & (scores.variant != "dense")].groupby(["variant", "sparsity"], sort=False):
    found = crossed_interval(pivot(part) - dense)
    rows.append({"recipe": variant, "sparsity": share, "excess": found.value, "low": found.low, "high": found.high, "nelbo": part.value.mean(), "dense nelbo": dense.mean()})
quality = pd.DataFrame(rows)
labels = {"sparsity": "sparsity of the blocks' linear maps", "excess": "NELBO above the dense model's (nats per token)"}
drawn = figures.plot_curves(quality, "sparsity", "excess", "recipe", labels, ("low", "high"), dodge=0.006)
figures.save_figure(run, drawn, "quality", quality, "NELBO above the dense model against sparsity; bars: 95 % bootstrap interval over calibration draws and sequences")

# %% [markdown]
# ## Paired differences
#
# Each row compares two recipes; left of zero the first is better.

# %%
from sinkprune_core.results import paired

SPARSITY = 0.5
COMPARISONS = {
    "all_sinks_minus_wanda": ("all-sinks", "wanda", "the official comparison"),
    "unstable_minus_wanda": ("unstable", "wanda", "the official comparison"),
    "wanda_minus_magnitude": ("wanda", "magnitude", "baselines"),
    "dwanda_minus_wanda": ("dwanda", "wanda", "one switch at a time"),
    "dense_minus_sequential": ("noised-dense", "dwanda", "one switch at a time"),
    "all_sinks_minus_none": ("all-sinks", "noised-dense", "one switch at a time"),
    "unstable_minus_none": ("unstable", "noised-dense", "one switch at a time"),
    "stable_minus_none": ("stable", "noised-dense", "one switch at a time"),
    "all_sinks_minus_random": ("all-sinks", "random", "controls"),
    "random_minus_none": ("random", "noised-dense", "controls"),
    "only_sinks_minus_none": ("only-sinks", "noised-dense", "controls"),
}


def compare(lm, one: str, other: str, share: float):
    if share not in sparsities or (lm is dlm and not {one, other} <= set(recipes)):
        return None
    return paired(scores, {"model": lm.name, "variant": one, "sparsity": share}, {"model": lm.name, "variant": other, "sparsity": share})


# %% [markdown]
# At every sparsity of this run:

# %%
from IPython.display import display

for share in sparsities:
    forest = {f"{one} − {other}": compare(dlm, one, other, share) for one, other, _ in COMPARISONS.values() if one != "only-sinks"}
    forest = {label: estimate for label, estimate in forest.items() if estimate is not None}
    groups = {f"{one} − {other}": group for one, other, group in COMPARISONS.values() if f"{one} − {other}" in forest}
    data = pd.DataFrame([{"comparison": label, "value": e.value, "low": e.low, "high": e.high, "sequences": e.units, "interval": e.method} for label, e in forest.items()])
    drawn = figures.plot_forest(forest, f"difference in NELBO at {share:.0%} sparsity (nats per token)", groups)
    display(figures.save_figure(run, drawn, f"differences_{100 * share:.0f}", data, f"paired differences at {share:.0%} sparsity"))

# %% [markdown]
# `only-sinks` stands apart: statistics from sinks alone. If sinks were mere noise in the statistics, scoring weights on
# them alone would ruin the model. (None: not among the recipes of this run.)

# %%
rows = [{"sparsity": share, "only-sinks − noised-dense (nats per token)": str(compare(dlm, "only-sinks", "noised-dense", share))} for share in sparsities]
pd.DataFrame(rows).set_index("sparsity")

# %% [markdown]
# ## How much is left out
#
# The share of calibration tokens that each recipe takes out of the statistics.

# %%
scores[scores.model == dlm.name].groupby(["variant", "sparsity"], sort=False)[["left_out_share", "zeros", "calibration_tokens"]].mean().round(4)

# %% [markdown]
# ## The control: the same on the AR twin
#
# AR recipes keep sinks. Here Wanda prunes the AR model with and without its sinks; the value is its exact negative
# log-likelihood.

# %%
NAMES = [("wanda, all", "all sinks left out"), ("wanda, random", "as many random tokens left out")]
forest = {f"AR, {share:.0%}: {label} − none": compare(ar, name, "wanda, none", share) for share in sparsities for name, label in NAMES}
data = pd.DataFrame([{"comparison": label, "value": e.value, "low": e.low, "high": e.high} for label, e in forest.items()])
figures.save_figure(run, figures.plot_forest(forest, "difference in negative log-likelihood (nats per token)"), "differences_ar", data, "paired differences of the pruned AR model")

# %% [markdown]
# ## The reading
#
# Verdicts are read at a sparsity of 50 %, with intervals over calibration draws and sequences together.

# %%
found = {finding: compare(dlm, one, other, SPARSITY) for finding, (one, other, _) in COMPARISONS.items()}
found["ar_all_minus_none"] = compare(ar, "wanda, all", "wanda, none", SPARSITY)
highest = max(sparsities)


def growth(one: str, other: str):
    """The difference at the highest sparsity less the difference at 50 %."""
    if not (SPARSITY in sparsities and highest > SPARSITY and {one, other} <= set(recipes)):
        return None
    values = {(v, s): pivot(scores[(scores.model == dlm.name) & (scores.variant == v) & (scores.sparsity == s)]) for v in (one, other) for s in (SPARSITY, highest)}
    return crossed_interval((values[one, highest] - values[other, highest]) - (values[one, SPARSITY] - values[other, SPARSITY]))


found |= {"gain_growth": growth("unstable", "wanda"), "gain_growth_without_sinks": growth("noised-dense", "wanda"), "gain_growth_of_sinks": growth("unstable", "noised-dense")}
run.find(found)
for finding, estimate in found.items():
    print(f"{finding:<26} {estimate}")

# %% [markdown]
# ## The verdict

# %%
from sinkprune_core import claims

verdicts = claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook)
verdicts[["kind", "claim", "here", "interval", "claimed", "verdict"]]

# %% [markdown]
# **What this does not show.** One small model whose NELBO is still far above its twin's likelihood, row-wise unstructured
# sparsity, Wanda scores only, likelihood only. The published numbers are task accuracies of 8B models; SparseGPT,
# structured and N:M patterns are not in this notebook yet.
