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
# # 07 · The best recipe, and recovery
#
# **Question.** First, what prunes a diffusion model at least cost? SparseGPT, which also adjusts the
# weights that stay, may read clean or noised text, put as many zeros into every layer or fewer
# where there are more outliers (OWL's allocation), and keep the sinks in its statistics or leave
# them out. Second, is a model still useful when three quarters of its weights are zero? Third, how
# much comes back when it is trained further?

# %% [markdown] tags=["answer"]
# **Answer.** With three quarters of the weights zero, the preset `recommended` costs least of what
# we tried: SparseGPT with OWL's allocation on half-noised text, every sequence once clean and once
# with masks. It was chosen on the model and text that it is scored on, but on three other adapters
# of the same base, too, it gains 0.60 to 0.71 nats per token on SparseGPT with clean text.
#
# ![What six recipes cost, by the share of zeros, beside a bigram
# model](../figures/07_best_recipe/damage.png)
#
# - **The steps at 75 %.** Wanda costs 2.85 nats, SparseGPT 1.63, with half-noised text 1.18, and
#   with OWL 1.07.
# - **Sinks.** Leaving unstable ones out is not seen to help SparseGPT.
# - **Use.** Wanda's model is not shown to beat a bigram model; that of `recommended` lies 0.90
#   below it, and untrained stays ahead of Wanda's model trained on 32,768 tokens.

# %% [markdown]
# Words are those of the [glossary](../docs/glossary.md). The loss is the NELBO, an upper bound on
# the negative log-likelihood. What a recipe *costs* is how far the loss of the pruned model lies
# above that of the dense one, in nats per token. A *preset* is a recipe with a name.
#
# Recipes that are compared see equally many calibration tokens, up to whole sequences, except where
# fewer sequences are named; a sequence counts once for every noise level at which it is seen. They
# are scored on the same held-out text, in five random draws of the calibration text, each under
# noise of its own. They are calibrated on samples of the AR model and on documentation, and scored
# on these two and on natural English, which is WikiText-2's validation split. Recovery, at the end,
# follows the paper's protocol, as [notebook 03](03_leaving_sinks_out.ipynb) does: models are
# calibrated on that split and scored on articles of WikiText-2's test split. So its numbers differ
# from those before it. They also differ a little from those of notebook 03, which scores more
# articles and has more draws at 50 %.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 4 core-minutes, estimated | 2 GB |
# | evidence | 11 core-hours, and 100 core-minutes with AMX for `large` | 2 GB a job |
#
# **Parameters**, with the values that *Run all* takes.

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
places: list[str] = ["75"]  # of the search: sparsities in percent, or patterns N:M
searched: list[str] = ["sparsegpt, clean", "sparsegpt, noised"]  # recipes of the search
at_75: list[str] = []  # more recipes of the search, at 75 % alone
parts: list[str] = []  # besides the search: weights, other, large, twin, answers
calibration: int = 5  # calibration sequences of what sees each of them at all noise levels
noise_levels: int = 4  # noise levels; what sees a sequence once gets as many tokens
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
seeds: int = 2  # calibration draws
recovery_tokens: list[int] = []  # training tokens of the models that are recovered after pruning
recovery_places: list[str] = ["75"]  # their zeros: "50", "75" or "2:4"

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
other_models: list[str] = []  # more diffusion models, or folders of adapters, for part `other`
weight_sequences: list[int] = [2]  # fewer calibration sequences, for part `weights`
recovery_draws: int = 1  # calibration draws of these models
recovery_sequences: int = 12  # scored sequences of these models, natural English
recovery_recipes: list[str] = ["wanda", "recommended"]  # presets that prune them
recovery_of_sparsegpt: list[str] = []  # the zeros with which SparseGPT's models are recovered, too
recovery_of_units: bool = False  # whether a model with half of its units removed is recovered, too
recovery_teacher: bool = False  # whether Wanda's model at 75 % also learns from the dense one
recovery_long_tokens: int = 0  # more training tokens, at 75 % for two recipes; 0: not measured
recovery_long_draws: int = 1  # calibration draws with that many
official_sparsities: list[float] = [0.75]  # of Wanda and the official recipe, to compare with
large_calibration: int = 8  # calibration sequences of part `large`
large_dtype: str = "auto"  # of the weights there, and of models that are recovered
items: int = 48  # two-choice items of the offline suite, for part `answers`
blimp_pairs: int = 1  # and minimal pairs of each BLiMP paradigm
item_draws: int = 2  # maskings of each ending
twin: str = "smol-ar"  # an autoregressive model, for part `twin`
length: int = 128  # tokens per sequence
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("07_best_recipe", globals())

# %% [markdown]
# ## The search
#
# A recipe of the search has a name of a few words, such as `sparsegpt, half, owl`:
#
# * *clean* is calibration text as it is. *Noised* is each sequence at `noise_levels` levels, where
#   a level is the share of the tokens that are masked; *noised twice* is each at two levels. *Half*
#   is each sequence once clean and once noised, at any level; *half low* and *half high* take a low
#   or a high level.
# * *unstable*: unstable sinks are left out of the statistics.
# * *owl*: OWL's allocation, which gives fewer zeros to layers with more outliers. Without it every
#   layer has equally many.
#
# Later blocks are calibrated on what pruned ones give, as in the papers of SparseGPT and OWL.
# Beside the search stand Wanda and the official recipe of [notebook 06](06_gain_at_75.ipynb), which
# is called `paper`.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.run.texts import held_out_texts

tokens = calibration * noise_levels  # of every recipe, in sequences
rows = []
for share in official_sparsities:
    rows += recipe_search.official(share, tokens, noise_levels)
rows = [row for row in rows if row.variant in ("wanda", "paper")]
for place in places:
    names = [*searched, *at_75] if place == "75" else searched
    candidates = recipe_search.candidates(place, tokens, noise_levels)
    rows += [row for row in candidates if row.variant in names]

# %% [markdown]
# In part `answers` some of the models answer two-choice items while they are pruned.

# %%
from sinkprune_companion.experiments.variants import variant_answers

CLEAN, NOISED, HALF = "sparsegpt, clean", "sparsegpt, noised", "sparsegpt, half"
RECOMMENDED = {"50 %": HALF, "75 %": f"{HALF}, owl"}  # the preset `recommended`
asked = {("dense", "dense")} | {(CLEAN, place) for place in RECOMMENDED}
asked |= {(variant, place) for place, variant in RECOMMENDED.items()}
answers = []


def ask(variant, labels: dict):
    """Let a model answer, if it is one of those that are asked."""
    if "answers" in parts and (labels["variant"], labels["place"]) in asked:
        questions = {"suite": items, "blimp": blimp_pairs}
        answers.append(variant_answers(run, variant, questions, item_draws, **labels))


dlm = load(model, dtype, run.device)
texts = held_out_texts(dlm.tokenizer, sequences, length)
draws = range(first_seed, first_seed + seeds)
losses = recipe_search.losses(run, dlm, rows, texts, length, draws, then=ask)

# %% [markdown]
# **The first picture**: what six recipes cost, by the share of zeros, on a logarithmic axis. Wanda
# and the official recipe were not measured at 60 and 70 % and with 2:4 zeros, two zeros in every
# four weights. The preset `recommended` has a mark of its own at 75 % alone. At 50, 60 and 70 % it is
# SparseGPT on half-noised text, and with 2:4 zeros SparseGPT on clean text.
#
# Overlapping bars do not mean that a difference is undecided. All recipes are scored on the same
# text, so their differences vary less than their costs. The pictures below show differences.
#
# The dotted line is the loss of a bigram model, which counts pairs of tokens in the shipped
# training text (with Witten and Bell's interpolation). A pruned model above the line is not shown
# to be better than that.

# %%
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.kinds_of_text import finding_on, kind_of_sequences
from sinkprune_companion.experiments.ngram_levels import ngram_levels
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.experiments.recipe_differences import differences, ending, estimates
from sinkprune_companion.figures.recipes import save_damage

levels = ngram_levels(dlm.tokenizer, texts)
kind_N = kind_of_sequences(losses)

found, use_by_kind = {}, {}
for variant in ("dense", "wanda", "paper", CLEAN, f"{NOISED}, owl", f"{HALF}, owl"):
    at_75_percent = losses.place.isin(["dense", "75 %"])
    of_variant = losses[(losses.variant == variant) & at_75_percent]
    if len(of_variant):
        name = f"minus_bigram_{variant.replace(', ', '_')}"
        beside_bigram_RN = pivot(of_variant) - levels.bigram.to_numpy()
        found[name] = crossed_interval(beside_bigram_RN)
        for kind in dict.fromkeys(kind_N):
            of_kind = crossed_interval(beside_bigram_RN[:, kind_N == kind])
            use_by_kind[finding_on(name, kind)] = of_kind

# %% [markdown]
# Every difference of the search has a name, by which the text and the claims table find it.

# %%
SEARCHED = {  # a finding: the recipes that it compares
    "sparsegpt_noised_minus_sparsegpt_clean": (NOISED, CLEAN),
    "sparsegpt_half_minus_sparsegpt_clean": (HALF, CLEAN),
    "half_noised_in_sparsegpt": (HALF, NOISED),
    "noised_twice_in_sparsegpt": ("sparsegpt, noised twice", NOISED),
    "half_minus_noised_twice": (HALF, "sparsegpt, noised twice"),
    "half_low_minus_half": (f"{HALF} low", HALF),
    "half_high_minus_half": (f"{HALF} high", HALF),
    "unstable_left_out_of_sparsegpt": (f"{NOISED}, unstable", NOISED),
    "unstable_left_out_of_half": (f"{HALF}, unstable", HALF),
    "owl_in_sparsegpt": (f"{NOISED}, owl", NOISED),
    "owl_in_half_noised": (f"{HALF}, owl", HALF),
    "half_owl_minus_clean": (f"{HALF}, owl", CLEAN),
}

costs = above_dense(losses)
changes = differences(costs, SEARCHED)
run.find(found | estimates(changes) | use_by_kind)

# %% [markdown]
# The picture has six of the recipes.

# %%
SIX = {"wanda": "wanda", "paper": "paper", CLEAN: "sparsegpt", NOISED: "sparsegpt-noised"}
SIX |= {HALF: "sparsegpt, half noised", f"{HALF}, owl": "recommended"}
save_damage(run, costs, SIX, bigram=-found["minus_bigram_dense"].value)

# %% [markdown]
# **Is a pruned model of any use?** The first table has the losses of a unigram and of the bigram
# model, by kind of text. Both have counted samples and documentation in training, and no natural
# English, which they predict much worse. The second table says how far the losses of models at 75 %
# lie above that of the bigram model, over all text and by kind. A loss is a bound here: a model
# whose NELBO is not below the bigram model's loss may still be better than it.

# %%
from IPython.display import display
from sinkprune_companion.figures.forests import listed

display(levels.groupby("text", sort=False)[["unigram", "bigram"]].mean().round(2))
listed(found | use_by_kind)

# %% [markdown]
# ## The method in code
#
# **Half-noised text.** A model that is pruned by half-noised text sees every sequence twice: once
# as it is, and once with a random share of its tokens masked.

# %%
from sinkprune_core.calibration.text import half_clean
from sinkprune_core.diffusion.noise import corrupt

clean_T = texts["natural/crop"][0, :24]
is_masked_ST = half_clean(clean_T, noise_levels=2, seed=0, sequence=0)  # of two states
seen_ST = corrupt(clean_T.expand(2, -1), is_masked_ST, dlm.mask_token_id)  # what the model reads
for state_T in seen_ST.tolist():
    words = [" ▢" if id == dlm.mask_token_id else dlm.tokenizer.decode([id]) for id in state_T]
    print("".join(words).strip())

# %% [markdown]
# **OWL's allocation.** A layer has outliers where scores are more than five times as large as the
# layer's mean. A layer with a larger share of them gets fewer zeros. Shares of zeros lie within
# 0.16 of each other, and their mean stays. Here are three layers with more and more outliers, and
# the library must give the same:

# %%
import torch
from sinkprune_core.pruning.patterns import allocate

rng = torch.Generator().manual_seed(0)
layers = [torch.randn(500, 500, generator=rng).abs() ** power for power in (1.5, 2.0, 2.5)]
outliers_L = torch.tensor([(score > 5 * score.mean()).float().mean() for score in layers])

rank_L = (outliers_L - outliers_L.min()) / (outliers_L.max() - outliers_L.min())  # 0 to 1
zeros_L = 0.75 + 2 * 0.08 * (rank_L.mean() - rank_L)
assert torch.allclose(zeros_L, torch.tensor(allocate("owl", 0.75, 3, 0.08, outliers_L.tolist())))
print("outliers", outliers_L.numpy().round(4), "zeros", zeros_L.numpy().round(3))

# %% [markdown]
# ## What helps SparseGPT
#
# With five draws or more every row of the pictures has a verdict, by the rule of [notebook
# 03](03_leaving_sinks_out.ipynb). It is *no difference that matters* where the whole interval lies
# within the margin and a difference as large as the margin has p below 0.05. Otherwise it is
# *helps* or *hurts* where the interval excludes zero and p is below 0.05. Both p are multiplied by
# how often we looked at the number when it could have decided, and then corrected for related
# questions (Holm). All else is *undecided*. A row that also stands in the claims table has its
# verdict from there.
#
# Intervals are t intervals over calibration draws and sequences together, so they cover new
# calibration text and new scored text. The margin is 4.6 % of what the second recipe of a
# difference costs. On LLaDA-8B the paper's method takes back 9.18 % of what Wanda costs, and the
# margin is half of that.
#
# First come half-noised text and text of which every sequence is seen at all `noise_levels` levels,
# eight in the stored run. Each stands beside as many tokens of clean text, in percent of what
# SparseGPT costs on clean text. Half-noised text has four times as many sequences as text at eight
# levels. Part `large` repeats this at 75 % on more text.

# %%
from sinkprune_companion.figures.recipes import save_shares

LARGE = {
    "noised_text_large": (NOISED, CLEAN),
    "half_noised_large": (HALF, NOISED),
    "half_minus_clean_large": (HALF, CLEAN),
    "owl_large": (f"{NOISED}, owl", NOISED),
}
if "large" in parts:
    on_more = recipe_search.candidates("75", large_calibration * noise_levels, noise_levels)
    named = {variant for pair in LARGE.values() for variant in pair}
    on_more = [row for row in on_more if row.variant in named]
    large_dlm = load(model, large_dtype, run.device)
    large_losses = recipe_search.losses(run, large_dlm, on_more, texts, length, draws)
    changes |= differences(above_dense(large_losses), LARGE)
run.find(found | estimates(changes))

# %% [markdown]
# The picture has a section for each kind of text:

# %%
TEXT = {  # a section: its finding, and that on more text at 75 %
    "half-noised − clean text": (
        "sparsegpt_half_minus_sparsegpt_clean",
        "half_minus_clean_large_75",
    ),
    "noised at eight levels − clean text": (
        "sparsegpt_noised_minus_sparsegpt_clean",
        "noised_text_large_75",
    ),
}

sections = {}
for section, (name, on_more_text) in TEXT.items():
    named = {}
    for place in places:
        named[place if ":" in place else f"{place} %"] = f"{name}_{ending(place)}"
        if place == "75":
            named[f"75 %, on {large_calibration / calibration:g} times the text"] = on_more_text
    sections[section] = {label: changes[each] for label, each in named.items() if each in changes}

of = "what SparseGPT costs on clean text"
save_shares(run, "sparsegpt", "What noised text does in SparseGPT", sections, of=of)

# %% [markdown]
# Next, at 75 %, come other ways to see text, OWL's allocation and sinks, in nats per token. In the
# two rows of high and low levels both recipes see half-noised text: its noised half has a high or a
# low level in the first recipe, and any level in the second. The row *noised twice − at eight
# levels* was not asked beforehand.
#
# Part `weights` gives SparseGPT on clean text the official sink weights, which let sinks count less.
# One control puts the same weights on other tokens, in a random order (*elsewhere*). A second
# control lowers SparseGPT's damping to a tenth. Damping is a share of the mean square of the inputs,
# and inputs at sinks are large, so leaving sinks out lowers it, too. All of these are repeated on
# fewer sequences. What is not drawn is in the data of the picture.

# %%
WEIGHTS = {
    "sink_weights": ("official weights", CLEAN),
    "weights_elsewhere": ("official weights elsewhere", CLEAN),
    "sink_weights_minus_elsewhere": ("official weights", "official weights elsewhere"),
    "less_damping": ("less damping", CLEAN),
}

if "weights" in parts:
    for count in (tokens, *weight_sequences):
        of_weights = recipe_search.weights(0.75, count, noise_levels)
        count_losses = recipe_search.losses(run, dlm, of_weights, texts, length, draws)
        on_fewer = "" if count == tokens else f"_{count}"
        compared = {f"{name}{on_fewer}": pair for name, pair in WEIGHTS.items()}
        changes |= differences(above_dense(count_losses), compared)
run.find(found | estimates(changes))

# %% [markdown]
# The picture has three sections. What is in `ASIDE` is not drawn, and stands in its data.

# %%
AT_75 = {
    "how text is seen": {
        "noised twice − at eight levels": "noised_twice_in_sparsegpt",
        "half-noised − noised twice": "half_minus_noised_twice",
        "half-noised, at high levels − at any level": "half_high_minus_half",
        "half-noised, at low levels − at any level": "half_low_minus_half",
    },
    "how zeros are shared out": {
        "OWL − uniform, half-noised text": "owl_in_half_noised",
    },
    "what sinks count": {
        "unstable: left out − kept, noised text": "unstable_left_out_of_sparsegpt",
        "unstable: left out − kept, half-noised text": "unstable_left_out_of_half",
        "all: official weights − kept, clean text": "sink_weights",
        "official weights: on sinks − elsewhere": "sink_weights_minus_elsewhere",
    },
}
ASIDE = {
    "half-noised − at eight levels": "half_noised_in_sparsegpt",
    "half-noised − at eight levels, on more text": "half_noised_large",
    "OWL − uniform, noised text": "owl_in_sparsegpt",
    "OWL − uniform, noised text, on more text": "owl_large",
    "a tenth of the damping − as it is": "less_damping",
}

for count in sorted(weight_sequences, reverse=True):
    ASIDE[f"all: official weights − kept, {count} sequences"] = f"sink_weights_{count}"
    fewer = f"official weights: on sinks − elsewhere, {count} sequences"
    ASIDE[fewer] = f"sink_weights_minus_elsewhere_{count}"


def measured(names: dict) -> dict:
    """Return the differences at 75 % that were measured, of findings by their labels."""
    found_75 = {label: changes.get(f"{name}_75") for label, name in names.items()}
    return {label: each for label, each in found_75.items() if each}


sections = {section: measured(names) for section, names in AT_75.items()}
if any(sections.values()):
    plain_title = "What text, allocation and sinks do in SparseGPT at 75 %"
    aside = measured(ASIDE)
    display(save_shares(run, "sparsegpt_75", plain_title, sections, of=None, aside=aside))

# %% [markdown]
# ## On other models
#
# The best recipes are tried once more at 75 %, on the diffusion models of `other_models`. These are
# other adapters, which are sets of trained changes to the weights of the same base. SparseGPT with
# and without OWL's allocation is tried on an autoregressive model as well. Findings call the models
# of `other_models` by their number.

# %%
from sinkprune_companion.experiments.diffusion_models import diffusion_model

candidates = recipe_search.candidates("75", tokens, noise_levels)

for number, name in enumerate(other_models if "other" in parts else [], 1):
    other_dlm = diffusion_model(name, dtype, run.device)
    if other_dlm.tokenizer.get_vocab() != dlm.tokenizer.get_vocab():
        raise ValueError(f"other_models: {name} must have the tokens of {model!r}")

    compared = {f"half_owl_on_other_{number}": (f"{HALF}, owl", CLEAN)}
    if number == 1:
        compared[f"noised_owl_on_other_{number}"] = (f"{NOISED}, owl", CLEAN)
    named = {variant for pair in compared.values() for variant in pair}
    on_other = [row for row in candidates if row.variant in named]
    other_losses = recipe_search.losses(run, other_dlm, on_other, texts, length, draws)
    changes |= differences(above_dense(other_losses), compared)

if "twin" in parts:
    ON_TWIN = {
        "owl_on_twin": (f"{CLEAN}, owl", CLEAN),
        "sparsegpt_on_twin": (CLEAN, "wanda, clean"),
    }
    named = {variant for pair in ON_TWIN.values() for variant in pair}
    on_twin = [row for row in candidates if row.variant in named]
    ar = load(twin, dtype, run.device)
    twin_losses = recipe_search.losses(run, ar, on_twin, texts, length, draws)
    changes |= differences(above_dense(twin_losses), ON_TWIN)

elsewhere = [name for name in changes if "_on_other_" in name or name.endswith("_on_twin_75")]
listed(estimates({name: changes[name] for name in elsewhere}))

# %% [markdown]
# ## Do the answers follow?
#
# Models answer the two-choice items of the offline suite and of BLiMP, where chance is 50 %. The
# table has right answers in percent, as means over calibration draws. The dense model's shares are
# not those of notebook 03, where weights are in bfloat16 and, on other text, each ending is masked
# more often.
#
# Counts of right answers tell little, so recipes are compared by how far the log-likelihood of the
# right answer lies above that of the wrong one, in nats. Compared are the preset `recommended`
# (SparseGPT on half-noised text, at 75 % with OWL's allocation) and SparseGPT on clean text. Above
# zero the first is better. Intervals are over templates of items, in BLiMP over paradigms.

# %%
import pandas as pd
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import by_template, on_common_draws
from sinkprune_companion.experiments.recipe_differences import by_kind_of_text
from sinkprune_companion.margins import beside_damage

found |= estimates(changes)
by_kind = by_kind_of_text(changes, kind_N) | use_by_kind
if answers:
    answered = pd.concat(answers, ignore_index=True)
    for benchmark, part in by_template(answered, "margin").groupby("benchmark"):
        for place, recommended in RECOMMENDED.items():
            new, clean = ({"variant": each, "place": place} for each in (recommended, CLEAN))
            values = on_common_draws(part, new, clean, {"variant": "dense"})
            if values:
                new_RN, clean_RN, dense_RN = values
                lost_RN = dense_RN - clean_RN
                at = f"{ending(place)}_{benchmark}"
                found[f"answer_margin_dense_minus_clean_{at}"] = crossed_interval(lost_RN)
                gain = beside_damage(new_RN - clean_RN, lost_RN)
                found[f"answer_margin_recommended_minus_clean_{at}"] = gain
    right = answered.groupby(["benchmark", "place", "variant"], sort=False).correct.mean()
    display((100 * right).unstack("benchmark").round(1))
else:
    print('No model was asked in this run: add "answers" to parts.')
run.find(found | by_kind)

# %% [markdown]
# ## After recovery
#
# Pruning need not be the end: a pruned model can be trained further while its zeros are held at
# zero (`sinkprune recover`). How much comes back, and does it still matter then how the model was
# pruned? The control is the dense model, trained on as many tokens. In the picture every loss is
# drawn above that of the dense model before any training: so a model gains as much as its own mark
# moves to the left, and the control has a row of its own. Models are calibrated and scored on
# WikiText-2, as in the paper's protocol.
#
# Not every row has marks in every panel. Wanda's model that learns from the dense one starts where
# Wanda's does, so it has no mark of its own before training; it was tried at 75 % alone. With 2:4
# zeros SparseGPT's row is empty, because `recommended` is SparseGPT on clean text there. Units were
# removed at 50 % alone. Longer training was tried at 75 %, for Wanda's model and for `recommended`.

# %% [markdown]
# How zeros are held, for one linear map: after every step of an optimizer, the weights that were
# zero are set to zero again.

# %%
from sinkprune import zeros_held

torch.manual_seed(0)
linear = torch.nn.Linear(64, 64)
with torch.no_grad():
    linear.weight[linear.weight.abs() < linear.weight.abs().median()] = 0  # it is pruned
zeros = int((linear.weight == 0).sum())

optimizer = torch.optim.AdamW(linear.parameters(), lr=0.01)
with zeros_held(linear):
    for _ in range(10):
        optimizer.zero_grad()
        linear(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
print(f"{zeros} zeros before training and {int((linear.weight == 0).sum())} after it")

# %% [markdown]
# Now the models. All recipes of a draw are trained on the same crops under the same masks.

# %%
from sinkprune_companion.experiments import recovery
from sinkprune_companion.figures.recipes import save_recovery

TOKENS = 16_384  # of calibration text, as the paper's protocol has them here

recovery_seeds = [seed for seed in draws if seed < recovery_draws]
is_recovered = bool(recovery_tokens and recovery_seeds)
trained_on, taught, after = list(recovery_tokens), None, {}
if is_recovered:
    recovered_places = [recovery.PLACES[place] for place in recovery_places]
    recovery_rows = recovery.recovery_rows(recovered_places, TOKENS, recipes=recovery_recipes)
    of_sparsegpt = [recovery.PLACES[place] for place in recovery_of_sparsegpt]
    recovery_rows += recovery.recovery_rows(of_sparsegpt, TOKENS, recipes=["sparsegpt"])
    if recovery_of_units:
        of_units = recovery.PLACES["units 50"]
        recovered_places.append(of_units)
        recovery_rows += recovery.recovery_rows([of_units], TOKENS, recipes=[recovery.SMALLER])

    recovered_dlm = load(model, large_dtype, run.device)
    how = (recovered_dlm, recovered_dlm.fingerprint())
    recovered = [
        recovery.recovered_losses(
            run, *how, recovery_rows, recovery_sequences, seed, recovery_tokens
        )
        for seed in recovery_seeds
    ]
    recovered = pd.concat(recovered, ignore_index=True)
    after |= recovery.recovery_findings(recovered, recovered_places, recovery_tokens)
    if recovery_of_units:
        after |= recovery.smaller_findings(recovered, recovery_tokens)
else:
    print("No model was recovered in this run: set recovery_tokens, for instance to [250_000].")

# %% [markdown]
# Wanda's model at 75 % is also trained to predict what the dense model predicts, instead of the text.

# %%
if is_recovered and recovery_teacher:
    teacher = load(model, large_dtype, run.device)
    (row,) = recovery.recovery_rows([recovery.PLACES["75"]], TOKENS, recipes=["wanda"])
    taught = [
        recovery.taught_losses(
            run, *how, teacher, row, recovery_sequences, seed, recovery_tokens[0]
        )
        for seed in recovery_seeds
    ]
    taught = pd.concat(taught, ignore_index=True)
    after |= recovery.taught_findings(recovered, taught)

# %% [markdown]
# Two recipes are trained on more tokens, at 75 %, in as many draws as `recovery_long_draws` says.

# %%
long_seeds = [seed for seed in recovery_seeds if seed < recovery_long_draws]
if is_recovered and recovery_long_tokens and long_seeds:
    place_75 = [recovery.PLACES["75"]]
    long_rows = recovery.recovery_rows(place_75, TOKENS, recipes=["wanda", "recommended"])
    longer = [
        recovery.recovered_losses(
            run, *how, long_rows, recovery_sequences, seed, [recovery_long_tokens]
        )
        for seed in long_seeds
    ]
    longer = pd.concat(longer, ignore_index=True)
    of_longer = recovery.recovery_findings(longer, place_75, [recovery_long_tokens])
    after = of_longer | after  # before any training, the findings of all draws stay
    is_longer = longer.asked == recovery_long_tokens
    recovered = pd.concat([recovered, longer[is_longer]], ignore_index=True)
    trained_on.append(recovery_long_tokens)

# %% [markdown]
# The picture has every model's loss above that of the dense model.

# %%
if is_recovered:
    after = {name: estimate for name, estimate in after.items() if estimate is not None}
    found |= after
    run.find(found | by_kind)
    losses_above = recovery.recovery_levels(recovered, recovered_places, trained_on, taught)
    display(save_recovery(run, losses_above))

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# Differences are in nats per token; below zero the first of the two is better.
#
# **The pruner counts most, then the text, then where the zeros lie.** SparseGPT in place of Wanda
# is the largest step (first picture); on WikiText-2, in [notebook 03](03_leaving_sinks_out.ipynb),
# it is −1.3 [−1.5, −1.1]. Half-noised text changes SparseGPT's loss by −0.024 [−0.039, −0.0093] at
# 50 % and by −0.46 [−0.51, −0.40] at 75 %; with 2:4 zeros it is undecided. So `recommended` is
# SparseGPT on clean text below 50 % and with 2:4 zeros, on half-noised text from 50 %, and with
# OWL's allocation from 75 %, where alone it was tried.
#
# **At 75 % such a model beats a table of token pairs, and wins little back in answers.** Its loss −
# that of a bigram model is −0.33 [−0.58, −0.087] for SparseGPT on clean text and −0.90
# [−1.2, −0.64] for `recommended`. Of the 1.7 nats by which clean text shrinks the lead of right
# answers on our suite, `recommended` wins 0.15 back; on BLiMP that is undecided.
#
# **Training narrows the gap and does not close it.** On WikiText-2, at 75 %, `recommended` − Wanda
# goes from −1.9 to −1.1 after 32,768 tokens and to −0.66 after 250,000 (last picture).
#
# **What this does not show.** Steps were taken in one order; another may give them other sizes. Of
# the three other adapters one is an earlier checkpoint. More is in [controls](../docs/controls.md).
#
# <details><summary>What else was tried</summary>
#
# * **Sequences or clean halves?** At 75 % text noised at two levels beats text at eight by 0.13.
#   Half-noised − noised twice is 0.0078 [−0.032, 0.048], undecided after correction.
# * **Official sink weights** change SparseGPT's loss by 0.019 [−0.051, 0.090]; on sinks − on random
#   tokens is 0.0066 [−0.046, 0.059].
# * **Recovery of the official recipe.** After 32,768 tokens, official recipe − Wanda is −0.034
#   [−0.13, 0.057] at 75 %, undecided; with 2:4 zeros it is worse.
# * **Whole units.** With half of them removed the model costs 0.84 after training, Wanda's at 50 %
#   0.31.
# * **A teacher.** Learning from the unpruned model instead of the text changes the trained loss by
#   −0.052 [−0.083, −0.021], where 0.078 would matter.
#
# </details>

# %%
from sinkprune_companion.pages.render import Folded, results_table

results_table(run)

# %% [markdown]
# All numbers:

# %%
Folded(listed(found, margin=[estimate.margin for estimate in found.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `places` to `["50"]`. Five draws could not tell there whether noised text helps SparseGPT.
#    How many would?
# 2. Add `"wanda, half"` to `searched`: every sequence once clean and once noised. Is half of the
#    noise enough for Wanda?
# 3. Set `recovery_tokens` to `[250_000]`. Does the better recipe stay ahead after recovery?
#
# **What this does not show.** This is one small base model, judged mostly by its likelihood, and
# mostly in five draws of 16,384 tokens. That is an eighth of what notebook 03 gives Wanda on other
# text, and of what part `large` gives. The official levels see 12 sequences at ten levels, and the
# even grid 16 at eight. Settings of OWL and of SparseGPT are those of their authors.
