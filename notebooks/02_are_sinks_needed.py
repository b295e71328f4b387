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
# # 02 · Does a model need its sinks?
#
# **Question.** [The paper](https://arxiv.org/abs/2602.17664) calls attention sinks, the few tokens
# that receive most attention, less essential in a diffusion model (DLM) than in an autoregressive
# one (AR). We *hide* some keys, so that no other token can attend to them: those that receive most
# attention, or as many others. What does that cost?

# %% [markdown] tags=["answer"]
# **Answer.** The DLM needs its sinks, but less than its AR twin does. Without attention to its five
# strongest keys in the middle third of the layers, a third chosen in hindsight, it loses 0.31 nats
# per token more than without five random keys, and the AR model 0.72. Hidden in all layers they
# cost the DLM more, but there another key takes over, which makes it no test of need.
#
# The pictures to look at are [how another key takes
# over](../figures/02_are_sinks_needed/taken_over.png) and [what hiding sinks costs, by
# layers](../figures/02_are_sinks_needed/layers.png).

# %% [markdown]
# **Parameters**, as *Run all* takes them. These defaults take minutes. The pictures and numbers
# stored on this page are of a larger run, a [profile](../docs/glossary.md), whose values the set-up
# below lists. The first values of `texts`, `first_tokens` and `lengths` make the *main condition*,
# on which verdicts rest. Time and memory: [docs/performance.md](../docs/performance.md).

# %% tags=["main-parameters"]
# the models
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on a part of its text
# which keys are hidden, and where
counts: list[int] = [5]  # numbers of keys to hide; verdicts are read at 5
thirds: list[str] = ["middle"]  # of the layers, to hide keys in one alone: early, middle, late
# on which text
texts: list[str] = ["natural"]  # of sequences: natural, samples, documentation
first_tokens: list[bool] = [False, True]  # whether <|endoftext|> stands before the text
lengths: list[int] = [64]  # tokens per sequence, a special first token not counted; e.g. 512
sequences: int = 3  # held-out sequences to score in each condition
draws: int = 1  # noise draws per sequence
# where it runs
profile: str = "manual"  # results go to runs/<profile>

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
same_share: bool = False  # in longer texts, also hide as large a share of the keys
long_sequences: int = 8  # the same at the lengths after the first
# where it runs
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("02_are_sinks_needed", globals())

# %% [markdown]
# ## Hide a sink, and look
#
# Both models read one text, the AR model on the left and the DLM on the right. Each row is a layer,
# each column a token, and bright tokens receive many times the mean attention; rings mark sinks. In
# the upper pictures the model has all its keys. In the middle ones its five strongest keys are
# hidden in every layer, in the lower ones in the middle third of the layers alone. Hidden keys are
# grey.
#
# The columns are the tokens of the first half of the text. The AR model reads all of it, and what
# counts is the attention of the second half, as these tokens see all columns. The DLM reads the
# first half alone, without masks.
#
# **What to look for.** A new bright column in a middle picture is a key that has *taken over*: the
# model has made itself another sink, so it was not without one. In the lower pictures, in the rows
# of the middle third (layers 10 to 19), no column should be as bright. Rings there mean little:
# without strong keys, two standard deviations above the mean are not much above it.

# %%
from sinkprune.figures import trajectories
from sinkprune.models.loading import load
from sinkprune_companion.experiments import hiding_scores, sink_conditions
from sinkprune_companion.pages.render import draw

COUNT = hiding_scores.COUNT  # keys that are hidden where verdicts are read: five
dlm, ar = load(model, dtype, run.device), load(twin, dtype, run.device)
prints = {lm.name: lm.fingerprint() for lm in (dlm, ar)}
conditions = sink_conditions.conditions(texts, first_tokens, lengths, ["llada"])
main = conditions[0]
texts_of_main = sink_conditions.prompts(dlm.tokenizer, main, sequences, main.tokens)
ids_1T = next(iter(texts_of_main.values()))[:1].to(dlm.device)

pairs_of_panels = zip(*(hiding_scores.layer_panels(lm, ids_1T) for lm in (ar, dlm)), strict=True)
panels = [panel for pair in pairs_of_panels for panel in pair]
told = {"data": trajectories.positions_table(panels), "columns": 2}
told["caption"] = "attention of both models to every key, layer by layer, with keys hidden"
plain = "Attention with all keys, and without the five strongest"
draw(run, "taken_over", plain, trajectories.plot_sink_positions, panels, **told)

# %% [markdown]
# ## The claim
#
# > indicating that sinks are often transient and less structurally essential than in AR models.
# > (abstract)
#
# **What would falsify it.** On the same text, hiding its sinks in the middle third of the layers
# costs the DLM more than the AR model: the whole interval of the difference lies above zero. This
# third was chosen after the costs of all layers had been seen. Hiding in all layers is measured
# beside it.
#
# **Which keys are hidden.** A first pass over the same text, with the same masks as when it is
# scored, tells how much attention each key receives:
#
# * **strongest** are the keys that receive most. The DLM reads the text under several masks, and
#   for each its strongest keys are chosen anew; masks can be among them. In the AR model the second
#   half of the text chooses among the keys of the first half, which all of its queries see; a
#   chosen key is then hidden from every query behind it.
# * **random** are as many other keys that are no sinks. As many of them are masks as among the
#   strongest, so that both take away as many words.
# * **first token kept** means the strongest, with position 0 never among them.
# * **first token** is position 0 alone, special or not. It is compared with one key at another
#   position, a random one or the strongest.
#
# **The method by hand.** An attention mask takes the five strongest keys of one text away from all
# queries; each key still sees itself. Softmax then shares their attention out among the other keys.
# The library, which does the same in chosen layers and under every mask of the text, must give the
# same hidden states.

# %%
import torch
from sinkprune_core.sinks import attention
from sinkprune_core.sinks.hiding import Hiding, hiding_model

with torch.inference_mode():
    with attention.track(dlm.model) as tracker:
        dlm.hidden(ids_1T)
        mass_K = tracker.take().mean((0, 1, 2, 3))  # over texts (one), layers, heads and windows
    sees_QK = torch.ones(len(mass_K), len(mass_K), dtype=torch.bool, device=dlm.device)
    sees_QK[:, mass_K.topk(COUNT).indices] = False
    sees_QK.fill_diagonal_(True)
    without_1TD = dlm.model.base_model(ids_1T, attention_mask=sees_QK[None, None])[0]
    of_library_1TD = hiding_model(dlm, Hiding("top", COUNT)).hidden(ids_1T)
assert torch.allclose(without_1TD, of_library_1TD, atol=1e-3)
share = float(mass_K.topk(COUNT).values.sum() / mass_K.sum())
print(f"in the DLM the {COUNT} keys that are hidden had {share:.0%} of the attention")

# %% [markdown]
# ## What hiding costs
#
# Both models score the same held-out text. The DLM's loss is its NELBO, a bound on the negative
# log-likelihood (see [notebook 00](00_start_here.ipynb)), under the same masks whatever is hidden;
# the AR model's is the exact likelihood. The *cost* is in nats per token above the model that sees
# all keys, paired by sequence and masks. The main condition is natural English that begins in the
# middle of a paragraph, without a special first token. Every other condition differs in one thing,
# except that not all kinds of text are long enough for the greater lengths. Long natural texts show
# `<unk>`, WikiText-2's sign for a rare word.

# %%
import pandas as pd

if max(counts) > min(lengths) // 8:
    raise ValueError(
        f"counts={counts} must not exceed {min(lengths) // 8}, an eighth of the shortest of "
        f"lengths={lengths}: as many random keys must be left"
    )
shared_counts = {}  # of longer texts: how many keys are as large a share as five of the shortest
parts = []
for condition in conditions:
    hidings = hiding_scores.few_hidings()
    if condition == main:
        hidings = hiding_scores.hidings_of_main(counts, thirds)
    keys = round(COUNT * condition.tokens / main.tokens)
    if same_share and keys > COUNT:
        shared_counts[condition] = keys
        hidings += [Hiding("top", keys), Hiding("random", keys)]
    asked = (sequences if condition.tokens == main.tokens else long_sequences, draws)
    for lm in (dlm, ar):
        given = (lm, prints[lm.name], condition, main, hidings)
        parts.append(hiding_scores.condition_scores(run, *given, *asked))
all_scores = pd.concat(parts, ignore_index=True)
scores = all_scores[all_scores.layers == "all"]
of_main = all_scores[all_scores.condition == "main"]

# %% [markdown]
# **Layer by layer.** The same five keys are hidden in one third of the layers alone. A profile that
# lists no `thirds` has the row of all layers only.

# %%
from sinkprune_companion.figures import forests

COSTS = "cost beyond that of as many random keys (nats per token)"
WHERE = {"early": "early third", "middle": "middle third", "late": "late third"}
rows = []
for layers in [third for third in WHERE if third in thirds] + ["all"]:
    part = of_main[of_main.layers == layers]
    rows += hiding_scores.costs_beyond_random(part, (dlm, ar), WHERE.get(layers, "all layers"))
by_layers = pd.DataFrame(rows)

# %% [markdown]
# The next cell gives names to the differences behind the picture. Each is the cost of one side less
# that of the other, where a side is a model, a choice of keys and their number. The ending of a
# name says in which layers or under which condition.

# %%
from sinkprune.evaluation.intervals import interval

KEPT = "strongest, first token kept"
CONTRASTS = {
    "excess_difference": ((dlm, "strongest", COUNT), (ar, "strongest", COUNT)),
    "excess_difference_without_first": ((dlm, KEPT, COUNT), (ar, KEPT, COUNT)),
    "top_minus_random_dlm": ((dlm, "strongest", COUNT), (dlm, "random", COUNT)),
    "top_minus_random_ar": ((ar, "strongest", COUNT), (ar, "random", COUNT)),
    "first_minus_other_dlm": ((dlm, "first token", 1), (dlm, KEPT, 1)),
    "first_minus_random_dlm": ((dlm, "first token", 1), (dlm, "random, first token kept", 1)),
    "first_minus_random_ar": ((ar, "first token", 1), (ar, "random, first token kept", 1)),
}
MAIN_CONTRASTS = ("excess_difference", "top_minus_random_dlm", "top_minus_random_ar")


def contrast(frame: pd.DataFrame, name: str, keys: int | None = None):
    """The difference of two sides, with `keys` hidden on both where it is given."""
    one, other = (
        hiding_scores.excess_of(frame, lm, label, keys or count)
        for lm, label, count in CONTRASTS[name]
    )
    return interval(one - other)


found = {}
for third in dict.fromkeys(thirds):
    part = of_main[of_main.layers == third]
    found |= {f"{name}_{third}_layers": contrast(part, name) for name in MAIN_CONTRASTS}
for condition, part in scores.groupby("condition", sort=False):
    ending = "" if condition == "main" else f"_{condition}"
    found |= {name + ending: contrast(part, name) for name in CONTRASTS}
for condition, keys in shared_counts.items():
    part = scores[scores.condition == condition.name(main)]
    ending = f"_{condition.name(main)}_same_share"
    found |= {name + ending: contrast(part, name, keys) for name in MAIN_CONTRASTS}
run.find(found)

decided = [name for name in found if name in MAIN_CONTRASTS or name.endswith("_layers")]
table = pd.concat([by_layers, forests.forest_table({name: found[name] for name in decided})])
told = {"data": table, "caption": "what hiding five keys costs"}
plain = "What hiding the five strongest keys costs, by the layers they leave"
draw(run, "layers", plain, forests.plot_costs, by_layers, COSTS, **told)

# %% [markdown]
# **Was a sink hidden at all?** The first column of the table is the whole cost, from which that of
# random keys is not subtracted. The next is the share of all attention that the hidden keys had
# before. Once they are hidden, the strongest key that remains gets the share `left`; `second` says
# how often that is position 1. All are means over the layers where keys are hidden. Where `left` is
# as much as one sink had, another key has taken over, as in the first picture, and the cost is not
# that of being without a sink. In a causal model that may be position 1: without position 0 it sees
# only itself, as position 0 did before.

# %%
strongest = of_main[(of_main.label == "strongest") & (of_main["count"] == COUNT)]
checked = strongest.groupby(["layers", "model"], sort=False)
columns = {"excess": "cost (nats per token)", "attention": "attention of the hidden keys"}
columns |= {"left": "of the strongest left (`left`)", "second": "how often position 1 (`second`)"}
checked[["excess", "attention", "left", "second"]].mean().round(3).rename(columns=columns)

# %% [markdown]
# ## More keys; other text, a special first token, longer text
#
# From here on keys are hidden in all layers. The first figure varies the number of keys; the second
# hides five under other conditions. The table below hides more of them in longer texts, as large a
# share of the keys as five are in the shortest.

# %%
from IPython.display import display
from sinkprune_companion.figures import figures

in_main = scores[scores.condition == "main"]
single = in_main.label == "random, first token kept"  # measured for one key alone, below
some_hidden = in_main[(in_main["count"] > 0) & ~single]
costs = figures.intervals(some_hidden, ["model", "kind", "label", "count"], "excess")
axes = {"count": "keys hidden", "value": "cost (nats per token)"}
curves = (costs, "count", "value", "label", axes, ("low", "high"))
told = {"data": costs, "caption": "bars: 95 % interval over sequences", "panel": "model"}
told["dodge"] = True  # side by side, as some of them cost the same
plain = "What hiding keys in all layers costs, by the number of keys"
display(draw(run, "costs", plain, figures.plot_curves, *curves, **told))

rows = []
for (_, what), part in scores.groupby(["condition", "what"], sort=False):
    fewest = part["count"][part["count"] >= COUNT].min()
    rows += hiding_scores.costs_beyond_random(part, (dlm, ar), what, fewest)
by_condition = pd.DataFrame(rows)
five = by_condition[by_condition["keys"] == COUNT]
told = {"data": by_condition, "caption": "what hiding costs"}
plain = "What hiding the five strongest keys costs, by condition"
display(draw(run, "conditions", plain, forests.plot_costs, five, COSTS, **told))
by_condition[by_condition["keys"] != COUNT].set_index("comparison").round(3)

# %% [markdown]
# **Position 0 against another position.** One key is hidden: the first, a random other, or the
# strongest other. A model that does not depend on a special first token pays for position 0 what it
# pays for any other. The numbers are nats per token above the model with all keys.

# %%
from sinkprune.evaluation.numbers import signed_interval

POSITIONS = ["first token", "random, first token kept", "strongest, first token kept"]
one_hidden = scores[(scores["count"] == 1) & scores.label.isin(POSITIONS)]
positions = figures.intervals(one_hidden, ["what", "model", "label"], "excess")
cells = [signed_interval(row.value, row.low, row.high) for row in positions.itertuples()]
words = {"what": "condition", "label": "one key hidden"}
shown = positions.rename(columns=words).assign(cell=cells)
shown.pivot_table("cell", ["condition", "model"], "one key hidden", aggfunc="first", sort=False)

# %% [markdown]
# ## The reading
#
# In these sentences a cost is what the strongest keys cost beyond random ones. In the table of
# claims below, rows that compare the two models take the difference of their whole costs.

# %% [markdown] tags=["reading"]
# * **Hidden in the middle third of the layers, the five strongest keys cost the AR model 0.72
#   [0.68, 0.76] and the DLM 0.31 [0.27, 0.34] nats per token beyond what random keys cost.** In the
#   late third it is 0.55 and 0.23. In neither third does another key take their place: the
#   strongest key that is left gets a few percent of the attention (the table below the second
#   figure). As the paper says, sinks matter less to the DLM, in nats of each model's own loss. But
#   they do matter to it: for scale, making half of its weights zero costs 0.30 nats ([notebook
#   03](03_leaving_sinks_out.ipynb)).
# * **What this rests on.** The middle third was chosen after the costs of all layers had been seen.
#   Thirds were measured on short natural text without a special first token, and on nothing else.
# * **In the early third it looks the other way round**: hiding costs the AR model 0.035 and the DLM
#   0.12 nats per token. After Holm's correction that is undecided, and another key takes over
#   there, too.
# * **Hidden in all layers, sinks do not go away.** Another key takes over, and alone receives much
#   of what the five had together. The cost is −0.021 [−0.043, 0.0018] in the AR model and 0.17
#   [0.12, 0.21] in the DLM. It says how well a model does with other sinks, and not whether it
#   needs any.
# * **In longer texts the strongest keys, hidden in all layers, are not seen to cost the DLM more
#   than random ones.** Over 512 and 1,024 tokens the five strongest cost it −0.016 [−0.057, 0.026]
#   and 0.013 [−0.0035, 0.030] (12 texts each). Where as large a share of the keys is hidden as in
#   short texts, it is 0.038 [−0.043, 0.12] and 0.062 [−0.057, 0.18]. Here, too, another key may
#   have taken over.
# * **Position 0 alone**, hidden in all layers, costs the DLM −0.0090 [−0.028, 0.010] and the AR
#   model 0.015 [0.0031, 0.026] beyond what one random key costs.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
Folded(listed(found))

# %% [markdown]
# ## Exercises
#
# 1. Set `counts` to `[5, 8]`. Expect hiding to cost more with every key, random ones included.
# 2. Set `twin` to `smol-ar`, the base. Does its first token matter more to it, or less?
#
# **What this does not show.** There is one pair of small models. A nat of a DLM's bound and a nat
# of an AR model's likelihood are not the same loss; the AR model predicts better and has more to
# lose. It was trained on far less text, as its base was autoregressive already. A model that forms
# a new sink may still need one. Hidden sinks push attention to places it was not trained for: a
# model trained without sinks may need none. Keys are chosen by their mean over layers and heads; in
# the AR model the choice has seen the whole text. There are few long texts, and unlike short ones
# they run over paragraphs.
