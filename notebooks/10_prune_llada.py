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
# # 10 · Prune LLaDA-8B: a plan
#
# **This is a plan: no model of 8 billion weights is pruned here, and nobody has run it on published
# weights.** *Run all* takes a tiny model with random weights through the same steps. The paper
# prunes LLaDA-8B, LLaDA-1.5, MMaDA and Dream, models of 7 and 8 billion weights.
#
# **Question.** What would it take to do the same with one of them, which commands do it, and which
# numbers do the paper's authors report?

# %% [markdown] tags=["answer"]
# **Answer.** Each pruned model takes two commands, `sinkprune prune` and `sinkprune evaluate` (or
# `sinkprune compare`, which needs no benchmark), and a fair test of the paper's claim takes several
# models and the dense one. On LLaDA-8B with half of the weights zero, the authors report an average
# accuracy of 52.70 % for Wanda and 53.18 % for their version of it, and 57.93 % for the dense
# model. Nobody has run the commands here on published weights, so this project decides no claim
# about a model of 8 billion weights.
#
# The table to look at is [what others measured at 8B](../docs/results.md#at-8b-by-others), which is
# too imprecise to confirm or refute the paper, and then the plan below. This notebook prints the
# commands, with the least time and memory that they take, and how small a difference their
# evaluation could show; [docs/results.md](../docs/results.md) has them for every number that the
# authors report.

# %% [markdown]
# *What others measured* is the accuracy on WinoGrande of a sink-aware method less that of its plain
# version, in an independent run of the official code by somebody else,
# [songeunseo/sap](https://github.com/songeunseo/sap). Its 95 % intervals
# are seven or eight points wide, and hold both zero and the paper's numbers, so they neither confirm
# nor refute the paper. They are *not paired*: the source gives the standard error of each accuracy
# by itself, and a paired interval would be narrower. The paper's numbers have no intervals, and some
# are as that source quotes them, which we have not checked.
# [docs/results.md](../docs/results.md#at-8b-by-others) has all of these numbers, and the commits and
# files of that source.

# %% [markdown]
# *Run all* makes a tiny checkpoint of random weights, in the format in which the chosen model is
# published, and takes it through all steps. That checks the code, and its numbers say nothing about
# the model. How each format is read was checked against its formulas, also at a tiny size. The plan
# needs no weights: it follows from the shapes of the published model.
#
# To prune the published weights, or those of a folder, set `real` to true. That needs a network, and
# for the 7B and 8B models a GPU is advised. Set with it `source` to `"wikitext-2"`, `calibration` to
# 128, `length` to 2048, `sequences` to 64, `draws` to 4, and `tasks` and `limit` to what you want to
# be measured. Some models ask you to accept a licence first, among them the Llama that attention is
# traced in beside LLaDA: `twin="none"` leaves it out. [docs/models.md](../docs/models.md) lists all
# models.
#
# **Parameters**, with the values that *Run all* takes.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults, on random weights | less than a core-minute | 1 GB |
# | published weights | nobody has measured it; the plan below has lower bounds | by the plan below |

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "GSAI-ML/LLaDA-8B-Base"  # of docs/models.md, or a folder
real: bool = False  # true: the published weights, downloaded; false: tiny random ones
preset: str = "sparsegpt"  # a recipe of docs/pruning.md
sparsities: list[float] = [0.5]  # shares of zeros in the blocks' linear maps
tasks: list[str] = ["suite"]  # suite (offline), paper (its benchmarks), or the harness's tasks
limit: int | None = 2  # items per task; null: all
source: str = "documentation"  # text to calibrate and score on, or wikitext-2 from the hub
calibration: int = 8  # calibration sequences
sequences: int = 8  # held-out sequences to score

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
twin: str | None = None  # an AR model to trace beside it; null: that of the table; "none": no model
prompts: int = 4  # prompts to trace attention on
steps: int = 16  # denoising steps of a trace; twice as many tokens are written
draws: int = 2  # noise draws per sequence
length: int = 128  # tokens per sequence
seed: int = 0  # of prompts, calibration text and random weights
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("10_prune_llada", globals())

# %% [markdown]
# ## The plan
#
# The table has the tokens and FLOPs of pruning on the official amount of text, 128 sequences of
# 4,096 tokens, and the memory that it takes. `paper` is the official recipe and sees every sequence
# at ten noise levels. `paper-sparsegpt` prunes on as many tokens as `wanda`. It also runs every
# sequence at ten noise levels to find sinks, so it takes several times the FLOPs.
#
# **Memory.** Here one sequence is read at a time (`--batch 1`). README says 27 GB, more than any
# recipe takes here, because its commands read 16 sequences of 2,048 tokens at a time, the default.
#
# **Time.** Minutes are those of the arithmetic alone: FLOPs over the speed in the line above the
# table. This is a lower bound and not a run time, and nobody has measured one. It leaves out
# loading, disk, and everything that is no matrix product. Sequential propagation, as in `wanda`,
# takes every block twice: once to see its inputs, and once, pruned, to make those of the next
# block. Dense propagation, as in `paper`, needs no second pass, since the next block gets what the
# dense one made. Its sinks must be known first. If the inputs fit memory or disk, one pass does;
# otherwise two. `--dry-run` says which it is on your machine.
#
# **Which recipe?** To test the paper's claim, take `paper` (for Dream `paper-dream`) beside
# `wanda`, and beside `paper-sinks-kept`, which differs from `paper` in the sink weights alone. On
# the small model here SparseGPT costs less than Wanda, and `recommended` less than SparseGPT
# ([notebook 07](07_best_recipe.ipynb)). On LLaDA-8B the table of the official README, which stands
# below, has Wanda ahead of SparseGPT on average, and behind it on ARC-Challenge and WinoGrande.

# %%
import pandas as pd
from IPython.display import display
from sinkprune.models.hub import parse
from sinkprune_companion.experiments.compute import HARDWARE, SPEED
from sinkprune_companion.experiments.stand_ins import known_row
from sinkprune_companion.ledger import plan, published

row = parse(model)[0] if real else known_row(model)
planned = plan.Plan(model, preset, sparsities[0]) if row else None

if planned:
    print(f"{model} on {HARDWARE} at {SPEED:.0e} FLOP/s")
    display(planned.costs())
else:
    print(f"{model} is a folder: sinkprune prune {model} --dry-run plans it")

# %% [markdown]
# ## What an evaluation could show
#
# A first evaluation is 200 items of each of three benchmarks. All eight benchmarks of the paper, in
# full, take days. Nobody has timed either.
#
# How small a difference two pruned models could show depends on how many items are asked, and on
# how many of them only one of the two models gets right. Nobody has published this share at 8B, so
# the table has a row for each of several. An evaluation shows a difference if, in four of five
# cases, its 95 % interval would leave out zero. The comparison is paired, item by item:

# %%
SHARES = [0.02, 0.05, 0.1, 0.2]  # of items that one of two models alone gets right
if planned:
    minutes = planned.evaluation_minutes()
    print(
        f"{plan.FIRST_ITEMS} items of {', '.join(plan.FIRST_TASKS)}: at least {minutes:.0f} minutes"
    )
    display(plan.power(model, SHARES).round(2))

# %% [markdown]
# The authors report a gain of 0.48 points on average over eight benchmarks. So even all eight in
# full would show it only if the two models differed on few items. This is for two fixed models.
# Another draw of calibration text gives two other models, and how much their difference varies from
# draw to draw nobody has measured at 8B. On the small model the other notebooks take five draws or
# more ([notebook 06](06_gain_at_75.ipynb)), so the last commands below take five, too.
#
# ## The commands
#
# The first commands take the official amount of text, 128 sequences. `recommended` reads each
# sequence twice, so it gets half as many. The official recipe sees each sequence at ten noise
# levels, so it gets ten times as many tokens as `wanda`, and a comparison of these two is unfair to
# `wanda`.
#
# The commands behind them give the official recipe 13 sequences, which are about as many tokens as
# `wanda` gets. This is still not like with like: `wanda` sees about ten times as much distinct text,
# and its text has no masks. Only `paper` beside `paper-sinks-kept` is a comparison of like with like.
# `paper-sinks-kept` is the official recipe without sink weights, and nothing else differs. There is
# no such preset for `paper-dream`.
#
# Prune, evaluate what was pruned, and the dense model in the same way. Leave `--limit` out for the
# whole benchmarks, and take `--tasks paper` for the paper's eight. `sinkprune compare` needs no
# benchmark: it scores two models on the same text in pairs, and sees much smaller differences.
# `--dry-run` shows what your machine would take. `--stream` prunes a model that does not fit its
# memory, block by block from disk. `--text wikitext-2` is its training split, from the hub; a file
# of running text will do.
#
# The last commands repeat the comparison of like with like on five draws of calibration text. The
# lines at the end have the least time that they and the dense model take:

# %%
DRAWS = 5  # of calibration text: as in the other notebooks, fewer give no verdict
if planned:
    print(plan.shown(planned.commands(DRAWS)))
    for what, hours in planned.draws_hours(DRAWS).items():
        print(f"{DRAWS} draws and the dense model, {what}: at least {hours:,.1f} hours")

# %% [markdown]
# ## What the paper's authors report
#
# > consistently matches or outperforms Wanda and SparseGPT baselines across 8 benchmarks (README of
# > the official code, LLaDA-8B)
#
# **What would falsify it.** On one of the benchmarks the method has the lower accuracy: the whole
# interval of the paired difference, method less baseline, lies below zero. These are sixteen
# comparisons, of eight benchmarks with two baselines. So p must be corrected for all sixteen (Holm,
# as elsewhere in this project), or one of them may fall below zero by chance. An interval from 200
# items is too wide for that.
#
# The numbers below are from that README and have no intervals; they are percent of right answers.
# Beneath each table stands what the sink-aware recipe gains in it, in points; below zero it loses.
# The first table is of pruning single weights, and its `average` is over eight benchmarks, of which
# two are not printed. The second is of pruning whole heads and channels, and does not name its
# baseline. [docs/results.md](../docs/results.md) has the commands for every row.
#
# For LLaDA-8B the averages in the first table are in the method's favour, beside Wanda and beside
# SparseGPT. Single benchmarks are not all so: it loses to Wanda on GSM8K and HellaSwag, and to
# SparseGPT on GSM8K, MMLU and ARC-Challenge. Without standard errors nobody can tell whether these
# losses, or the gains, are more than chance. In the second table it gains everywhere.

# %%
reported = plan.published_tables(model)
if reported:
    display(*reported)
else:
    print(f"the paper prints no number for {model}")

# %% [markdown]
# ## All steps at small size, or for real
#
# Weights of the formats in docs/models.md are renamed to those of a native transformers class; no
# remote code runs. The table says what the published weights of the model, and of the AR model
# beside it, would take, and what this machine lacks for loading them. Its memory is for the weights
# alone. Both models are in memory at once until attention has been traced, and pruning takes what the
# plan above says.

# %%
from sinkprune.models.hub import available_memory, requirements

twin = None if twin == "none" else twin or (row.twin if row else None)
names = [name for name in (model, twin) if name]
needs = {name: requirements(name, dtype, run.device) for name in names}

sizes = {}
for name, need in needs.items():
    sizes[name] = {
        "billion parameters": need.parameters / 1e9,
        "download (GB)": need.download / 1e9,
        "memory (GB)": need.memory / 1e9,
        "lacks": "; ".join(need.missing) or "nothing",
    }
pd.DataFrame.from_dict(sizes, orient="index").round(1)

# %% [markdown]
# With published weights the notebook stops here where this machine cannot load them:

# %%
lacks = [lack for need in needs.values() for lack in need.missing]
if real and lacks:
    raise RuntimeError(f"this machine lacks {'; '.join(lacks)}")

together = sum(need.memory for need in needs.values())
if real and together > available_memory(run.device):
    raise RuntimeError(
        f"{' and '.join(names)} take {together / 1e9:.1f} GB together, more than {run.device} has: "
        "set twin='none', or take a smaller model"
    )

# %% [markdown]
# The next cell loads the text, and the published weights where `real` is true, else random ones in
# the same format:

# %%
import torch
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.loading import load
from sinkprune_companion.experiments.stand_ins import stand_in
from sinkprune_companion.run.texts import any_text

models = {}
for name in names:
    weights = name if real else stand_in(name, run.folder / "stand-ins", seed)
    models[name] = load(weights, dtype, run.device)

dlm = models[model]
calibrated_on = any_text(dlm, calibration, length, False, seed, source)
held_out = any_text(dlm, sequences, length, True, seed, source)
prints = {name: lm.fingerprint() for name, lm in models.items()}

is_random = not real and row.id not in EMBEDDED
if is_random:
    print("RANDOM WEIGHTS in the format of the model: a check of the machinery, no claim about it.")

loaded = {}
for name, lm in models.items():
    loaded[name] = {
        "loaded": lm.name,
        "class": type(lm.model).__name__,
        "kind": lm.kind,
        "mask token": lm.mask_token_id,
        "logits shifted": lm.logits_shifted,
        "parameters": lm.model.num_parameters(),
    }
pd.DataFrame.from_dict(loaded, orient="index", dtype=object).fillna("–")

# %% [markdown]
# **Sinks.** Both models write from the same kind of prompt, each in its own vocabulary, and
# attention is recorded at every step. The table has means over prompts of three measures.
# `temporal_variance` is the paper's, the variance of the sinks' mean position over steps, in squared
# positions. `overlap` is the share of sinks that two consecutive steps have in common.
# `stable_share` is the share of sinks whose position is a sink in at least 80 % of the steps. Even
# with random weights the AR model's sinks move less, as its causal mask favours early positions. So
# the numbers of a trained model should be read beside those of a random one ([notebook
# 01](01_do_sinks_move.ipynb)).

# %%
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.detection import variability
from sinkprune_core.sinks.trace import Trace, trace

sampler = Sampler(length=2 * steps, steps=steps, block=None)
traced = {}
for name, lm in models.items():
    prompt_BT = any_text(lm, prompts, 32, held_out=True, seed=seed)["documentation"]
    traced[name] = run.artifact(
        "trace",
        Trace,
        lambda lm=lm, prompt_BT=prompt_BT: trace(lm, prompt_BT, sampler, seed),
        model=prints[name],
        sampler=sampler,
        prompts=prompt_BT.tolist(),
        seed=seed,
    )
moves = {}
for name, one in traced.items():
    by_prompt = variability(one.mass_BSK, one.visible_SK)
    moves[models[name].name] = by_prompt[["temporal_variance", "overlap", "stable_share"]].mean()
models = {model: dlm}  # its counterpart has done its part, and memory is short with 8B models
pd.DataFrame(moves).round(3)

# %% [markdown]
# **Pruning, saving, reloading, writing.** Each sparsity has a folder in `runs/<profile>/models`.
# Stock transformers reads it without this package. It finds there, too, that attention goes in both
# directions (`is_causal`). It must give the logits that this package gives from the same folder.

# %%
from sinkprune_companion.experiments.variants import saved_variant
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.recipe import preset as recipe_of
from transformers import AutoModelForCausalLM

recipes = {sparsity: recipe_of(preset, sparsity=sparsity) for sparsity in sparsities}
text = Calibration(calibrated_on[source], seed)
ids_BT = held_out[source][:2].to(dlm.device)
for recipe in recipes.values():
    make_plan(dlm, recipe, text)  # all of them before the first is run

pruned = {}
for sparsity, recipe in recipes.items():
    folder = saved_variant(run, dlm, prints[model], recipe, text)
    pruned[sparsity] = lm = load(folder, dtype, run.device)

    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=lm.model.dtype).to(lm.device)
    with torch.inference_mode():
        stock_BTV = stock(ids_BT, use_cache=False).logits
        our_BTV = lm.model(ids_BT, use_cache=False).logits
    if not torch.equal(stock_BTV, our_BTV):
        raise RuntimeError(f"{folder}: stock transformers gives other logits than this package")
    print(f"{sparsity:.0%}: {type(stock).__name__} of stock transformers gives the same logits")

# %% [markdown]
# The dense model and the pruned ones continue one prompt. What random weights write is not shown:
# nobody can read it.

# %%
from sinkprune_core.diffusion.sampling import generate

variants = {0.0: dlm, **pruned}
prompt_BT = traced[model].final_BK[:1, :32]
for sparsity, lm in variants.items():
    written_T = generate(lm, prompt_BT, sampler, seed)[0, 32:]
    if not is_random:
        print(f"{sparsity:.0%}: {lm.tokenizer.decode(written_T)!r}")

# %% [markdown]
# **Evaluation on text.** This is the likelihood on held-out text, in nats per token and paired with
# the dense model: the same sequences under the same noise, and below zero the pruned one is better.

# %%
from sinkprune.evaluation.intervals import interval
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.figures.forests import listed

scores = {}
for sparsity, lm in variants.items():
    labels = {"sparsity": sparsity, "preset": preset}
    scores[sparsity] = Variant(lm, lm.fingerprint()).scores(run, held_out, draws, **labels)

excess = {}
for sparsity in pruned:
    paired = scores[sparsity].value - scores[0.0].value
    excess[f"{preset}, {sparsity:.0%} − dense, nats per token"] = interval(paired)

if is_random:
    print("Random weights: losses were measured, and say nothing.")
else:
    display(listed(excess))

# %% [markdown]
# **Evaluation on benchmarks.** These are tasks of lm-evaluation-harness under the published protocol
# of the model's family, or this project's own suite of two-choice questions, which needs no network
# and where chance is one half. Each task of each model is a record, so a run that is killed keeps
# what it has finished.

# %%
from functools import partial

from sinkprune.evaluation.harness.benchmarks import choose, evaluate_named

is_dream = row.family == "dream" if row else dlm.logits_shifted  # a folder says it by its format
family = "dream" if is_dream else "llada"


def on_benchmarks(lm) -> pd.DataFrame:
    """A model's results on every task, a row per task and metric."""
    key = {"model": lm.fingerprint(), "of": lm.name, "shifted": lm.logits_shifted}
    key |= {"limit": limit, "family": family}

    parts = []
    for benchmark in choose(lm, tasks, family):
        evaluate = partial(evaluate_named, lm, [benchmark.task], limit, family)
        parts.append(run.record("tasks", evaluate, task=benchmark.task, **key))
    return pd.concat(parts, ignore_index=True)


results = {sparsity: on_benchmarks(lm) for sparsity, lm in variants.items()}

# %% [markdown]
# Where the benchmarks were run whole, on published weights, the published numbers stand beside them.
# Scores of random weights are noise and are not shown:

# %%
by_task = {
    f"{sparsity:.0%}": found.set_index(["task", "metric"])["value"]
    for sparsity, found in results.items()
}
if is_random:
    print(
        f"Random weights: {results[0.0].task.nunique()} tasks were run, and their scores say nothing."
    )
else:
    display(pd.concat(by_task, axis=1).round(3))

if real and limit is None:
    ours = {(preset if sparsity else None, sparsity): found for sparsity, found in results.items()}
    display(published.beside(model, ours))

run.find({})  # a plan has no findings; that it ran to its end is written down

# %% [markdown]
# ## Exercises
#
# 1. Set `model` to `"Dream-org/Dream-v0-Base-7B"`. Which command and which number of the plan
#    change?
# 2. On which share of items may two models differ so that all eight benchmarks in full show 0.48
#    points? Find it with other `SHARES`.
#
# **What this does not show.** With random weights the notebook shows nothing about any model. With
# published weights and a `limit` it is a first look, without the precision that a claim needs. The
# quoted claim is not tested here.
