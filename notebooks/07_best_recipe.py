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
# # 07 · What makes the gain at 75 %, in five draws or more
#
# **Question.** The official recipe gains on Wanda at 75 % sparsity, and not at 50 %. Does the gain
# grow with sparsity, in enough calibration draws for a verdict, and what makes it: sinks, the noised
# text, or *dense propagation*, where later blocks are calibrated on outputs of the dense model? What
# does its last noise level do, where every token is a mask? Does noised text help SparseGPT, too?

# %% [markdown] tags=["answer"]
# **Answer.** At 75 % the official recipe lowers Wanda's loss by 0.42 of the 2.8 nats per token that
# Wanda costs; at 50 % no gain is seen. Noised text and dense propagation make that gain, and sinks
# do not. The best recipe found here is SparseGPT on half-noised text, from 75 % on with OWL's
# allocation of zeros, which is what the preset `recommended` does.
#
# The picture to look at is [the parts of the gain at 75
# %](../figures/07_best_recipe/parts_at_75.png).

# %% [markdown]
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 8 core-minutes, estimated | 2 GB |
# | evidence | 16 core-hours, and 100 core-minutes with AMX for `large` | 2 GB a job |
#
# Every recipe is scored on the same held-out text. Each calibration draw has noise of its own. But
# for `weight_sequences`, recipes of a part see about equally many calibration tokens in a draw (in
# whole sequences); the table below has their numbers.

# %% [markdown]
# **Parameters**, with the values that *Run all* takes. A recipe that sees each calibration sequence
# at `noise_levels` noise levels gets `calibration` sequences; one that sees it once gets as many
# tokens.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
parts: list[str] | None = None  # of the experiment, named below; None: all
official_sparsities: list[float] = [0.5, 0.75]  # of the official recipe and Wanda
schedule_sparsities: list[float] = [0.5, 0.75]  # of the official schedule
ratios: list[float] = [0.5]  # of structured pruning
factorial_sparsities: list[float] = [0.75]  # of noised x dense x sinks
sinks_sparsities: list[float] = []  # of these, where all sinks are left out, too
places: list[str] = ["75"]  # of the search: sparsities in percent, or patterns N:M
searched: list[str] = ["sparsegpt, clean", "sparsegpt, noised"]  # recipes of the search
at_75: list[str] = []  # more recipes of the search, at 75 % alone
weight_sparsities: list[float] = []  # of SparseGPT with and without sink weights
weight_sequences: list[int] = []  # its calibration sequences, besides as many as all others have
other_models: list[str] = []  # more diffusion models, or folders of adapters, for 75 %
other: list[str] = []  # these recipes of the search
other_first: list[str] = []  # and these, on the first of them alone
twin: str = "smol-ar"  # an autoregressive model, for 75 %
on_twin: list[str] = []  # these recipes of the search, on clean text
large: list[str] = []  # recipes of the search at 75 % once more, on more text
large_calibration: int = 8  # calibration sequences of these
large_dtype: str = "auto"  # of the weights there
answering: list[str] = []  # two-choice items, e.g. `sparsegpt, clean at 75 %`
items: int = 48  # of these, from the offline suite
blimp_pairs: int = 1  # minimal pairs of each BLiMP paradigm
item_draws: int = 2  # maskings of each ending
calibration: int = 5  # calibration sequences
noise_levels: int = 4  # noise levels per calibration sequence
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
recovery_tokens: list[int] = []  # training tokens of the models that are recovered after pruning
recovery_draws: int = 1  # calibration draws of these models
recovery_sequences: int = 12  # scored sequences of these models, natural English
all_parts: int = 2  # draws below this number have all parts; the others structured pruning alone
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("07_best_recipe", globals())

# %% [markdown]
# ## The claim
#
# > Gains are most pronounced at higher sparsity. (README of the official code)
#
# **What would falsify it.** The difference to Wanda on as much text, at 75 % minus at 50 %, with its
# whole interval above zero. And for the word *sink-aware*: the same growth without any sink left
# out.
#
# ## The recipes
#
# *Noised text* is calibration text of which a share of the tokens is masked, as the model sees it
# while it writes. That share is the *noise level*: an *even grid* has the midpoints of equal parts of
# 0 to 1, the *official levels* are 0.1, 0.2 … 1.0. The *official recipe* (`paper`) is Wanda on noised
# text at the official levels, with dense propagation, norms summed over levels, and sinks left out
# softly. *OWL's allocation* gives fewer zeros to layers with more outliers. What a recipe *costs*,
# its *damage*, is its NELBO above the dense model's; NELBO is a bound on the loss.
#
# * **official**: Wanda, and the way from there to the official recipe, in four steps; the official
#   levels without the last.
# * **structured**: whole heads and MLP channels, plain and sink-aware; in more draws than the rest.
# * **factorial**: Wanda on clean or noised text, with sequential or dense propagation, with nothing
#   or, at `sinks_sparsities`, all sinks left out.
# * **search**: SparseGPT (or Wanda, if `searched` names it) on clean text, on text that is noised at
#   `noise_levels` levels or at two (*noised twice*), or on text that is seen once clean and once
#   noised (*half*), at any noise level, a *low* or a *high* one; with or without the unstable sinks,
#   one sparsity for all layers or OWL's. Later blocks are calibrated on what pruned ones make, as in
#   the papers of both.
# * **weights**: SparseGPT on clean text, plain, with the official sink weights, with the same weights
#   on other tokens, in a random order, and with a tenth of its damping: leaving out sinks, whose
#   states are large, lowers the damping, which is a share of the mean square of the inputs. The same
#   on fewer sequences, where `weight_sequences` names them.
# * **other**: some of these at 75 % on other diffusion models.
# * **large**: some of these at 75 % on more text.
# * **twin**: some of these at 75 % on clean text, on an autoregressive model.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.run.texts import held_out_texts

parts = parts or recipe_search.PARTS
dlm = load(model, dtype, run.device)
texts = held_out_texts(dlm.tokenizer, sequences, length)
lms = {part: [dlm] for part in parts}
if "other" in parts:
    if other and not other_models:
        raise ValueError(f"other={other} needs other_models, the models or adapters to prune so")
    lms["other"] = [diffusion_model(name, dtype, run.device) for name in other_models]
    for other_dlm in lms["other"]:
        if other_dlm.tokenizer.get_vocab() != dlm.tokenizer.get_vocab():
            raise ValueError(f"other_models: {other_dlm.name} must have the tokens of {model!r}")
if "twin" in parts and on_twin:
    lms["twin"] = [load(twin, dtype, run.device)]

# %% [markdown]
# What is measured in each part:

# %%
tokens = calibration * noise_levels  # in sequences
entries = {part: [] for part in recipe_search.PARTS}
for share in official_sparsities:
    entries["official"] += recipe_search.official(share, tokens, noise_levels)
for share in schedule_sparsities:
    entries["official"] += recipe_search.schedules(share, tokens, noise_levels)
for ratio in ratios:
    entries["structured"] += recipe_search.structured(ratio, tokens)
for share in factorial_sparsities:
    with_sinks = share in sinks_sparsities
    entries["factorial"] += recipe_search.factorial(share, tokens, noise_levels, with_sinks)
for place in places:
    candidates = recipe_search.candidates(place, tokens, noise_levels)
    names = [*searched, *at_75] if place == "75" else searched
    entries["search"] += [each for each in candidates if each.variant in names]
for share in weight_sparsities:
    entries["weights"] += recipe_search.weights(share, tokens, noise_levels)
    for count in weight_sequences:
        fewer = recipe_search.weights(share, count, noise_levels)
        for row in fewer:
            entries["weights"].append(row._replace(variant=f"{row.variant}, {count}"))
candidates = recipe_search.candidates("75", tokens, noise_levels)
on_other = [each for each in candidates if each.variant in other]
entries["other"] = [each for each in candidates if each.variant in [*other, *other_first]]
entries["twin"] = [each for each in candidates if each.variant in on_twin]
candidates = recipe_search.candidates("75", large_calibration * noise_levels, noise_levels)
entries["large"] = [each for each in candidates if each.variant in large]
asked = {"dense at dense", *answering} if answering else {}
if unknown := {*answering} - {f"{each.variant} at {each.place}" for each in entries["search"]}:
    raise ValueError(f"answering={sorted(unknown)} must be recipes and places of the search")
{part: len(of_part) for part, of_part in entries.items() if part in parts}

# %% [markdown]
# ## The loop
#
# Prune, measure, restore the weights. Every result is a record, so a run that was stopped goes on
# where it was. Models of the search answer two-choice items where `answering` names recipe and place.

# %%
import pandas as pd
from sinkprune_companion.experiments.variants import variant_answers

questions = {"suite": items, "blimp": blimp_pairs}
losses, answers = [], []
if "large" in parts and entries["large"]:
    lms["large"] = [load(model, large_dtype, run.device)]
numbers = range(first_seed, first_seed + seeds)
measured = [part for part in recipe_search.PARTS if part in parts and entries[part]]
models = [(part, number, lm) for part in measured for number, lm in enumerate(lms[part])]
for part, number, lm in models:
    fingerprint = lm.fingerprint()
    label = f"other {number + 1}" if part == "other" else part
    chosen = entries[part] if part != "other" or number == 0 else on_other
    for seed in numbers if part == "structured" else [each for each in numbers if each < all_parts]:
        variants = recipe_search.variants_on(run, lm, fingerprint, chosen, length, seed)
        for variant, labels in variants:
            with variant:
                frame = variant.scores(run, texts, draws, noise=seed, **labels)
                if part == "search" and f"{labels['variant']} at {labels['place']}" in asked:
                    answers.append(variant_answers(run, variant, questions, item_draws, **labels))
            losses.append(frame.assign(part=label))
losses = pd.concat(losses, ignore_index=True)

# %% [markdown]
# What every recipe costs above the dense model, on the same sequences and noise, with 95 % intervals
# over calibration draws and sequences; beside it the NELBO itself and the calibration tokens. Of
# structured pruning the place is the share of the weights that it removes.

# %%
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.pages.render import Folded, results_table

scores = pd.concat([above_dense(of_part) for _, of_part in losses.groupby("part", sort=False)])
scores = scores[scores.variant != "dense"]
rows = []
for (part, place, variant), cells in scores.groupby(["part", "place", "variant"], sort=False):
    cost = crossed_interval(pivot(cells))
    row = {"part": part, "place": place, "recipe": variant, "value": cost.value}
    row |= {"low": cost.low, "high": cost.high, "NELBO": losses.value[cells.index].mean()}
    rows.append(row | {"tokens": cells.calibration_tokens.mean(), "draws": cells.seed.nunique()})
costs = pd.DataFrame(rows)
Folded(costs.round(4), "What every recipe costs")

# %% [markdown]
# **Is a pruned model of any use?** A unigram and a bigram model are fitted on the shipped training
# text, with Witten and Bell's interpolation. A pruned model whose NELBO is not below the bigram
# model's loss is not shown to beat it.

# %%
from sinkprune_companion.experiments.ngram_levels import ngram_levels

levels = ngram_levels(dlm.tokenizer, texts)
READ = ["dense", "wanda", "paper", "sparsegpt, clean", "sparsegpt, noised, owl"]
beside_bigram = {}  # (draws, sequences) by finding
elsewhere = losses.part.str.startswith(("other", "twin"))  # on other models
at_75_percent = losses[losses.place.isin(["dense", "75 %"]) & ~elsewhere]
for variant, cells in at_75_percent.groupby("variant", sort=False):
    if variant in READ:
        of_part = cells[cells.part == cells.part.iloc[0]]  # several parts may have it
        name = f"minus_bigram_{variant.replace(', ', '_')}"
        beside_bigram[name] = pivot(of_part) - levels.bigram.to_numpy()
levels.groupby("text", sort=False)[["unigram", "bigram"]].mean().round(2)

# %% [markdown]
# ## The finding: paired differences
#
# In nats per token, paired by draw, sequence and noise; below zero the first of two is better. A
# verdict needs five draws. *Helps* and *hurts* need an interval on one side of zero that does not lie
# within the margin, and a p-value below 0.05 after correction for all rows of its family (Holm).

# %%
GRID, LEVELS, BELOW = "even grid", "official levels", "official levels below t = 1"
WANDA, BOTH = "clean, sequential, none", "noised, dense, none"
NOISED = "sparsegpt, noised"
COMPARED = {
    "paper_minus_wanda": ("official", "paper", "wanda"),
    "paper_minus_noised_dense": ("official", "paper", GRID),
    "noised_dense_minus_wanda": ("official", GRID, "wanda"),
    "official_levels_minus_wanda": ("official", LEVELS, "wanda"),
    "official_levels_minus_grid": ("official", LEVELS, GRID),
    "official_levels_minus_below_1": ("official", LEVELS, BELOW),
    "paper_minus_paper_no_sinks": ("official", "paper", "paper-no-sinks"),
    "paper_no_sinks_minus_official_levels": ("official", "paper-no-sinks", LEVELS),
    "structured_sink_minus_structured": ("structured", "structured-sink", "structured"),
    "structured_sink_minus_no_sinks": ("structured", "structured-sink", "structured-no-sinks"),
    "noised_alone": ("factorial", "noised, sequential, none", WANDA),
    "dense_alone": ("factorial", "clean, dense, none", WANDA),
    "noised_and_dense": ("factorial", BOTH, WANDA),
    "sinks_besides": ("factorial", "noised, dense, all", BOTH),
}

# %% [markdown]
# And of SparseGPT: noised text, sinks and OWL's allocation. An ending names one of `other_models`, by
# its place, or a number of calibration sequences.

# %%
COMPARED |= {
    "sparsegpt_noised_minus_sparsegpt_clean": ("search", NOISED, "sparsegpt, clean"),
    "unstable_left_out_of_sparsegpt": ("search", f"{NOISED}, unstable", NOISED),
    "owl_in_sparsegpt": ("search", f"{NOISED}, owl", NOISED),
    "sparsegpt_half_minus_sparsegpt_clean": ("search", "sparsegpt, half", "sparsegpt, clean"),
    "half_noised_in_sparsegpt": ("search", "sparsegpt, half", NOISED),
    "noised_twice_in_sparsegpt": ("search", "sparsegpt, noised twice", NOISED),
    "half_minus_noised_twice": ("search", "sparsegpt, half", "sparsegpt, noised twice"),
    "half_low_minus_half": ("search", "sparsegpt, half low", "sparsegpt, half"),
    "half_high_minus_half": ("search", "sparsegpt, half high", "sparsegpt, half"),
    "unstable_left_out_of_half": ("search", "sparsegpt, half, unstable", "sparsegpt, half"),
    "sink_weights": ("weights", "official weights", "sparsegpt, clean"),
    "weights_elsewhere": ("weights", "official weights elsewhere", "sparsegpt, clean"),
    "sink_weights_minus_elsewhere": ("weights", "official weights", "official weights elsewhere"),
    "less_damping": ("weights", "less damping", "sparsegpt, clean"),
    "owl_in_half_noised": ("search", "sparsegpt, half, owl", "sparsegpt, half"),
    "noised_text_large": ("large", NOISED, "sparsegpt, clean"),
    "half_noised_large": ("large", "sparsegpt, half", NOISED),
    "half_minus_clean_large": ("large", "sparsegpt, half", "sparsegpt, clean"),
    "owl_large": ("large", f"{NOISED}, owl", NOISED),
    "owl_on_twin": ("twin", "sparsegpt, clean, owl", "sparsegpt, clean"),
    "sparsegpt_on_twin": ("twin", "sparsegpt, clean", "wanda, clean"),
}
of_weights = {finding: pair for finding, (part, *pair) in COMPARED.items() if part == "weights"}
for number in range(1, len(other_models) + 1):
    for finding, one in {"noised": f"{NOISED}, owl", "half": "sparsegpt, half, owl"}.items():
        COMPARED[f"{finding}_owl_on_other_{number}"] = (f"other {number}", one, "sparsegpt, clean")
for count in weight_sequences:
    for finding, pair in of_weights.items():
        COMPARED[f"{finding}_{count}"] = ("weights", *(f"{each}, {count}" for each in pair))

# %% [markdown]
# Every difference at every place where both were measured, and how it grows from 50 to 75 %.

# %%
effects = {}  # (draws, sequences) by finding
costs_of = {}  # what the recipe costs that each is compared with, likewise
for finding, (part, *pair) in COMPARED.items():
    for place, cells in scores[scores.part == part].groupby("place", sort=False):
        if {*pair} <= {*cells.variant}:
            one, other = (pivot(cells[cells.variant == each]) for each in pair)
            name = f"{finding}_{place.removesuffix(' %').replace(':', '_')}"
            effects[name] = one - other
            costs_of[name] = other
            if part == "structured" and len(one) > all_parts:  # draws added later, apart
                effects[f"{name}_later"] = effects[name][all_parts:]
                costs_of[f"{name}_later"] = other
    if f"{finding}_50" in effects and f"{finding}_75" in effects:
        effects[f"{finding}_growth"] = effects[f"{finding}_75"] - effects[f"{finding}_50"]
        costs_of[f"{finding}_growth"] = costs_of[f"{finding}_75"]

# %% [markdown]
# A main effect of the factorial design is a mean over its other switches; those of text and
# propagation are read with no sink left out. The interaction is what both do together beyond what
# each does alone. The margin of a difference is a share of the damage of its second recipe, that of
# an effect of Wanda's, and that of a growth of the second recipe's at 75 %.
#
# A difference is a mean over three kinds of text. Each is found on every kind apart as well, since
# the sign may depend on it: calibration text is samples and documentation, never natural English.
# [docs/results.md](../docs/results.md#by-kind-of-text) has them side by side.

# %%
from sinkprune_companion.experiments.kinds_of_text import effects_by_kind, kind_of_sequences
from sinkprune_companion.ledger.margins import share_that_matters, with_share_of_damage

recipes = {row.variant: row.recipe for row in entries["factorial"]}
for place, cells in scores[scores.part == "factorial"].groupby("place"):
    by_name = {name: pivot(of_name) for name, of_name in cells.groupby("variant")}
    plain = {name: part for name, part in by_name.items() if name.endswith("none")}
    main = recipe_search.main_effects(by_name, recipes)
    main |= recipe_search.main_effects(
        plain, recipes
    )  # text and propagation, with no sink left out
    at = place.removesuffix(" %")
    of_place = {f"main_{switch}_{at}": values_RN for switch, values_RN in main.items()}
    alone = [effects[f"{switch}_alone_{at}"] for switch in ("noised", "dense")]
    of_place[f"interaction_{at}"] = effects[f"noised_and_dense_{at}"] - sum(alone)
    effects |= of_place
    costs_of |= dict.fromkeys(of_place, by_name[WANDA])
damage = {name: crossed_interval(cost_RN) for name, cost_RN in costs_of.items()}
found = {
    name: with_share_of_damage(crossed_interval(values_RN), damage[name])
    for name, values_RN in effects.items()
}
found |= {name: crossed_interval(values_RN) for name, values_RN in beside_bigram.items()}
by_kind = effects_by_kind(effects, costs_of, kind_of_sequences(scores))

# %% [markdown]
# **Do the answers follow?** Two-choice items of the offline suite and of BLiMP, where chance is 50 %:
# right answers in percent, means over calibration draws. (The dense model's differ from those of
# notebook 03, which masks each ending more often, in bfloat16.) Their count tells little, so what is
# compared is how far the right answer lies above the wrong one in log-likelihood, in nats: the
# preset `recommended` (SparseGPT on half-noised text, at 75 % with OWL's allocation) − SparseGPT on
# clean text. Above zero the first is better. Units are templates of items, in BLiMP paradigms.

# %%
from IPython.display import display
from sinkprune_companion.experiments.paired_differences import by_template, compare

CLEAN = "sparsegpt, clean"
RECOMMENDED = {"50 %": "sparsegpt, half", "75 %": "sparsegpt, half, owl"}
if answers:
    answers = pd.concat(answers, ignore_index=True)
    margins = by_template(answers, "margin")
    for benchmark, part in margins.groupby("benchmark"):
        for place, recommended in RECOMMENDED.items():
            new, clean = ({"variant": each, "place": place} for each in (recommended, CLEAN))
            cost = compare(part, {"variant": "dense"}, clean)
            if cost:
                name = f"answer_margin_{{}}_{place.removesuffix(' %')}_{benchmark}".format
                gain = with_share_of_damage(compare(part, new, clean), cost)
                found |= {name("dense_minus_clean"): cost, name("recommended_minus_clean"): gain}
    right = 100 * answers.groupby(["benchmark", "place", "variant"], sort=False).correct.mean()
    display(right.unstack("benchmark").round(1))
run.find(found | by_kind)

# %% [markdown]
# ## The figure: what each part does at 75 %
#
# The first row is the official recipe against Wanda. Then come the steps between them, the first of
# which changes two things. Beneath, every switch of the factorial design, a mean over the others
# (of text and propagation: with no sink left out), at 75 and at 65 %.

# %%
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.figures.forests import forest_table
from sinkprune_companion.pages import render

WAY = {
    "all of it": "paper_minus_wanda_75",
    "+ noised text, dense propagation": "noised_dense_minus_wanda_75",
    "+ official noise levels": "official_levels_minus_grid_75",
    "+ sum of norms": "paper_no_sinks_minus_official_levels_75",
    "+ official sink weights": "paper_minus_paper_no_sinks_75",
}
MAIN = {
    "noised text": "main_noised_75",
    "dense propagation": "main_dense_75",
    "all sinks left out": "main_sinks_75",
}
MAIN_65 = {f"{switch} (65 %)": name.replace("75", "65") for switch, name in MAIN.items()}
groups = dict.fromkeys(WAY, "from Wanda to the official recipe")
groups |= dict.fromkeys(MAIN, "one switch, mean over the others")
groups |= dict.fromkeys(MAIN_65, "the same at 65 % sparsity")
drawn_rows = WAY | MAIN | MAIN_65
shown = {label: found[name] for label, name in drawn_rows.items() if name in found}
if shown:
    title = render.title(run, "parts_at_75", "Paired differences at 75 %")
    drawn = forests.plot_forest(shown, "difference in NELBO (nats per token)", groups, title)
    caption = f"{title}: paired differences in NELBO, with 95 % intervals"
    display(figures.save_figure(run, drawn, "parts_at_75", forest_table(shown), caption))

# %% [markdown]
# ## Two figures: what helps SparseGPT
#
# In percent of what SparseGPT costs without it. Noised text has each sequence at eight levels, half
# noised text has each once clean and once noised; both are compared with as many tokens of clean
# text. Half noised text has four times as many sequences as text at eight levels.

# %%
HELP = "sparsegpt_noised_minus_sparsegpt_clean"
PLACES = {"50 %": "50", "60 %": "60", "70 %": "70", "75 %": "75", "2:4": "2_4"}
HALF = HELP.replace("noised", "half")
TEXT = {
    f"{kind} text − clean text": {
        f"{kind}, {place}": f"{finding}_{ending}" for place, ending in PLACES.items()
    }
    for kind, finding in {"noised": HELP, "half noised": HALF}.items()
}
ASIDE = {  # in the data, not in the picture
    "noised, more text": "noised_text_large_75",
    "half noised, more text": "half_minus_clean_large_75",
    "OWL's allocation, noised, more text": "owl_large_75",
    "noised twice − eight times": "noised_twice_in_sparsegpt_75",
    "half noised − eight times": "half_noised_in_sparsegpt_75",
    "half noised − noised twice": "half_minus_noised_twice_75",
}

# %% [markdown]
# The second figure, at 75 %: sinks left out, whose official weights on clean text are compared with
# the same weights on other tokens, on all calibration sequences and on fewer; a tenth of the damping;
# noise levels of half noised text, only the low or the high half of them; and OWL's allocation.

# %%
AT_75 = {
    "tokens left out − none": {
        "unstable sinks, noised text": "unstable_left_out_of_sparsegpt_75",
        "unstable sinks, half noised text": "unstable_left_out_of_half_75",
        "sinks, official weights": "sink_weights_75",
        "the same, 64 sequences": "sink_weights_64_75",
        "the same, 16 sequences": "sink_weights_16_75",
    },
    "official weights: sinks − other tokens": {
        "128 sequences": "sink_weights_minus_elsewhere_75",
        "64 sequences": "sink_weights_minus_elsewhere_64_75",
        "16 sequences": "sink_weights_minus_elsewhere_16_75",
    },
    "SparseGPT changed − as it is": {
        "a tenth of the damping": "less_damping_75",
        "low noise levels, half noised": "half_low_minus_half_75",
        "high noise levels, half noised": "half_high_minus_half_75",
        "OWL's allocation, half noised": "owl_in_half_noised_75",
    },
}

# %% [markdown]
# In percent, and drawn:


# %%
def shares_of(rows: dict[str, str]) -> dict:
    """Differences in percent of the damage, by label, of the findings that were measured."""
    shares = {}
    for label, name in rows.items():
        if name in effects:
            share = crossed_interval(100 * effects[name] / damage[name].value)
            margin = found[name].margin and 100 * share_that_matters()
            shares[label] = share.with_margin(margin)
    return shares


for name, sections in {"sparsegpt": TEXT, "sparsegpt_75": AT_75}.items():
    shown = shares_of({label: row for rows in sections.values() for label, row in rows.items()})
    beside = shares_of(ASIDE if name == "sparsegpt" else {})
    if shown:
        groups = {label: section for section, rows in sections.items() for label in rows}
        title = render.title(run, name, "What noised text, sinks and OWL do in SparseGPT")
        drawn = forests.plot_forest(shown, "difference in NELBO (% of the damage)", groups, title)
        caption = f"{title}: differences in percent of the damage, with 95 % intervals"
        table = forest_table(shown | beside)
        display(figures.save_figure(run, drawn, name, table, caption))

# %% [markdown]
# ## The figure: damage against sparsity
#
# Of six recipes, on a logarithmic axis, and where a bigram model stands. Marks of one sparsity stand
# side by side. Lines between them are no measurements; Wanda and the official recipe have none
# between 50 and 75 %.

# %%
SIX = {"wanda": "wanda", "paper": "paper", "sparsegpt, clean": "sparsegpt"}  # by their presets
SIX |= {NOISED: "sparsegpt-noised", "sparsegpt, half": "sparsegpt, half noised"}
SIX |= {"sparsegpt, half, owl": "recommended"}
apart = ("other", "twin", "large", "weights")  # the last has SparseGPT on clean text once more
by_sparsity = costs[~costs.part.str.startswith(apart) & costs.place.str.endswith("%")]
lines = by_sparsity[by_sparsity.recipe.isin(SIX)].replace({"recipe": SIX})
if len(lines):
    lines = lines.assign(sparsity=lines.place.str.rstrip(" %").astype(float))
    title = render.title(run, "damage", "What six recipes cost, against sparsity")
    labels = {"sparsity": "sparsity (%)", "value": "NELBO above dense (nats per token)"}
    how = {"interval_columns": ("low", "high"), "logy": True, "dodge": 0.6, "title": title}
    drawn = figures.plot_curves(lines, "sparsity", "value", "recipe", labels, **how)
    of_bigram = -found["minus_bigram_dense"].value
    drawn.axes[0].axhline(of_bigram, color="0.4", ls=":")
    drawn.axes[0].annotate("a bigram model", (lines.sparsity.min(), of_bigram), va="bottom")
    caption = f"{title}: NELBO above the dense model against sparsity, with 95 % intervals"
    display(figures.save_figure(run, drawn, "damage", lines, caption))

# %% [markdown]
# ## After recovery
#
# Pruning need not be the end: a pruned model can be trained on with its zeros held (`sinkprune
# recover`). How much comes back, and does it still matter then how the model was pruned? The control
# is the dense model, trained on as many tokens. Calibrated and scored as in the paper's protocol.

# %%
from sinkprune_companion.experiments import recovery
from sinkprune_companion.figures.forests import listed

if recovery_tokens:
    lm = load(model, dtype, run.device)
    fingerprint = lm.fingerprint()
    rows = recovery.recovery_rows(recovery.PLACES, 16_384)
    recovered = pd.concat(
        [
            recovery.recovered_losses(
                run, lm, fingerprint, rows, recovery_sequences, seed, recovery_tokens
            )
            for seed in range(first_seed, recovery_draws)
        ],
        ignore_index=True,
    )
    after = recovery.recovery_findings(recovered, tokens=recovery_tokens)
    after = {name: estimate for name, estimate in after.items() if estimate is not None}
    found |= after
    run.find(found | by_kind)
    display(listed(after))
else:
    print("no model was recovered in this run: set recovery_tokens, for instance to [250_000]")

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# Nats per token, below zero the first of two is better; what is not here is in the figures and
# tables.
#
# * **A gain is seen at 75 % alone.** The official recipe − Wanda is 0.017 [−0.0081, 0.043] at 50 %
#   and −0.42 [−0.60, −0.24] at 75 %, where Wanda costs 2.8.
# * **Leaving sinks out does not make this gain.** At 75 % none of these matters: the official sink
#   weights (0.036 [0.013, 0.058]), all sinks left out of Wanda on average (0.0071 [−0.039, 0.053]),
#   unstable ones left out of SparseGPT (0.011 [−0.026, 0.048], on half-noised text 0.016
#   [−0.0022, 0.035]). Nor does it at 65 % that all are left out of Wanda (−0.00057
#   [−0.011, 0.010]).
# * **On sinks, the official weights do to SparseGPT what they do on other tokens**, on 128
#   sequences: the difference is 0.0066 [−0.046, 0.059] at 75 %. Beside no weights both are
#   undecided, 0.019 [−0.051, 0.090] and 0.012 [−0.084, 0.11], and so is a tenth of the damping,
#   0.023 [−0.067, 0.11]. On fewer sequences nothing is decided: with 64, sinks − other tokens is
#   0.014 [−0.051, 0.079] (0.079 would matter), with 16 −0.076 [−0.40, 0.25]; beside no weights
#   sinks are 0.048 [−0.047, 0.14] and −0.092 [−0.24, 0.055]. [Notebook
#   03](03_leaving_sinks_out.ipynb), in bfloat16 and on more held-out text, has −0.059
#   [−0.18, 0.059] for the weights on sinks: not even the sign is settled.
# * **Noised text and dense propagation do.** At 75 % they change Wanda by −0.29 and −0.31, both by
#   −0.60 [−0.78, −0.43], at even noise levels: more than the whole official recipe. At the official
#   levels it is −0.31 [−0.51, −0.10], and the official sum of norms takes another 0.15. **At 65 %
#   neither is seen to help** (0.029 [−0.0028, 0.060] and −0.0075 [−0.028, 0.013]).
# * **The official noise levels cost, and their last one is why.** At 75 % they lose 0.30
#   [0.26, 0.33] against an even grid. At t = 1 every token is a mask; that level alone loses 0.31
#   [0.25, 0.38]. At 50 % this is undecided here.
# * **At 75 % little is left.** The loss bounds of Wanda's and the official model lie 0.88 and 0.46
#   above a bigram model's loss; that of SparseGPT on noised text with OWL's allocation 0.80 below
#   it.
# * **Half-noised text helps SparseGPT from 50 % on**: beside clean text on as many tokens, it
#   changes the loss by −0.024 [−0.039, −0.0093] at 50 % and −0.46 [−0.51, −0.40] at 75 %, of 0.26
#   and 1.6. With 2:4 zeros it is undecided.
# * Text at eight noise levels helps it at 70 and 75 % only; elsewhere that is undecided. **More
#   sequences do more than more levels**: at 75 %, on as many tokens, four times as many sequences
#   at two levels change the loss by −0.13 [−0.21, −0.057], which was not asked beforehand.
#   Half-noised text does as well as text noised twice, and with high noise levels alone as with all
#   (0.0055 [−0.028, 0.039]); low ones alone are undecided (0.019 [−0.021, 0.060]).
# * **It is not for want of text**: on eight times as much (in bfloat16) half-noised text changes
#   SparseGPT's loss by −0.52 [−0.59, −0.46] at 75 %, text at eight levels by −0.51 [−0.57, −0.45];
#   which of the two is better is undecided there. Models on half-noised text were pruned and scored
#   on another kind of processor than the others of this part, so rounding adds to the scatter of
#   these differences.
# * **OWL's allocation helps besides**, at 75 %, by −0.11 [−0.15, −0.076] on half-noised text. So
#   the preset `recommended` is SparseGPT, from 50 % on with half-noised text, from 75 % on with
#   OWL's allocation. On the earlier adapter of 8.0 million tokens, from which training went on,
#   `recommended` changes the loss of SparseGPT on clean text by −0.71 [−0.96, −0.46] at 75 %, and
#   on the other trainings, seed-1 and seed-2 made again, by −0.69 [−0.75, −0.63] and −0.60
#   [−0.65, −0.55]. On `smol-ar`, on clean text, OWL's allocation changes SparseGPT's loss by −0.10
#   [−0.17, −0.035], and SparseGPT − Wanda is −1.5 [−1.7, −1.4].
# * **At 75 % it answers the suite better**: by log-likelihood the right answer gains 0.15 nats
#   [0.079, 0.22] on the wrong one beside SparseGPT on clean text, which loses 1.7. This was read by
#   benchmark when both together had been seen and were undecided. On BLiMP it is undecided (−0.020
#   [−0.49, 0.45]), and so it is at 50 %: −0.0056 [−0.062, 0.051] and −0.049 [−0.28, 0.19], where it
#   is not even clear that pruning costs anything on BLiMP (0.13 [−0.32, 0.58]). At 75 % both models
#   are nearer to chance than to the dense one (the table above).
# * **Sink-aware structured pruning is better than plain at ratio 0.3, and not for its sinks.** In
#   10 draws it changes the loss of plain structured pruning by −0.13 [−0.20, −0.052] there and by
#   −0.11 [−0.21, −0.022] at ratio 0.5. Draws 5 to 9 were added when the first five had been seen,
#   which were undecided; with both looks counted ratio 0.5 is undecided. The added ones alone give
#   −0.10 [−0.21, 0.0030] and −0.16 [−0.32, 0.0054]. With all sinks kept it does as well.

# %%
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

# %% [markdown]
# **What this does not show.** One small base model, mostly by its likelihood, and mostly in five
# draws of 16,384 tokens: an eighth of what notebook 03 gives Wanda, and of the part `large`. The
# official levels see 12 sequences at ten levels, the even grid 16 at eight. Settings of OWL and of
# SparseGPT are those of their authors.
