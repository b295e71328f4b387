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
# # 09 · Noised text, five draws, and what is left of the sinks at 75 %
#
# **Question.** The official method loses to Wanda at 50 % sparsity and gains at 75 %. Does the gain
# grow with sparsity, in enough calibration draws for a verdict? Is it the noised text, the dense
# propagation or the sinks? Is the official schedule bad because of its last level, where every
# token is a mask? And does noised text help SparseGPT, too?
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 12 core-minutes, estimated | 2 GB |
# | evidence | 3 core-hours without AVX-512, estimated | 2 GB a job |
#
# **Not run yet.** Sizes and the rows of the ledger are written down; no output is shown here until
# `make reproduce PROFILE=evidence` has made it.
#
# Every recipe is scored on the same held-out text. Each calibration draw has noise of its own, and
# all recipes of a draw see as many calibration tokens.

# %% [markdown]
# **Parameters**, with the values that *Run all* takes. Numbers of calibration sequences are those
# of recipes that see each sequence at `noise_levels` levels; others see as many tokens.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
parts: list[str] = ["official", "factorial", "search", "damping"]  # of the notebook, to be measured
official_sparsities: list[float] = [0.5, 0.75]  # of the official method and Wanda
schedule_sparsities: list[float] = [0.5, 0.75]  # of the official schedule
ratios: list[float] = [0.5]  # of structured pruning
factorial_sparsities: list[float] = [0.75]  # of noised x dense x sinks
factorial_sinks: bool = True  # whether all sinks are left out there, too
places: list[str] = ["75"]  # of the search: sparsities in percent, or patterns N:M
searched: list[str] | None = None  # recipes of the search; null: all twelve
calibration: int = 4  # calibration sequences of all these
damping_sparsities: list[float] = [0.75]  # of SparseGPT with token weights
damping_sequences: list[int] = [4]  # of clean calibration text, for these alone
noise_levels: int = 4  # noise levels per calibration sequence
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go and which values a larger profile put in place of the defaults.

# %% tags=["setup"]
from importlib.util import find_spec

SOURCE = ""  # of the package, for a place that has only this notebook; `make address` writes it
if find_spec("sinkprune_core") is None:
    get_ipython().run_line_magic("pip", f"install --quiet '{SOURCE}'")
from sinkprune_companion.run.parameters import start

run = start("09_best_recipe", globals())

# %% [markdown]
# ## The text
#
# How well is it predicted without a model of language? A unigram and a bigram model are fitted on
# the shipped training text, with Witten and Bell's interpolation. A pruned model that is no better
# than these has lost its context.

# %%
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.ngram_levels import ngram_levels
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.models.loading import load

dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
texts = held_out_texts(dlm.tokenizer, sequences, length)
ngram_levels(dlm.tokenizer, texts).round(2)

# %% [markdown]
# ## The recipes
#
# * **official**: Wanda and the official method; noised text at an even grid of levels and at the
#   official ones, with and without the last, nothing left out; structured pruning.
# * **factorial**: Wanda on clean or noised text, with sequential or dense propagation.
# * **search**: SparseGPT and Wanda, on clean text, noised text or half of each, with or without the
#   unstable sinks, one sparsity for all layers or OWL's. Later blocks are calibrated on what pruned
#   ones make, as both were published.
# * **damping**: SparseGPT with the official token weights, with as many random ones, and with the
#   damping that it would have had without them. SparseGPT adds a share of the mean diagonal to each
#   Gram matrix, and weights that take sinks out lower that mean.

# %%
tokens = calibration * noise_levels  # in sequences
levels = (tokens, noise_levels)
entries = {part: [] for part in recipe_search.PARTS}
for share in official_sparsities:
    entries["official"] += recipe_search.official(share, *levels)
for share in schedule_sparsities:
    entries["official"] += recipe_search.schedules(share, *levels)
for ratio in ratios:
    entries["official"] += recipe_search.structured(ratio, tokens)
for share in factorial_sparsities:
    entries["factorial"] += recipe_search.factorial(share, *levels, factorial_sinks)
for place in places:
    candidates = recipe_search.candidates(place, *levels)
    entries["search"] += [each for each in candidates if each.name in (searched or [each.name])]
for share in damping_sparsities:
    for count in damping_sequences:
        entries["damping"] += recipe_search.sparsegpt_controls(share, count)
{part: len(of_part) for part, of_part in entries.items() if part in parts}

# %% [markdown]
# ## The loop
#
# Prune, measure, restore the weights. Every result is a record, so a run that was stopped goes on
# where it was. Losses are nats per token above the dense model, on the same sequences and noise.

# %%
import pandas as pd
from sinkprune_companion.experiments.scoring import above_dense

scores = {}
for part in parts:
    frames = []
    for seed in range(first_seed, first_seed + seeds):
        given = (run, dlm, fingerprint, entries[part], length, seed)
        for variant, labels in recipe_search.variants_on(*given):
            with variant:
                frames.append(variant.scores(run, texts, draws, noise=seed, **labels))
    scores[part] = above_dense(pd.concat(frames, ignore_index=True))

# %% [markdown]
# What every recipe costs above the dense model, with 95 % intervals over calibration draws and
# sequences:

# %%
from IPython.display import display
from sinkprune_companion.experiments.variant_pairs import pivot
from sinkprune_core.evaluation.intervals import crossed_interval

rows = []
for part, of_part in scores.items():
    pruned = of_part[of_part.variant != "dense"]
    for (place, variant), cells in pruned.groupby(["place", "variant"], sort=False):
        cost = crossed_interval(pivot(cells))
        row = {"part": part, "place": place, "recipe": variant, "value": cost.value}
        rows.append(row | {"low": cost.low, "high": cost.high, "draws": cells.seed.nunique()})
costs = pd.DataFrame(rows)
costs.set_index(["part", "place", "recipe"]).round(4)

# %% [markdown]
# ## The finding: paired differences
#
# In nats per token, paired by draw, sequence and noise; below zero the first of two is better. The
# margin is a share of the damage of the second.

# %%
from sinkprune_companion.ledger.margins import with_share_of_damage

GRID, LEVELS, BELOW = "even grid", "official levels", "official levels below t = 1"
WANDA, BOTH = "clean, sequential, none", "noised, dense, none"
COMPARED = {
    "paper_minus_wanda": ("official", "paper", "wanda"),
    "noised_dense_minus_wanda": ("official", GRID, "wanda"),
    "official_levels_minus_grid": ("official", LEVELS, GRID),
    "below_1_minus_grid": ("official", BELOW, GRID),
    "official_levels_minus_below_1": ("official", LEVELS, BELOW),
    "paper_minus_official_levels": ("official", "paper", LEVELS),
    "structured_sink_minus_structured": ("official", "structured-sink", "structured"),
    "structured_sink_minus_no_sinks": ("official", "structured-sink", "structured-no-sinks"),
    "noised_alone": ("factorial", "noised, sequential, none", WANDA),
    "dense_alone": ("factorial", "clean, dense, none", WANDA),
    "noised_and_dense": ("factorial", BOTH, WANDA),
    "sinks_besides": ("factorial", "noised, dense, all", BOTH),
}
for name in searched or recipe_search.NAMES:
    if name != recipe_search.BASELINE:
        finding = name.replace(", ", "_") + "_minus_sparsegpt_clean"
        COMPARED[finding] = ("search", name, recipe_search.BASELINE)
for count in damping_sequences:
    FIXED = "official weights, damping of plain"
    for name, one in (("official", "official weights"), ("random", "random tokens")):
        pair = (f"{one}, {count}", f"plain, {count}")
        COMPARED[f"sparsegpt_{name}_minus_plain_{count}"] = ("damping", *pair)
    COMPARED[f"sparsegpt_fixed_minus_plain_{count}"] = ("damping", f"{FIXED}, {count}", pair[1])

# %% [markdown]
# Every difference at every place where both were measured; how it grows from the lowest to the
# highest sparsity; and the main effects of the factorial design, means over its other switches.

# %%
effects, damage = {}, {}  # (draws, sequences) by finding; nats per token
for finding, (part, *pair) in COMPARED.items():
    by_place = {}
    for place, cells in scores[part].groupby("place", sort=False) if part in scores else []:
        if {*pair} <= {*cells.variant}:
            one, other = (pivot(cells[cells.variant == each]) for each in pair)
            by_place[place] = one - other
            ending = place.removesuffix(" %").replace(":", "_")
            effects[f"{finding}_{ending}"] = one - other
            damage[f"{finding}_{ending}"] = float(other.mean())
    if {"50 %", "75 %"} <= {*by_place}:
        effects[f"{finding}_growth"] = by_place["75 %"] - by_place["50 %"]
        damage[f"{finding}_growth"] = damage[f"{finding}_75"]
of_factorial = scores.get("factorial", pd.DataFrame(columns=["place", "variant"]))
for place, cells in of_factorial[of_factorial.variant != "dense"].groupby("place"):
    by_name = {name: pivot(of_name) for name, of_name in cells.groupby("variant")}
    for switch, values_RN in recipe_search.main_effects(by_name).items():
        finding = f"main_{switch}_{place.removesuffix(' %')}"
        effects[finding], damage[finding] = values_RN, float(by_name[WANDA].mean())
found = {
    name: with_share_of_damage(crossed_interval(values_RN), damage[name])
    for name, values_RN in effects.items()
}
run.find(found)

# %% [markdown]
# ## The figure: what makes the gain at the highest sparsity

# %%
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.ledger.contrasts import judge
from sinkprune_companion.pages import titles

SHOWN = {
    "Wanda at 75 %": {
        "the official method − Wanda": "paper_minus_wanda_75",
        "its sink weights and sum of norms alone": "paper_minus_official_levels_75",
        "its noise levels alone": "official_levels_minus_grid_75",
        "noised text alone": "noised_alone_75",
        "dense propagation alone": "dense_alone_75",
    },
    "SparseGPT at 75 %": {"noised text alone": "sparsegpt_noised_minus_sparsegpt_clean_75"},
}
parts_shown = []
for section, rows in SHOWN.items():
    measured = {label: effects[name] for label, name in rows.items() if name in effects}
    if measured:
        margin = found[next(name for name in rows.values() if name in effects)].margin
        parts_shown.append(judge(measured, margin, section))
if parts_shown:
    drawn_rows = pd.concat(parts_shown, ignore_index=True)
    title = titles.title(run, "gain", "Where the gain at 75 % comes from")
    axis = "difference in NELBO at 75 % (nats per token)"
    drawn = forests.plot_effects(drawn_rows, axis, title)
    caption = f"{title}: paired differences in NELBO at 75 %, with 95 % intervals."
    display(figures.save_figure(run, drawn, "gain", drawn_rows, caption))

# %% [markdown]
# ## The figure: damage against sparsity

# %%
LINES = ["wanda", "paper", GRID, LEVELS]
lines = costs[costs.place.str.endswith("%") & costs.recipe.isin(LINES)]
if len(lines):
    lines = lines.assign(sparsity=lines.place.str.rstrip(" %").astype(float))
    title = titles.title(run, "damage", "What four recipes cost, against sparsity")
    labels = {"sparsity": "sparsity (%)", "value": "NELBO above dense (nats per token)"}
    drawn = figures.plot_curves(
        lines,
        "sparsity",
        "value",
        "recipe",
        labels,
        ("low", "high"),
        logy=True,
        dodge=0.4,
        title=title,
    )
    caption = f"{title}: NELBO above the dense model against sparsity, with 95 % intervals."
    display(figures.save_figure(run, drawn, "damage", costs, caption))

# %% [markdown]
# ## The reading

# %%
from sinkprune_companion.run.shown import Folded, reading

reading(run)

# %% [markdown]
# All numbers:

# %%
from sinkprune_companion.figures.forests import listed

Folded(listed(found, margin=[estimate.margin for estimate in found.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `places` to `["50"]`. Noised text is expected to make no difference there.
# 2. Set `damping_sequences` to `[4, 16]`. Does the sign of what sink weights do stay?

# %% [markdown]
# **What this does not show.** One small model and its likelihood. *Half of each* is one way to mix
# text. Settings of OWL and of SparseGPT are those of their authors.
