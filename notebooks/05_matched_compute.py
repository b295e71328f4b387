# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
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
# # 05 · Does it hold at matched compute?
#
# **Question.** A DLM can be made cheaper in two ways: fewer weights, or fewer denoising steps,
# which need no calibration. At the same compute, which gives the better model, and does sink-aware
# pruning beat its baselines there?

# %% [markdown] tags=["answer"]
# **Answer.** Fewer denoising steps are the better bargain. At the same effective FLOPs the pruned
# model has a loss that lies 0.20 nats per token [0.16, 0.24] above that of the dense model in fewer
# steps, which needs no calibration; taking out whole units costs more than a nat. Zeros alone save
# no time on the dense kernels that everybody runs.
#
# The picture to look at is [loss against compute](../figures/05_matched_compute/front.png).

# %% [markdown]
# Time and memory, of profiles quick and hour: [docs/performance.md](../docs/performance.md).
#
# *Matched* has four meanings here: the same sparsity of the same weights; the same number of
# calibration tokens; at most the same effective FLOPs of generation, where a zero weight counts as
# skipped work; at most the same measured time. Recipes are compared under the first two, pruned
# models with the dense one in fewer steps under one of the others. Recipes are those of
# [docs/pruning.md](../docs/pruning.md): `unstable` has Wanda's scores, of noised text with dense
# propagation, and leaves unstable sinks out. It differs from Wanda in three things, so what it does
# is not put down to sinks here; [notebook 03](03_leaving_sinks_out.ipynb) changes one at a time.

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes. Stored outputs may be of
# a larger [profile](../docs/glossary.md): the set-up says which values it had.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
sparsity: float = 0.5  # share of zeros in linear maps, or of weights removed in whole units
steps: list[int] = [16]  # denoising steps at which pruned models are measured
baselines: list[str] = ["wanda"]  # presets beside `unstable`
structured_recipes: list[str] = ["structured-sink"]  # presets beside the dense model
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
calibration: int = 2  # calibration sequences of noised recipes; clean ones get as many tokens
noise_levels: int = 4  # noise levels per calibration sequence; official recipes have ten
length: int = 64  # tokens per sequence
seeds: int = 1  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
batch: int = 2  # sequences per step when time is measured
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("05_matched_compute", globals())

# %% [markdown]
# ## The claim
#
# > Without retraining, our method achieves a better quality-efficiency trade-off and outperforms
# > strong prior pruning baselines under matched compute. (abstract)
#
# **What would falsify it.** With as many calibration tokens, Wanda does better: the whole interval
# of `unstable` − Wanda lies above zero. The paper compares recipes with each other; that the dense
# model with fewer steps is a competitor, too, is our own question. A difference is a loss of the
# first less one of the second, so below zero the first is better. It matters from half of 9.18 % of
# the *damage* on, of what the second costs (on LLaDA-8B the paper's method takes back 9.18 % of what
# Wanda costs). The ledger judges the claim itself in notebooks
# [03](03_leaving_sinks_out.ipynb) and [07](07_best_recipe.ipynb).
#
# ## The measure
#
# Quality after *K* denoising steps needs a likelihood that depends on the number of steps. Reveal
# the tokens in random order, in *K* groups of even size. Each group is predicted in parallel from
# what was revealed before, and the cross-entropies add up to a bound on the negative
# log-likelihood. It is estimated at random tokens: of each, its cross-entropy when its own group
# and all later ones are masked. With as many steps as tokens this is the ordinary NELBO; in fewer
# steps the bound is higher.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments.pruning_grid import grid_rows
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.pruning.recipe import preset

for count in steps:
    if not 1 <= count < length:
        raise ValueError(
            f"steps={count} must lie in 1 … {length - 1}, the number of tokens to reveal"
        )
names = [*baselines, "unstable", *structured_recipes]
grid = grid_rows(names, "unstructured", sparsity, seeds, calibration, noise_levels)
dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
texts = held_out_texts(dlm.tokenizer, sequences, length)

# %% [markdown]
# ## What each kind of model costs
#
# One model of each kind. Cost depends on shapes and zeros, not on which weights are zero, so
# pruning by magnitude will do. Structured pruning removes units, and the smaller model is counted
# and timed. Dense kernels have no use for 2:4 zeros, so that model is timed only on a GPU with
# kernels for them.
#
# The table has parameters, non-zero weights and bytes as stored. FLOPs are those of one denoising
# step of one sequence: all its tokens, logits at half of them, which is the mean over a generation.
# They follow from shapes; *effective* FLOPs count zeros as skipped work. The lines above the table
# compare them with torch's own counter in a real forward: 1 is exact.

# %%
import pandas as pd
import torch
from sinkprune_companion.experiments import compute
from sinkprune_companion.experiments.compute import cost_models

kinds = {
    "unstructured": preset("magnitude", sparsity=sparsity),
    "2:4": preset("magnitude", pattern="2:4"),
    "structured": preset("structured-magnitude", sparsity=sparsity, round_to=1),
}
ids_BT = texts["samples/crop"][:1].repeat(batch, 1)
where_BT = (torch.arange(length) >= length // 2).expand(batch, -1)

# %% [markdown]
# Parameters, bytes and FLOPs of each:

# %%
models = {"dense": dlm}
accounts = {"dense": compute.account(dlm, ids_BT[:1], where_BT[:1])}
for name, lm in cost_models(dlm, kinds):
    accounts[name] = compute.account(lm, ids_BT[:1], where_BT[:1])
    if name != "2:4" or compute.has_2_4_kernels(dlm):
        models[name] = lm
    del lm  # so that its memory is free for the next
account = pd.concat(accounts, keys=["dense", *kinds], names=["model"])
totals = account.xs("total", level="kind")
for name, ratio in (totals.flops / totals.counted_flops).items():
    print(f"{name}: FLOPs from shapes / counted: {ratio:.4f}")
pd.DataFrame(
    {
        "parameters (M)": account.parameters / 1e6,
        "non-zero (M)": account.nonzero / 1e6,
        "stored (MB)": account.bytes / 1e6,
        "GFLOP": account.flops / 1e9,
        "effective GFLOP": account.effective_flops / 1e9,
    }
).round(2)

# %% [markdown]
# ## Time of a step
#
# Effective FLOPs are an ideal: dense kernels multiply zeros like any other number. Here is the
# measured time of one denoising step, the models taking turns in one run. Kernels for 2:4 need a
# CUDA GPU from Ampere on.
#
# The table has the time of one step of one sequence and its ratio to the dense model's, medians over
# rounds.

# %%
import copy
from dataclasses import replace

from sinkprune.models.devices import device_name

if compute.has_2_4_kernels(dlm):
    copied = replace(dlm, model=copy.deepcopy(models["2:4"].model))
    models["2:4 kernels"] = compute.on_2_4_kernels(copied)
clock = run.record(
    "latency",
    lambda: compute.latency(models, ids_BT, where_BT),
    fingerprint=fingerprint,
    kinds=kinds,
    batch=batch,
    length=length,
    device=device_name(run.device),
    threads=torch.get_num_threads(),
)
per_round = clock.pivot(index="round", columns="variant", values="seconds")
relative = per_round.div(per_round.dense, axis=0)

# %% [markdown]
# The table:

# %%
latency = pd.DataFrame(
    {
        "ms per sequence and step": 1e3 * per_round.median() / batch,
        "time / dense": relative.median(),
        "lowest ratio": relative.min(),
        "highest ratio": relative.max(),
    }
)
latency["effective FLOPs / dense"] = totals.effective_flops / totals.effective_flops["dense"]
print(f"device {device_name(run.device)}, threads: {torch.get_num_threads()}")
if "2:4 kernels" not in latency.index:
    print("2:4 kernels: not measured here, they need a CUDA GPU from Ampere on")
timed = [name for name in ("dense", *kinds, "2:4 kernels") if name in models]
latency.loc[timed].round(3)

# %% [markdown]
# ## Matches
#
# A pruned model takes *K* steps. How many may the dense model take at most, for the same effective
# FLOPs of generation, and in the same measured time? What is left over by rounding down favours
# pruning; one step is the least. Unstructured zeros save no time, so in time the dense model may take
# *K* steps, too.

# %%
tokens = length - 1
flops = {"dense": {k: compute.generation_flops(dlm, tokens, 1, k) for k in range(1, length)}}
flops["unstructured"] = {k: compute.generation_flops(dlm, tokens, 1, k, sparsity) for k in steps}
flops["structured"] = {
    k: compute.generation_flops(models["structured"], tokens, 1, k) for k in steps
}
seconds = per_round.median() / batch
matched = pd.DataFrame({"steps": steps})
for name in ("unstructured", "structured"):
    matched[f"dense, FLOPs of {name}"] = [
        compute.affordable_steps(flops["dense"].get, flops[name][k], tokens) for k in steps
    ]
matched["dense, time of structured"] = [
    compute.affordable_steps(float, k * relative.structured.median(), tokens) for k in steps
]
models.clear()  # their weights are not needed any more
matched.set_index("steps")

# %% [markdown]
# ## The experiment
#
# Noised recipes see `calibration` sequences, each at `noise_levels` noise levels; clean ones see
# `calibration` × `noise_levels` sequences once, as many tokens. Recipes with the official levels
# have ten, so their sequences are rounded down, to at least one. Structured recipes are only
# compared with the dense model in fewer steps. The table says which share of the weights each makes
# zero or removes, what it was calibrated on, the share of these tokens that it leaves out, and how
# long it took.

# %%
from sinkprune_companion.experiments.variants import Variant, draw_for
from tqdm.auto import tqdm

taken = sorted({int(count) for count in matched.to_numpy().flatten()})
asked = [texts, draws, [None, *taken]]
parts = [Variant(dlm, fingerprint).scores(run, *asked, variant="dense", seed=0)]
for seed in tqdm(range(first_seed, first_seed + seeds), desc="calibration draws"):
    drawn = draw_for(dlm, [(row.recipe, row.sequences) for row in grid], length, seed)
    for row in grid:
        name = row.variant
        counts = [None] if name not in structured_recipes else []
        counts += steps if name not in baselines else []
        with Variant(dlm, fingerprint, row.recipe, *drawn[row.sequences]) as variant:
            parts.append(variant.scores(run, texts, draws, counts, variant=name, seed=seed))
scores = pd.concat(parts, ignore_index=True)
COUNTED = ["zeros", "calibration_tokens", "left_out_share", "prune_seconds"]
scores.groupby("variant", sort=False)[COUNTED].mean().round(3)

# %% [markdown]
# ## The finding: quality against effective compute
#
# Zero is the dense model that reveals one token per step; every variant is paired with it by
# sequence and noise. Down and to the left is better. Zeros count as skipped work; bars are 95 %
# intervals over calibration draws and sequences. The numbers of steps stand in the figure's data.

# %%
import numpy as np
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import compare, on_common_draws
from sinkprune_companion.ledger.margins import with_share_of_damage


def at(variant: str, count: int) -> dict:
    """Where the scores of a variant at a number of steps stand; 0 is one token per step."""
    return {"variant": variant, "steps": int(count)}


def over_steps(variant: str, column: str):
    """The difference to the dense model, a mean over all numbers of steps, with its margin."""
    differences, costs = [], []
    for count, of_dense in zip(matched.steps, matched[column], strict=True):
        sides = (at(variant, count), at("dense", of_dense), at("dense", 0))
        one, other, dense = on_common_draws(scores, *sides)
        differences.append(one - other)
        costs.append(other - dense)
    difference, cost = (crossed_interval(np.mean(each, axis=0)) for each in (differences, costs))
    return with_share_of_damage(difference, cost)


found = {"pruned_minus_dense_steps": over_steps("unstable", "dense, FLOPs of unstructured")}
for name in structured_recipes:
    label = name.replace("-", "_")
    found[f"{label}_minus_dense_steps"] = over_steps(name, "dense, FLOPs of structured")
    found[f"{label}_minus_dense_latency"] = over_steps(name, "dense, time of structured")
for other in baselines:
    damage = compare(scores, at(other, 0), at("dense", 0))
    difference = compare(scores, at("unstable", 0), at(other, 0))
    finding = f"unstable_minus_{other.replace('-', '_')}"
    found[finding] = with_share_of_damage(difference, damage)
run.find(found if sparsity == 0.5 else {})

# %% [markdown]
# The picture has the models that were measured in fewer steps, at every number of them:

# %%
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.pages.render import title

rows = []
kinds_of = {"dense": "dense"} | dict.fromkeys(structured_recipes, "structured")
measured = scores[scores.steps > 0][["variant", "steps"]].drop_duplicates()
for variant, count in measured.itertuples(index=False):
    excess = compare(scores, at(variant, count), at("dense", 0))
    kind = kinds_of.get(variant, "unstructured")
    row = {"variant": variant, "steps": count, "tflop": flops[kind][count] / 1e12}
    row |= {"seconds": count * seconds[kind], "excess": excess.value}
    rows.append(row | {"low": excess.low, "high": excess.high})
front = pd.DataFrame(rows)
labels = {
    "tflop": "effective TFLOP per generated sequence",
    "excess": "bound above the dense NELBO (nats per token)",
}
how = {"interval_columns": ("low", "high"), "logx": True}
plain = "Pruned models, and the dense model in fewer steps, against effective FLOPs"
says = title(run, "front", plain)
drawn = figures.plot_curves(front, "tflop", "excess", "variant", labels, title=says, **how)
caption = f"quality of generation; bars: 95 % interval. {says}"
figures.save_figure(run, drawn, "front", front, caption)

# %% [markdown]
# ## Paired differences
#
# The same sequences under the same noise. Differences to the dense model in fewer steps are means
# over all numbers of steps, which the table has one by one; a section of the figure says what is
# equal. Their margin is a share of what fewer steps cost the dense model, that of other differences
# a share of what the other recipe costs.

# %%
from IPython.display import display

FLOPS, TIME = "equal effective FLOPs", "equal measured time"
labels = {"pruned_minus_dense_steps": ("unstable − dense", FLOPS)}
matches = [("unstable", "dense, FLOPs of unstructured")]
for name in structured_recipes:
    finding = name.replace("-", "_")
    labels[f"{finding}_minus_dense_steps"] = (f"{name} − dense", FLOPS)
    labels[f"{finding}_minus_dense_latency"] = (f"{name} − dense, by time", TIME)
    matches += [(name, "dense, FLOPs of structured"), (name, "dense, time of structured")]
for other in baselines:
    finding = f"unstable_minus_{other.replace('-', '_')}"
    labels[finding] = (f"unstable − {other}", "equal sparsity, FLOPs of steps, calibration tokens")
forest = {labels[finding][0]: estimate for finding, estimate in found.items()}
groups = dict(labels.values())
by_step = {}
for variant, column in matches:
    for count, of_dense in zip(matched.steps, matched[column], strict=True):
        label = f"{variant}, {count} steps − dense, {of_dense} steps ({column})"
        by_step[label] = compare(scores, at(variant, count), at("dense", of_dense))
plain = "Pruned models against the dense one in fewer steps, and against other recipes"
says = title(run, "differences", plain)
axis = "difference at matched compute (nats per token)"
drawn = forests.plot_forest(forest, axis, groups, title=says)
caption = f"paired differences, a section for each thing that is equal. {says}"
tables = [forests.forest_table(forest), forests.forest_table(by_step)]
display(tables[1].set_index("comparison")[["value", "low", "high"]].round(3))
figures.save_figure(run, drawn, "differences", pd.concat(tables), caption)

# %% [markdown]
# ## What calibration costs
#
# For as many calibration sequences as here: the tokens, passes and FLOPs that the library plans for
# each run. Sequential propagation passes over the text twice, dense propagation once, and SparseGPT
# also solves for the weights that stay; sink weights for SparseGPT are found at the official ten
# noise levels, in ten more forwards. Finding sinks adds no pass where the same forward also gives
# the inputs. So calibration tokens of the recipes above match, and FLOPs do not:
# sequential recipes take twice as many.

# %%
from sinkprune.runs.pruning_cost import pruning_cost
from sinkprune_companion.run.texts import calibration_draw

plans = {}
others = ["paper", "structured", "sparsegpt", "paper-sparsegpt"]
for row in grid_rows([*others, *names], "unstructured", sparsity, 1, calibration, noise_levels):
    name, text = row.variant, calibration_draw(dlm, row.sequences, length, 0)
    plan = pruning_cost(dlm, row.recipe, text, speed=1.0)
    plans[name] = {"calibration tokens": plan.tokens, "passes": plan.passes}
    plans[name]["TFLOP"] = plan.flops / 1e12
costs = pd.DataFrame.from_dict(plans, orient="index")
worth = f"= sequences that the dense model writes in {max(steps)} steps"
costs[worth] = costs.TFLOP * 1e12 / flops["dense"][max(steps)]
costs.round(2)

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **Fewer denoising steps beat pruning.** At the same effective FLOPs, `unstable` has a loss that
#   lies 0.20 nats per token [0.16, 0.24] above that of the dense model in fewer steps, which needs
#   no calibration.
# * **Taking out whole units costs more than a nat** against fewer steps: sink-aware structured
#   pruning 1.2 [1.1, 1.3] at the same FLOPs and 1.3 [1.1, 1.4] in the same measured time, FLAP 1.3
#   [1.2, 1.4] and 1.3 [1.3, 1.4].
# * **The recipe without unstable sinks is not seen to beat Wanda.** At equal sparsity and
#   calibration tokens `unstable` − Wanda is 0.0027 [−0.012, 0.017], where 0.014 would matter. That
#   is in 5 calibration draws; [notebook 03](03_leaving_sinks_out.ipynb) has more of them, under the
#   paper's protocol.
# * **Zeros alone save no time** on dense kernels: the table of times above has the step of the
#   unstructured model beside that of the dense one.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded, results_table

margins = [estimate.margin for estimate in found.values()]
display(results_table(run))
Folded(listed(found, margin=margins))

# %% [markdown]
# ## Exercises
#
# 1. Set `length` to 128 and `steps` to `[4, 100]`. Expect the bound to be higher in 4 steps than in
#    100. Does pruning compare better there?
# 2. Set `sparsity` to 0.25. Expect pruning to save less, so that the dense model may take more
#    steps.
#
# **What this does not show.** Tokens are revealed in random order, where samplers take the most
# confident first, which may make few steps cheaper still. Quality is likelihood, not task accuracy.
# One sparsity; Wanda and SparseGPT were not measured in fewer steps. A small model may tolerate
# pruning less than an 8B model does. Time is that of one machine and batch with dense kernels, and
# its chance is not in the intervals; 2:4 kernels are timed only where the GPU has them.
