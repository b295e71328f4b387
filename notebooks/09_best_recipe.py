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
# # 09 · The best one-shot recipe for a diffusion model
#
# **Question.** At 75 % sparsity, noised calibration text with dense propagation saves a fifth of
# Wanda's damage, with or without sinks. Is it the noise or the propagation? Is the official
# schedule bad because of its last level, where every token is a mask? Do sink weights act through
# SparseGPT's damping? And which recipe is the best at each sparsity?
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 15 core-minutes, estimated | 2 GB |
# | evidence | about 35 core-hours with AMX, estimated | 2 GB a job |
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
parts: list[str] = [
    "factorial",
    "schedule",
    "damping",
    "screening",
    "confirmation",
]  # of the notebook, to be measured; a job of a larger run takes one
factorial_sparsities: list[float] = [0.75]  # of noised x dense x sinks
factorial_calibration: int = 2  # calibration sequences
schedule_sparsities: list[float] = [0.5]  # of the official schedule
schedule_calibration: int = 4  # calibration sequences
damping_sparsities: list[float] = [0.75]  # of SparseGPT with token weights
damping_sequences: list[int] = [4]  # of clean calibration text
places: list[str] = ["75"]  # of the search: sparsities in percent, or patterns N:M
screening_calibration: int = 2  # calibration sequences
screening_draws: int = 1  # calibration draws, the first ones
screening_sequences: int = 6  # held-out sequences
confirmed: int = 2  # how many of the best recipes of each place are measured again
confirmation_calibration: int = 4  # calibration sequences
items: int = 24  # items of the offline suite that confirmed recipes answer, of 1,512
blimp_pairs: int = 1  # and minimal pairs of each of BLiMP's 67 paradigms, of 60
item_draws: int = 2  # ways to mask an ending
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
import importlib.util
import subprocess
import sys

SOURCE = ""  # of the package, for a place that has only this notebook; `make address` writes it
if importlib.util.find_spec("sinkprune_core") is None:
    if not SOURCE:
        raise ModuleNotFoundError("sinkprune is not installed: run pip install . in a clone")
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", SOURCE])
    importlib.invalidate_caches()
from sinkprune_companion.run.parameters import start

run = start("09_best_recipe", globals())

# %% [markdown]
# ## The text
#
# How well is it predicted without a model of language? A unigram and a bigram model are fitted on
# the shipped training text, with Witten and Bell's interpolation. A pruned model that is no better
# than these has lost its context.

# %%
import pandas as pd
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.ngram_levels import ngram_levels
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.models.loading import load

if unknown := set(parts) - set(recipe_search.PARTS):
    raise ValueError(f"parts={sorted(unknown)}: choose from {', '.join(recipe_search.PARTS)}")
numbers = range(first_seed, first_seed + seeds)
dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
texts = held_out_texts(dlm.tokenizer, sequences, length)
levels = ngram_levels(dlm.tokenizer, texts)
levels.round(2)

# %% [markdown]
# Prune, measure, restore the weights. Every result is a record, so a run that was stopped goes on
# where it was. What is left of a part that is not to be measured is an empty table.

# %%
from sinkprune_companion.experiments.scoring import above_dense
from sinkprune_companion.experiments.variant_answers import variant_answers
from sinkprune_companion.experiments.variant_pairs import pivot
from sinkprune_core.evaluation.intervals import crossed_interval

EMPTY = pd.DataFrame(columns=["variant", "place", "value"])
answers = []  # to two-choice items, of the recipes that are measured again


def measured(part: str, entries: list, of_draws: list, of_texts=texts, of_items=None):
    """Nats per token above the dense model, a row per recipe, draw and sequence."""
    if part not in parts or not of_draws:
        return EMPTY
    scores = []
    for seed in of_draws:
        for variant, labels in recipe_search.variants_on(
            run, dlm, fingerprint, entries, length, seed
        ):
            with variant:
                scores.append(variant.scores(run, of_texts, draws, noise=seed, **labels))
                if of_items:
                    answers.append(variant_answers(run, variant, of_items, item_draws, **labels))
    return above_dense(pd.concat(scores, ignore_index=True))


# %% [markdown]
# Of one recipe, and of all of them with intervals:


# %%
def values(scores: pd.DataFrame, place: str, variant: str):
    """Nats per token above the dense model, (draws, sequences)."""
    return pivot(scores[(scores.place == place) & (scores.variant == variant)])


def costs(scores: pd.DataFrame) -> pd.DataFrame:
    """What every recipe costs above the dense model, with its interval."""
    rows = []
    pruned = scores[scores.variant != "dense"]
    for (place, variant), part in pruned.groupby(["place", "variant"], sort=False):
        cost = crossed_interval(pivot(part))
        row = {"place": place, "recipe": variant, "value": cost.value, "low": cost.low}
        rows.append(row | {"high": cost.high, "draws": part.seed.nunique()})
    return pd.DataFrame(rows, columns=["place", "recipe", "value", "low", "high", "draws"])


# %% [markdown]
# ## What makes the gain: noise, propagation or sinks
#
# Wanda in all eight combinations: clean or noised text, sequential or dense propagation, nothing or
# all sinks left out.

# %%
entries = []
for share in factorial_sparsities:
    tokens = factorial_calibration * noise_levels
    entries += recipe_search.factorial(share, tokens, noise_levels)
factorial = measured("factorial", entries, list(numbers))
costs(factorial).round(3)

# %% [markdown]
# Main effects are means over the settings of the other two switches. Below them: each switch alone,
# against Wanda on clean text with sequential propagation.

# %%
found, damage = {}, {}
WANDA, BOTH = "clean, sequential, none", "noised, dense, none"
ALONE = {
    "noised_alone": ("noised, sequential, none", WANDA),
    "dense_alone": ("clean, dense, none", WANDA),
    "noised_and_dense": (BOTH, WANDA),
    "sinks_besides": ("noised, dense, all", BOTH),
}
for share in factorial_sparsities if len(factorial) else []:
    place = f"{100 * share:g} %"
    names = factorial[factorial.place == place].variant.unique()
    by_name = {name: values(factorial, place, name) for name in names}
    effects = {f"main_{n}": v for n, v in recipe_search.main_effects(by_name).items()}
    effects |= {n: by_name[one] - by_name[other] for n, (one, other) in ALONE.items()}
    for name, values_RN in effects.items():
        finding = f"factorial_{name}_{100 * share:.0f}"
        found[finding] = crossed_interval(values_RN)
        damage[finding] = float(by_name[WANDA].mean())

# %% [markdown]
# ## The official schedule with and without its last level
#
# The official code noises text at t = 0.1, 0.2, … 1. At t = 1 every token is a mask. The same
# sequences with the same masks, once with that level and once without; beside them the even grid.

# %%
entries = []
for share in schedule_sparsities:
    tokens = schedule_calibration * noise_levels
    entries += recipe_search.schedules(share, tokens, noise_levels)
schedule = measured("schedule", entries, list(numbers))
GRID, OFFICIAL = "even grid", "official levels"
BELOW = "official levels below t = 1"
PAIRS = {
    "official_minus_grid": (OFFICIAL, GRID),
    "below_1_minus_grid": (BELOW, GRID),
    "official_minus_below_1": (OFFICIAL, BELOW),
}
for share in schedule_sparsities if len(schedule) else []:
    place = f"{100 * share:g} %"
    for name, (one, other) in PAIRS.items():
        finding = f"schedule_{name}_{100 * share:.0f}"
        difference = values(schedule, place, one) - values(schedule, place, other)
        found[finding] = crossed_interval(difference)
        damage[finding] = float(values(schedule, place, other).mean())
costs(schedule).round(4)

# %% [markdown]
# ## Do sink weights act through SparseGPT's damping?
#
# SparseGPT adds a share of the mean diagonal to each Gram matrix. Sinks have large norms, so
# weights that take them out lower that mean, and the damping with it. Two controls: random tokens
# get the weights, as many as there are sinks; and the official weights stand with the absolute
# damping that the plain run had for the same matrix.

# %%
entries = []
for share in damping_sparsities:
    for count in damping_sequences:
        entries += recipe_search.sparsegpt_controls(share, count)
damping = measured("damping", entries, list(numbers))
FIXED = "official weights, damping of plain"
PAIRS = {
    "official_minus_plain": ("official weights", "plain"),
    "random_minus_plain": ("random tokens", "plain"),
    "fixed_minus_plain": (FIXED, "plain"),
    "fixed_minus_official": (FIXED, "official weights"),
}
for share in damping_sparsities if len(damping) else []:
    place = f"{100 * share:g} %"
    for count in damping_sequences:
        for name, pair in PAIRS.items():
            one, other = (values(damping, place, f"{side}, {count}") for side in pair)
            finding = f"sparsegpt_{name}_{count}_{100 * share:.0f}"
            found[finding] = crossed_interval(one - other)
            damage[finding] = float(other.mean())
costs(damping).round(3)

# %% [markdown]
# ## The search
#
# SparseGPT and Wanda, on clean text, noised text, or half of each; nothing or the unstable sinks
# left out; one sparsity for all layers or OWL's. Later blocks are calibrated on what pruned ones
# make. *Half of each* sees every sequence once clean and once at a noise level of its own.
#
# First a screening on little text. It only says which recipes are measured again.

# %%
entries = []
for place in places:
    tokens = screening_calibration * noise_levels
    entries += recipe_search.candidates(place, tokens, noise_levels)
few = held_out_texts(dlm.tokenizer, screening_sequences, length, seed=1)
seen = [number for number in numbers if number < screening_draws]
if "confirmation" in parts:
    seen = list(range(screening_draws))
part = "confirmation" if "confirmation" in parts else "screening"
screening = measured(part, entries, seen, few)
screened = costs(screening)
table = screened.assign(cost=screened.value.round(3))
table.pivot(index="recipe", columns="place", values="cost")

# %% [markdown]
# ## The best, measured again
#
# The best recipes of each place, and plain SparseGPT as what they are compared with, on more text,
# in draws that the screening has not seen.

# %%
chosen = recipe_search.best(screening, confirmed) if len(screening) else {}
entries = []
for place in places:
    tokens = confirmation_calibration * noise_levels
    for entry in recipe_search.candidates(place, tokens, noise_levels):
        if entry.name in [*chosen.get(entry.place, []), recipe_search.BASELINE]:
            entries.append(entry)
fresh = [screening_draws + number for number in numbers]
confirmation = EMPTY
if chosen:
    benchmarks = {"suite": items, "blimp": blimp_pairs}
    confirmation = measured("confirmation", entries, fresh, of_items=benchmarks)
confirmed_costs = costs(confirmation)
confirmed_costs.round(3)

# %% [markdown]
# ## The figure: damage against sparsity
#
# The six recipes that were measured again at most sparsities. Patterns stand in the table above.

# %%
from sinkprune_companion.figures import figures

sparse = confirmed_costs[confirmed_costs.place.str.endswith("%")]
sparse = sparse.assign(sparsity=sparse.place.str.rstrip(" %").astype(float))
six = sparse.groupby("recipe").value.agg(["size", "mean"])
six = six.sort_values(["size", "mean"], ascending=[False, True]).index[:6]
picture = None
if len(six):
    title = "What the best recipes cost"
    labels = {"sparsity": "sparsity (%)", "value": "NELBO above dense (nats per token)"}
    lines = sparse[sparse.recipe.isin(six)]
    drawn = figures.plot_curves(
        lines, "sparsity", "value", "recipe", labels, ("low", "high"), dodge=0.4, title=title
    )
    caption = f"{title}: NELBO above the dense model against sparsity, with 95 % intervals."
    picture = figures.save_figure(run, drawn, "best", confirmed_costs, caption)
picture

# %% [markdown]
# ## The findings
#
# In nats per token, paired by draw, sequence and noise; the margin is a share of the damage of the
# second of the two. *Best* is the best recipe of a place in the screening, so its difference to the
# baseline is free of that choice.

# %%
from sinkprune_companion.ledger.margins import with_share_of_damage

for place, names in chosen.items() if len(confirmation) else []:
    ending = place.removesuffix(" %").replace(":", "_")
    baseline = values(confirmation, place, recipe_search.BASELINE)
    for rank, name in enumerate(names, start=1):
        finding = f"best_{rank}_minus_sparsegpt_{ending}"
        found[finding] = crossed_interval(values(confirmation, place, name) - baseline)
        damage[finding] = float(baseline.mean())
    for rank, name in enumerate(names[1:], start=2):
        finding = f"best_1_minus_best_{rank}_{ending}"
        difference = values(confirmation, place, names[0]) - values(confirmation, place, name)
        found[finding] = crossed_interval(difference)
        damage[finding] = float(values(confirmation, place, name).mean())
found = {name: with_share_of_damage(each, damage[name]) for name, each in found.items()}
pd.DataFrame.from_dict(chosen, orient="index")

# %% [markdown]
# The same for the margins by which two-choice items are answered, pooled over the offline suite and
# BLiMP, in shares of what plain SparseGPT costs there. Above zero the first keeps more of them.

# %%
from sinkprune_companion.experiments.variant_answers import margins, share_of_damage

by_pair = margins(pd.concat(answers)) if answers else EMPTY
DENSE = {"variant": "dense", "place": "dense"}
for place, names in chosen.items() if answers else []:
    baseline = {"variant": recipe_search.BASELINE, "place": place}
    for rank, name in enumerate(names, start=1):
        kept = share_of_damage(by_pair, {"variant": name, "place": place}, baseline, DENSE)
        if kept is not None:
            ending = place.removesuffix(" %").replace(":", "_")
            found[f"margin_best_{rank}_minus_sparsegpt_{ending}"] = kept
run.find(found)

# %% [markdown]
# All numbers:

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.run.shown import Folded

Folded(listed(found, margin=[estimate.margin for estimate in found.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `places` to `["50"]`. Noised text is expected to make no difference there.
# 2. Set `damping_sequences` to `[4, 16]`. Does the sign of what sink weights do stay?

# %% [markdown]
# **What this does not show.** One small model and its likelihood. The screening is noisy, so a
# recipe that is better by little can be missed. *Half of each* is one way to mix text. Settings of
# OWL and of SparseGPT are those of their authors.
