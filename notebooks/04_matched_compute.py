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
# # 04 · Does it hold at matched compute?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/04_matched_compute.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/04_matched_compute.ipynb)
#
# **Question.** A DLM can be made cheaper in two ways: fewer weights, or fewer denoising steps,
# which costs nothing to set up. At the same compute, which gives the better model, and is
# sink-aware pruning better than its baselines there?
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about a minute | 1.4 GB |
# | full | about 11 core-minutes | 1.7 GB a job |
#
# *Matched* means here, each time said which: the same sparsity of the same weights; the same
# number of calibration tokens; the same effective FLOPs of generation, where a zero weight counts
# as skipped work; the same measured time.

# %% [markdown]
# **Parameters.**

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
sparsity: float = 0.5  # share of zeros in the linear maps, or of weights removed in whole units
steps: list[int] = [8, 16, 32, 64]  # numbers of denoising steps at which pruned models are measured
baselines: list[str] = [
    "wanda",
    "dwanda",
    "noised-dense",
]  # presets that `unstable` is compared with, at as many calibration tokens
structured_recipes: list[str] = [
    "structured-sink",
    "flap",
]  # presets that are compared with the dense model in fewer steps
sequences: int = 32  # held-out sequences, half samples of the AR model, half documentation
draws: int = 4  # noise draws per sequence
calibration: int = 16  # calibration sequences of the noised recipes
noise_levels: int = 8  # noise levels per calibration sequence; the paper's own weights take 10
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
batch: int = 8  # sequences per step when time is measured
dtype: str = "bfloat16"  # of the weights

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go.

# %% tags=["setup"]
import subprocess
import sys
from importlib.util import find_spec

if find_spec("sinkprune_core") is None:  # a place that has only this notebook, such as Colab
    source = "sinkprune @ git+https://github.com/sinkprune/sinkprune@v0.1.0"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", source])
from sinkprune_core.companion.parameters import start

run = start("04_matched_compute", globals())

# %% [markdown]
# ## The claim
#
# > Without retraining, our method achieves a better quality-efficiency trade-off and outperforms
# > strong prior pruning baselines under matched compute. (abstract)
#
# **What would falsify it.** With as many calibration tokens, Wanda does as well (the interval of
# the paired difference reaches zero). Or: the dense model with fewer steps, at the same effective
# FLOPs or in the same measured time, does as well as the pruned one.
#
# ## The measure
#
# Quality after *K* denoising steps needs a likelihood that knows about steps. Reveal tokens in
# random order in *K* groups of even size, each group predicted in parallel from what was revealed
# before: the cross-entropies of that procedure bound the negative log-likelihood. A uniformly
# chosen token belongs to some group and pays the cross-entropy at the masks that were there when
# its group was predicted. With as many steps as tokens this is the ordinary NELBO; fewer steps
# cost more.

# %%
import pandas as pd
from sinkprune_core import corpus
from sinkprune_core.companion.texts import calibration_draw
from sinkprune_core.companion.variants import variant_scores
from sinkprune_core.diffusion import compute
from sinkprune_core.models.loading import load
from sinkprune_core.pruning.recipe import preset

for count in steps:
    if not 1 <= count < length:
        raise ValueError(
            f"steps={count} must lie in 1 … {length - 1}, the number of tokens to reveal"
        )
recipes = {
    name: preset(name, sparsity=sparsity, noise_levels=noise_levels)
    for name in (*baselines, "unstable")
}
recipes |= {name: preset(name, sparsity=sparsity) for name in structured_recipes}
dlm = load(model, dtype)
fingerprint = dlm.fingerprint()
texts = corpus.texts(dlm.tokenizer, sequences, length, held_out=True)

# %% [markdown]
# ## The account: what each kind of model costs
#
# One model of every kind. Cost depends on shapes and zeros, not on which weights a criterion
# chose, so magnitude chooses here. Structured pruning removes units: what is accounted and timed
# is the smaller model.

# %%
import copy
from dataclasses import replace

import torch
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.shrink import shrink

kinds = {
    "unstructured": preset("magnitude", sparsity=sparsity),
    "2:4": preset("magnitude", pattern="2:4"),
    "structured": preset("structured-magnitude", sparsity=sparsity),
}
device = "cuda" if torch.cuda.is_available() else "cpu"
models = {"dense": replace(dlm, model=copy.deepcopy(dlm.model)) if device == "cuda" else dlm}
for name, recipe in reversed(kinds.items()):  # the one that shrinks first, while there is room
    lm = replace(dlm, model=copy.deepcopy(dlm.model))
    report = prune(lm, recipe, progress=False)
    models[name] = shrink(lm, report.kept_units) if report.kept_units else lm
    models[name].model.set_input_embeddings(
        models["dense"].model.get_input_embeddings()
    )  # never pruned: all share them
    models[name].model.tie_weights()
release_freed_memory()  # of the full copy that was shrunk
models = {name: models[name] for name in ("dense", *kinds)}
for lm in models.values():
    lm.model.to(device)

# %% [markdown]
# Parameters, non-zero weights and bytes as stored; FLOPs of one denoising step of one sequence
# (all its tokens, logits at half of them, the mean over a generation) from shapes, with zeros
# counted as skipped work (effective), and as torch's own counter finds them in a real forward.

# %%
ids_BT, where_BT = (
    texts["samples"][:1].repeat(batch, 1),
    (torch.arange(length) >= length // 2).expand(batch, -1),
)
account = pd.concat(
    {name: compute.account(lm, ids_BT[:1], where_BT[:1]) for name, lm in models.items()},
    names=["model"],
)
totals = account.xs("total", level="kind")
print(
    "FLOPs from shapes / counted:",
    ", ".join(
        f"{name} {ratio:.4f}" for name, ratio in (totals.flops / totals.counted_flops).items()
    ),
)
shown = account.assign(
    parameters=account.parameters / 1e6,
    nonzero=account.nonzero / 1e6,
    bytes=account.bytes / 1e6,
    flops=account.flops / 1e9,
    effective_flops=account.effective_flops / 1e9,
)
shown = shown.drop(columns="counted_flops").rename(
    columns={
        "parameters": "parameters (M)",
        "nonzero": "non-zero (M)",
        "bytes": "stored (MB)",
        "flops": "GFLOP",
        "effective_flops": "effective GFLOP",
    }
)
shown.round(2)

# %% [markdown]
# ## The clock
#
# Effective FLOPs idealise: dense kernels multiply zeros like any other number. Here is the time of
# one denoising step of every model, measured in turns in one run. Kernels for 2:4 exist on CUDA
# devices only.

# %%
from sinkprune_core.evaluation.intervals import interval

if device == "cuda":
    models["2:4 kernels"] = compute.on_2_4_kernels(
        replace(dlm, model=copy.deepcopy(models["2:4"].model))
    )
clock = run.record(
    "latency",
    lambda: compute.latency(models, ids_BT, where_BT),
    fingerprint=fingerprint,
    kinds=kinds,
    batch=batch,
    length=length,
    device=device,
    threads=torch.get_num_threads(),
)
per_round = clock.pivot(index="round", columns="variant", values="seconds")
relative = per_round.div(per_round.dense, axis=0)
latency = pd.DataFrame(
    {
        "ms per sequence and step": 1e3 * per_round.median() / batch,
        "time / dense": relative.median(),
        "95 % interval of the mean ratio": {
            name: str(interval(values)) for name, values in relative.items()
        },
    }
)
latency["effective FLOPs / dense"] = totals.effective_flops / totals.effective_flops["dense"]
print(
    f"device {device}, {torch.get_num_threads()} threads"
    + ("" if device == "cuda" else "; 2:4 kernels: not measured here, they need CUDA")
)
latency.loc[list(models)]

# %% [markdown]
# ## Matches
#
# For every number of steps *K* of a pruned model: how many steps may the dense model take at most,
# for the same effective FLOPs of generation, and in the same measured time? Unstructured zeros
# save no time, so there it is *K* itself.

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
del lm
release_freed_memory()
matched.set_index("steps")

# %% [markdown]
# ## The experiment
#
# Wanda sees clean text once; noised recipes see every sequence at several noise levels. To match
# calibration tokens, Wanda gets as many more sequences. `structured-sink` takes the paper's own
# ten levels. Structured recipes are compared with the dense model only, in fewer steps.

# %%
from tqdm.auto import tqdm

grid = sorted({int(count) for count in matched.to_numpy().flatten()})
parts = [
    variant_scores(
        run, dlm, fingerprint, None, None, texts, draws, [None, *grid], variant="dense", seed=0
    )
]
for seed in tqdm(range(first_seed, first_seed + seeds), desc="calibration draws"):
    for name, recipe in recipes.items():
        drawn_text = calibration_draw(
            dlm, calibration * (noise_levels if recipe.inputs == "clean" else 1), length, seed
        )
        measured = [None] * (name not in structured_recipes) + steps * (name not in baselines)
        parts.append(
            variant_scores(
                run,
                dlm,
                fingerprint,
                recipe,
                drawn_text,
                texts,
                draws,
                measured,
                variant=name,
                seed=seed,
            )
        )
scores = pd.concat(parts, ignore_index=True)
scores.groupby("variant", sort=False)[
    ["zeros", "calibration_tokens", "left_out_share", "prune_seconds"]
].mean().round(3)

# %% [markdown]
# ## The figures: quality against effective compute, and against time
#
# Down and to the left is better. The zero line is the dense model that reveals one token per step;
# everything is paired with it by sequence and noise. First, zeros count as skipped work.

# %%
from sinkprune_core.companion import figures, forests
from sinkprune_core.evaluation.intervals import compare

KIND = {
    "dense": "dense",
    **dict.fromkeys(structured_recipes, "structured"),
}  # of model; the others have unstructured zeros


def at(variant: str, count: int) -> dict:
    return {"variant": variant, "steps": int(count)}


rows = []
for variant, count in (
    scores[scores.steps > 0][["variant", "steps"]].drop_duplicates().itertuples(index=False)
):
    found, kind = (
        compare(scores, at(variant, count), at("dense", 0)),
        KIND.get(variant, "unstructured"),
    )
    rows.append(
        {
            "variant": variant,
            "steps": count,
            "tflop": flops[kind][count] / 1e12,
            "seconds": count * seconds[kind],
            "excess": found.value,
            "low": found.low,
            "high": found.high,
        }
    )
front = pd.DataFrame(rows)
labels = {
    "tflop": "effective TFLOP per generated sequence",
    "seconds": "measured seconds per generated sequence",
    "excess": "bound above the dense NELBO (nats per token)",
}
figures.save_figure(
    run,
    figures.plot_curves(front, "tflop", "excess", "variant", labels, ("low", "high"), logx=True),
    "front",
    front,
    "quality against effective generation FLOPs; bars: 95 % bootstrap interval over calibration "
    "draws and sequences",
)

# %% [markdown]
# And by the clock of this machine, where only structured pruning saves time:

# %%
figures.save_figure(
    run,
    figures.plot_curves(front, "seconds", "excess", "variant", labels, ("low", "high"), logx=True),
    "front_time",
    front,
    "quality against measured time of generation; bars: 95 % bootstrap interval over calibration "
    "draws and sequences",
)

# %% [markdown]
# ## Paired differences
#
# The same sequences under the same noise; every group says what is equal. First against the dense
# model with fewer steps, last against other recipes.

# %%
from sinkprune_core.evaluation.intervals import forest_table

MATCHES = [("unstable", "dense, FLOPs of unstructured", "equal effective FLOPs")]
MATCHES += [
    (name, "dense, FLOPs of structured", "equal effective FLOPs") for name in structured_recipes
]
MATCHES += [("unstable", "steps", "equal measured time")]
MATCHES += [
    (name, "dense, time of structured", "equal measured time") for name in structured_recipes
]
forest, groups = {}, {}
for variant, column, match in MATCHES:
    for count, of_dense in zip(matched.steps, matched[column], strict=True):
        label = f"{variant}, {count} steps − dense, {of_dense} steps ({match.split()[-1]})"
        forest[label], groups[label] = (
            compare(scores, at(variant, count), at("dense", of_dense)),
            match,
        )
for other in baselines:
    label = f"unstable − {other}, NELBO"
    forest[label], groups[label] = (
        compare(scores, at("unstable", 0), at(other, 0)),
        "equal sparsity, FLOPs and calibration tokens",
    )
figures.save_figure(
    run,
    forests.plot_forest(forest, "difference at matched compute (nats per token)", groups),
    "differences",
    forest_table(forest),
    "paired differences at matched compute",
)

# %% [markdown]
# ## What calibration costs
#
# For as many calibration sequences as here: tokens, passes and FLOPs by the core's own plan of
# each run (sequential propagation passes twice, dense propagation once; where sinks show in the
# forwards whose inputs are wanted they cost no more), and the seconds that pruning took here,
# where it did. The recipes compared above have equal calibration tokens.

# %%
from sinkprune_core.pruning.cost import pruning_cost

planned = {
    **{
        name: preset(name, sparsity=sparsity)
        for name in ("paper", "structured", "sparsegpt", "paper-sparsegpt")
    },
    **recipes,
}
rows = []
for name, recipe in planned.items():
    plan = pruning_cost(
        dlm,
        recipe,
        calibration_draw(
            dlm,
            calibration * (noise_levels if recipe.inputs == "clean" and name in recipes else 1),
            length,
            0,
        ),
        speed=1.0,
    )
    rows.append(
        {
            "recipe": name,
            "calibration tokens": plan.tokens,
            "passes": plan.passes,
            "TFLOP": plan.flops / 1e12,
            "seconds here": scores[scores.variant == name].prune_seconds.mean(),
        }
    )
costs = pd.DataFrame(rows).set_index("recipe")
costs["generated sequences worth as many FLOPs"] = costs.TFLOP * 1e12 / flops["dense"][max(steps)]
costs.round(2)

# %% [markdown]
# ## The reading
#
# Differences to the dense model are means over all numbers of steps; each line says what is
# matched.

# %%
import numpy as np
from sinkprune_core.evaluation.intervals import crossed_interval, listed, on_common_draws


def over_steps(variant: str, column: str):
    pairs = [
        on_common_draws(scores, at(variant, count), at("dense", of_dense))
        for count, of_dense in zip(matched.steps, matched[column], strict=True)
    ]
    return crossed_interval(np.mean([one - other for one, other in pairs], axis=0))


found = {"pruned_minus_dense_steps": over_steps("unstable", "dense, FLOPs of unstructured")}
for name in structured_recipes:
    label = name.replace("-", "_")
    found |= {
        f"{label}_minus_dense_steps": over_steps(name, "dense, FLOPs of structured"),
        f"{label}_minus_dense_latency": over_steps(name, "dense, time of structured"),
    }
found |= {
    f"unstable_minus_{other.replace('-', '_')}": forest[f"unstable − {other}, NELBO"]
    for other in baselines
}
matches = (
    ["effective FLOPs"]
    + ["effective FLOPs", "measured time"] * len(structured_recipes)
    + ["sparsity, FLOPs, calibration tokens"] * len(baselines)
)
run.find(found if sparsity == 0.5 else {})
listed(found, equal=matches, interval=[estimate.method for estimate in found.values()])

# %% [markdown]
# ## The verdict

# %%
from sinkprune_core.companion import claims

claims.shown(claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook))

# %% [markdown]
# **What this does not show.** Random order, not the confident order that samplers use; likelihood,
# not task accuracy; a small model that tolerates pruning less than an 8B model does. Time is that
# of one machine and batch, with dense kernels: hardware that skips zeros in 2:4 groups exists and
# was not timed here.
