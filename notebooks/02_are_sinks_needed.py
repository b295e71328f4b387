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
# **Answer.** It depends on the layers: hidden in their middle or late third, the five strongest
# tokens cost the AR model more than the DLM, as the paper says, and hidden in the early third or in
# all layers they cost the DLM more. In these last two cases another token becomes the sink, so only
# the first two say what it is to be without one, and the middle third was chosen when the numbers
# had been seen.
#
# ![What hiding the five strongest tokens costs both models beyond five random ones, by
# layers](../figures/02_are_sinks_needed/layers.png)
#
# - **What hiding adds to the loss,** DLM − AR: −0.43 [−0.48, −0.38] nats per token in the middle
#   third, −0.31 in the late third, 0.045 in the early third, and 0.14 in all layers.
# - **Another token becomes the sink** where sinks are hidden in all layers, as [this
#   picture](../figures/02_are_sinks_needed/taken_over.png) shows.

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
from sinkprune_companion.experiments.parameters import start

run = start("02_are_sinks_needed", globals())

# %% [markdown]
# ## Hide a sink, and look
#
# Both models read one text, the AR model on the left and the DLM on the right. Each row is a layer,
# each column a token, and bright tokens receive many times the mean attention. In the upper
# pictures the model has all its keys. In the middle ones its five strongest keys are hidden in
# every layer, in the lower ones in the middle third of the layers alone. Hidden keys are grey.
#
# The columns are the tokens of the first half of the text. The AR model reads all of it, and what
# counts is the attention of the second half, as these tokens see all columns. The DLM reads the
# first half alone, without masks.
#
# **What to look for.** A new bright column in a middle picture is a key that has *taken over*: the
# model has made itself another sink, so it was not without one. Both models do this; in this text
# the AR model has two such keys. In the lower pictures, in the rows of the middle third (layers 10
# to 19), no column is as bright.

# %%
from sinkprune.figures import trajectories
from sinkprune.models.loading import load
from sinkprune_companion.experiments import hiding_scores, sink_conditions
from sinkprune_companion.figures.titles import draw

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
told["named"] = "hidden keys (top and bottom row) and keys that take over (middle row)"
plain = "Attention with all keys, and without the five strongest"
draw(run, "taken_over", plain, trajectories.plot_sink_positions, panels, **told)

# %% [markdown]
# ## The claim
#
# > indicating that sinks are often transient and less structurally essential than in AR models.
# > (abstract)
#
# **How it is judged.** On the same text, what hiding its sinks costs the DLM is held against what
# hiding theirs costs the AR model. The *cost* is how much the loss rises. It is measured in the
# early, the middle and the late third of the layers, in all of them, and for two models trained
# from scratch. Where the answer turns with such a condition, the verdict is *depends on the
# condition*. We wrote this question, and chose the middle third first, after we had seen costs.
# **So the comparison is exploratory**: whatever its verdict, other models or texts have to confirm
# it.
#
# **Which keys are hidden.** Verdicts are read where five keys are hidden, so that a text that has
# several sinks loses all or most of them. Often one key has most of the attention of the five. What
# this one costs alone was measured in all layers (the figure by the number of keys), but not in a
# third of the layers.
#
# A first pass over the same text, with the same masks as when it is scored, tells how much
# attention each key receives:
#
# * **strongest** are the keys that receive most. The DLM reads the text under several masks, and
#   for each its strongest keys are chosen anew; masks can be among them. In the AR model the keys
#   are those of the first half of the text, and what counts is how much attention they receive from
#   the second half, where every query sees all of them. A chosen key is then hidden from every
#   query after it.
# * **random** are as many other keys that are no sinks, in the AR model from the first half, too.
#   The random set should contain as many masks as the strongest. In heavily masked texts there are
#   too few words left, so on average it contains more masks (a table below has both numbers). Hiding
#   it removes fewer words and costs less. This makes the DLM's extra cost look larger.
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
from sinkprune_companion.hiding import Hiding, hiding_model
from sinkprune_core.sinks import attention

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
# Both models score the same held-out text, every token of it but the first. The DLM's loss is its
# NELBO, a bound on the negative log-likelihood (see [notebook 00](00_start_here.ipynb)), under the
# same masks whatever is hidden; the AR model's is the exact likelihood. The first half of the AR
# model's text is scored, too; there a hidden key is missing only from the queries after it.
#
# Two measures are kept apart:
#
# * The *cost* of hiding is the loss above that of the model with all keys, paired by sequence and
#   masks. Verdicts on the difference of the models rest on it.
# * The *extra cost* of the strongest keys is their cost less that of as many random keys, as hiding
#   any key takes away a word, too. The pictures by layers and by condition show it. The table below
#   the picture by layers has both measures.
#
# The main condition is natural English that begins in the middle of a paragraph, without a special
# first token. Every other condition differs in one thing, except that not all kinds of text are
# long enough for the greater lengths. Long natural texts show `<unk>`, WikiText-2's sign for a rare
# word.

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
# **Layer by layer.** The same five keys are hidden in one third of the layers alone. The picture
# has the extra cost of each model. A profile that lists no `thirds` has the row of all layers only.

# %%
from sinkprune_companion.figures import forests

COSTS = "extra cost: strongest less random keys (nats per token)"
WHERE = {"early": "early third", "middle": "middle third", "late": "late third"}
LAYERS = [third for third in WHERE if third in thirds] + ["all"]
rows = []
for layers in LAYERS:
    part = of_main[of_main.layers == layers]
    rows += hiding_scores.costs_beyond_random(part, (dlm, ar), WHERE.get(layers, "all layers"))
by_layers = pd.DataFrame(rows)

# %% [markdown]
# **Differences and their names.** The verdicts and the reading take these differences and others.
# Their names stand in the list of all numbers at the end, too:
#
# | name | what it is |
# |---|---|
# | `excess_difference` | cost of the strongest keys, DLM − AR: verdicts rest on it |
# | `excess_difference_without_first` | the same, position 0 never among them |
# | `extra_cost_difference` | extra cost of the strongest keys, DLM − AR |
# | `top_minus_random_dlm`, `…_ar` | extra cost of the strongest keys in one model |
# | `first_minus_random_dlm`, `…_ar` | cost of position 0, less that of one random other key |
# | `first_minus_other_dlm` | cost of position 0, less that of the strongest other key |
#
# So `excess` is what the text calls the cost. An ending says in which layers or under which
# condition.

# %%
from sinkprune.evaluation.intervals import interval
from sinkprune_companion.experiments.sink_measures import KINDS, SHORT

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


def extra_cost_difference(frame: pd.DataFrame):
    """The extra cost of the five strongest keys in the DLM less that in the AR model."""
    of_dlm, of_ar = (
        hiding_scores.excess_of(frame, lm, "strongest", COUNT)
        - hiding_scores.excess_of(frame, lm, "random", COUNT)
        for lm in (dlm, ar)
    )
    return interval(of_dlm - of_ar)


# %% [markdown]
# All findings, in this order: the loss of each model with all keys, the differences by third of the
# layers, by condition, and with equal shares of the keys hidden.

# %%
all_keys = of_main[of_main["count"] == 0]
found = {
    f"loss_{short}": interval(all_keys.value[all_keys.kind == kind])
    for kind, short in SHORT.items()
}

for third in dict.fromkeys(thirds):
    part = of_main[of_main.layers == third]
    found |= {f"{name}_{third}_layers": contrast(part, name) for name in MAIN_CONTRASTS}
    found[f"extra_cost_difference_{third}_layers"] = extra_cost_difference(part)

for condition, part in scores.groupby("condition", sort=False):
    ending = "" if condition == "main" else f"_{condition}"
    found |= {name + ending: contrast(part, name) for name in CONTRASTS}

for condition, keys in shared_counts.items():
    part = scores[scores.condition == condition.name(main)]
    ending = f"_{condition.name(main)}_same_share"
    found |= {name + ending: contrast(part, name, keys) for name in MAIN_CONTRASTS}

run.find(found)

# %% [markdown]
# The picture shows the extra cost of the five strongest keys, by the layers in which they are
# hidden.

# %%
decided = [name for name in found if name in MAIN_CONTRASTS or name.endswith("_layers")]
table = pd.concat([by_layers, forests.forest_table({name: found[name] for name in decided})])
told = {"data": table, "caption": "what hiding five keys costs"}
plain = "What hiding the five strongest keys costs, by the layers they leave"
draw(run, "layers", plain, forests.plot_costs, by_layers, COSTS, **told)

# %% [markdown]
# **Cost and extra cost.** The table has both measures, in nats per token, with the cost of five
# random keys, by which they differ. The last two columns are the differences of the models. The
# first of these decides the verdicts, and the picture shows the extra costs, whose difference is
# the second.

# %%
from sinkprune.evaluation.numbers import signed_interval

of_five = of_main[of_main["count"] == COUNT]
cost = of_five.groupby(["layers", "label", "kind"]).excess.mean()


def in_brackets(estimate) -> str:
    """A difference with its interval."""
    return signed_interval(estimate.value, estimate.low, estimate.high)


rows = {}
for layers in LAYERS:
    part = of_main[of_main.layers == layers]
    row = {}
    for kind, short in KINDS.items():
        strongest, of_random = (cost[layers, label, kind] for label in ("strongest", "random"))
        row[short, "cost of the strongest"] = f"{strongest:.3f}"
        row[short, "cost of random keys"] = f"{of_random:.3f}"
        row[short, "extra cost"] = f"{strongest - of_random:.3f}"
    of_costs, of_extra = contrast(part, "excess_difference"), extra_cost_difference(part)
    row["DLM − AR", "cost (verdicts)"] = in_brackets(of_costs)
    row["DLM − AR", "extra cost (picture)"] = in_brackets(of_extra)
    rows[WHERE.get(layers, "all layers")] = row
table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="keys hidden in"))
table.columns = pd.MultiIndex.from_tuples(table.columns)
table

# %% [markdown]
# **Was a sink hidden at all?** The next table has shares of attention, as means over the layers
# where keys are hidden:
#
# * *five strongest, before*: what the five strongest keys together had before they were hidden;
# * *strongest key, before*: what the strongest single key has while it is there. Five random keys
#   are hidden then;
# * *strongest key, after*: what the strongest of the remaining keys gets when the five are hidden.
#
# If the strongest key after hiding gets about as much attention as the strongest key before, a new
# sink has formed, as in the first picture. The cost then does not tell what it is to be without a
# sink.
# The table also shows that the five keys are nearly one key: in the middle and late third the
# strongest one alone has most of what the five have together.
#
# The last column says how often the strongest key after hiding is position 1. In a causal model this
# is a likely place: once position 0 is hidden, the query at position 1 sees only itself, as the
# query at position 0 did before.

# %%
means = (
    of_five.groupby(["layers", "kind", "label"], sort=False)[["attention", "left", "second"]]
    .mean()
    .unstack()
)
checked = pd.DataFrame(
    {
        "five strongest, before": means["attention", "strongest"],
        "strongest key, before": means["left", "random"],
        "strongest key, after": means["left", "strongest"],
        "after: how often position 1": means["second", "strongest"],
    }
)
names = {**WHERE, "all": "all layers", **KINDS}
checked.rename(index=names).rename_axis(index=["keys hidden in", "model"]).round(3)

# %% [markdown]
# **Masks, and the models with all keys.** Random keys of the DLM contain more masks than its
# strongest ones. Which keys are hidden does not depend on the layers in which they are.

# %%
all_keys = of_main[of_main["count"] == 0].groupby("kind", sort=False)
one_hidden = of_main[(of_main["count"] == 1) & (of_main.label == "strongest")]
masks = of_five[of_five.layers == "all"].groupby(["label", "kind"]).masks.mean()
about = {
    "masks among the five strongest": masks["strongest"],
    "masks among five random keys": masks["random"],
    "loss with all keys": all_keys.value.mean(),
    "how often the strongest key is position 0": one_hidden.groupby("kind")["first"].mean(),
}
pd.DataFrame(about).rename(index=KINDS).rename_axis(index="model").round(3)

# %% [markdown]
# ## More keys; other text, a special first token, longer text
#
# From here on keys are hidden in all layers. This figure varies the number of keys, from one alone,
# and shows costs.

# %%
from sinkprune_companion.figures import figures

in_main = scores[scores.condition == "main"]
single = in_main.label == "random, first token kept"  # measured for one key alone, below
some_hidden = in_main[(in_main["count"] > 0) & ~single]
costs = figures.intervals(some_hidden, ["model", "kind", "label", "count"], "excess")
costs = costs.assign(panel=costs.kind.map(KINDS))
axes = {"count": "keys hidden", "value": "cost (nats per token)"}
curves = (costs, "count", "value", "label", axes, ("low", "high"))
told = {"data": costs, "caption": "bars: 95 % interval over sequences", "panel": "panel"}
told["dodge"] = True  # side by side, as some of them cost the same
plain = "What hiding keys in all layers costs, by the number of keys"
draw(run, "costs", plain, figures.plot_curves, *curves, **told)

# %% [markdown]
# The next figure hides five keys under other conditions and shows extra costs.

# %%
rows = []
for (_, what), part in scores.groupby(["condition", "what"], sort=False):
    fewest = part["count"][part["count"] >= COUNT].min()
    rows += hiding_scores.costs_beyond_random(part, (dlm, ar), what, fewest)
by_condition = pd.DataFrame(rows)
five = by_condition[by_condition["keys"] == COUNT]
named = [f"{row.comparison}; {row.sequences}\N{NO-BREAK SPACE}texts" for row in five.itertuples()]
five = five.assign(comparison=named)
told = {"data": by_condition, "caption": "what hiding costs"}
plain = "What hiding the five strongest keys costs, by condition"
draw(run, "conditions", plain, forests.plot_costs, five, COSTS, **told)

# %% [markdown]
# In longer texts more keys are hidden, too: as large a share of the keys as five are in the
# shortest. Costs are in nats per token.

# %%
more = by_condition[by_condition["keys"] != COUNT].replace({"kind": KINDS})
limits = zip(more.value, more.low, more.high, strict=True)
more = more.assign(value=[signed_interval(*each) for each in limits]).round(3)
columns = {"comparison": "condition", "kind": "model", "sequences": "texts"}
columns |= {"value": "extra cost of the strongest", "random": "cost of random keys"}
more.rename(columns=columns)[[*columns.values()]].set_index(["condition", "model"])

# %% [markdown]
# **Position 0 against another position.** One key is hidden: the first, a random other, or the
# strongest other. A model that does not depend on a special first token pays for position 0 what it
# pays for any other. The numbers are costs in nats per token.

# %%
POSITIONS = ["first token", "random, first token kept", "strongest, first token kept"]
one_hidden = scores[(scores["count"] == 1) & scores.label.isin(POSITIONS)]
positions = figures.intervals(one_hidden, ["what", "kind", "label"], "excess")
cells = [signed_interval(row.value, row.low, row.high) for row in positions.itertuples()]
words = {"what": "condition", "kind": "model", "label": "one key hidden"}
shown = positions.replace({"kind": KINDS}).rename(columns=words).assign(cell=cells)
shown.pivot_table("cell", ["condition", "model"], "one key hidden", aggfunc="first", sort=False)

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **Without a sink both models get worse, and the AR model by more.** Hidden in the middle third
#   of the layers, the five strongest tokens cost the AR model 0.72 [0.68, 0.76] nats per token more
#   than random tokens do, and the DLM 0.31 [0.27, 0.34]; in the late third it is 0.55 and 0.23. No
#   other token takes their place there: the strongest that is left gets a few percent of the
#   attention.
# * **Elsewhere a sink is replaced, and the DLM loses more.** Hidden in all layers or in the early
#   third, the sink is followed by another, which gets about as much attention. The costs differ,
#   DLM − AR, by 0.14 [0.10, 0.19] and 0.045 [0.0085, 0.081]. This says how well a model does with
#   another sink, and not whether it needs one.
# * **In longer texts no extra cost is seen.** There the five strongest tokens were hidden in all
#   layers alone, and what they cost the DLM beyond random ones is −0.016 [−0.057, 0.026] over 512
#   tokens and 0.013 [−0.0035, 0.030] over 1,024.
#
# **What this does not show.** With all tokens in sight the AR model's loss is 3.22 and the DLM's
# 4.50, so the AR model may have more to lose. Thirds of the layers were measured on short natural
# text alone. A pair [from scratch](09_from_scratch.ipynb) has no such cost, and is too weak to show
# one. [Controls](../docs/controls.md) has the rest.
#
# <details><summary>Two measures, and the first token</summary>
#
# * Verdicts rest on the whole cost, from which that of random tokens is not subtracted. In the
#   middle third it differs by −0.43 [−0.48, −0.38], and the extra cost, which the pictures show, by
#   −0.41 [−0.47, −0.36].
# * The first token alone, hidden in all layers, costs the DLM −0.0090 [−0.028, 0.010] more than one
#   random token, and the AR model 0.015 [0.0031, 0.026]. A special first token costs less than a
#   random one: −0.063 [−0.097, −0.030] and −0.040 [−0.057, −0.023].
#
# </details>

# %%
from IPython.display import display
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
# of an AR model's likelihood are not the same loss. The AR model has the lower loss with all keys,
# and may have more to lose. It was trained on far less text, as its base was autoregressive
# already. A model that forms a new sink may still need one. Hidden sinks push attention to places
# it was not trained for: a model trained without sinks may need none. Keys are chosen by their mean
# over layers and heads; in the AR model the choice has seen the whole text. There are few long
# texts, and unlike short ones they run over paragraphs.
