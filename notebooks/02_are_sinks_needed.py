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
# # 02 · Are sinks essential?
#
# **Question.** [The paper](https://arxiv.org/abs/2602.17664) calls attention sinks, the few tokens
# that receive most attention, less essential in a diffusion model (DLM) than in an autoregressive
# one (AR). Notebook 01 asks whether they move. A sink that moves may still be needed. So hide the
# keys that receive most attention, or as many others, and see what that costs.

# %% [markdown] tags=["answer"]
# **Answer.** The DLM needs its sinks less than its AR twin does. With attention to the five
# strongest keys blocked in the middle third of the layers, the AR model loses 0.72 nats per token
# more than with five random keys blocked, and the DLM 0.31. Blocked in all layers, sinks do not go
# away: another key takes over, so that this says how well a model does with other sinks, and not
# whether it needs any.
#
# The picture to look at is [what hiding sinks costs, by
# layers](../figures/02_are_sinks_needed/layers.png).

# %% [markdown]
# Time and memory, of profiles quick and hour: [docs/performance.md](../docs/performance.md).

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes. Stored outputs may be of
# a larger [profile](../docs/glossary.md): the set-up says which values it had. The first values of
# `texts`, `first_tokens`, `lengths` and `samplers` make the main condition, on which verdicts rest.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on a part of its text
base: str = "smol-ar"  # what both were trained from, reported beside them
texts: list[str] = ["natural"]  # of sequences: natural, samples, documentation
first_tokens: list[bool] = [False, True]  # whether <|endoftext|> stands before the text
lengths: list[int] = [64]  # tokens per sequence, a special first token not counted; e.g. 512
counts: list[int] = [5]  # numbers of keys to hide; verdicts are read at 5
thirds: list[str] = ["middle"]  # of the layers, to hide keys in one alone: early, middle, late
sequences: int = 3  # held-out sequences to score in each condition
long_sequences: int = 8  # the same at the lengths after the first
same_tokens: bool = True  # score the same tokens with a first token as without, not one more
same_share: bool = False  # at these lengths, also hide as large a share of the keys
draws: int = 1  # noise draws per sequence
prompts: int = 2  # held-out prompts to continue
prompt_length: int = 24  # tokens of each prompt
written: int = 16  # tokens to write
samplers: list[str] = ["llada"]  # that write: llada, dream
steps: int = 4  # denoising steps
temperature: float = 1.0  # of both models' samples
seed: int = 0  # of the choice of text and of the samplers
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("02_are_sinks_needed", globals())

# %% [markdown]
# ## The claim
#
# > indicating that sinks are often transient and less structurally essential than in AR models.
# > (abstract)
#
# **What would falsify it.** On the same text, hiding its sinks in the middle third of the layers
# costs the DLM more than the AR model: the whole interval of the difference lies above zero. This
# third was chosen after the costs of all layers had been seen. Hidden in all layers, sinks do not
# go away, as another key takes over; that is measured beside it.
#
# **Under which conditions.** The main condition is natural English that begins in the middle of a
# paragraph, without a special first token. Every other condition differs in one thing, as far as
# there is text for it: the same text with `<|endoftext|>` before it, other text, longer text.
#
# ## The intervention
#
# Only its own query sees a hidden key; the attention of every other query is renormalised, as
# softmax does. A first forward over the same state tells how much attention each key receives, and
# so which keys are hidden:
#
# * **strongest**: the keys that receive most. In the DLM they are chosen at each noised state, and
#   masks can be among them. In the AR model the later half of the queries chooses, among keys that
#   all of them see, and the keys are hidden from every later query.
# * **random**: as many that are neither among those nor sinks, with as many masks among them;
#   otherwise a text would be compared with blanks.
# * **first token kept**: the strongest, with position 0 never among them.
# * **first token**: position 0 alone, special or not. It is compared with one key at another
#   position, a random one or the strongest.
#
# One key and five are hidden in every condition; in the main one also all of `counts`, and five in
# one third of the layers alone. Five are a smaller share of a longer text, so with `same_share` as
# large a share is hidden there, too.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import sink_conditions
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.hiding import Hiding

COUNT = 5  # where verdicts are read
if max(counts) > min(lengths) // 8:
    raise ValueError(
        f"counts={counts} must not exceed {min(lengths) // 8}, an eighth of the shortest of "
        f"lengths={lengths}: as many random keys must be left"
    )
conditions = sink_conditions.conditions(texts, first_tokens, lengths, ["llada"])
main = conditions[0]
one_key = [Hiding("first", 1), Hiding("random", 1, first=False)]
by_count = {
    count: [Hiding("top", count), Hiding("random", count), Hiding("top", count, first=False)]
    for count in sorted({1, COUNT, *counts})
}
thirds = list(dict.fromkeys(thirds))
in_thirds = [Hiding(keys, COUNT, layers=third) for third in thirds for keys in ("top", "random")]
few = [*one_key, *by_count[1], *by_count[COUNT]]
every = [*one_key, *(hiding for hidings in by_count.values() for hiding in hidings), *in_thirds]
shared_counts = {}  # of longer texts: how many keys are as large a share as five of the shortest
for condition in conditions:
    count = round(COUNT * condition.tokens / main.tokens)
    if same_share and count > COUNT:
        shared_counts[condition] = count
dlm, ar = load(model, dtype, run.device), load(twin, dtype, run.device)
prints = {lm.name: lm.fingerprint() for lm in (dlm, ar)}

# %% [markdown]
# **A hidden key in code.** An attention mask takes the five strongest keys of one text from all
# queries but their own. The library, which does the same in chosen layers and at every state, must
# give the same hidden states.

# %%
import torch
from sinkprune_core.sinks import attention
from sinkprune_core.sinks.hiding import hiding_model

texts_of_main = sink_conditions.prompts(dlm.tokenizer, main, sequences, main.tokens, seed)
ids_1T = next(iter(texts_of_main.values()))[:1].to(dlm.device)
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
print(f"the {COUNT} keys that are hidden had {share:.0%} of the attention")

# %% [markdown]
# ## Scoring without sinks
#
# The DLM's NELBO and the AR model's exact likelihood on the same held-out text. The DLM sees the
# same noise in every variant. Both count all tokens of a text but its first, which is context, also
# where `<|endoftext|>` stands before it (with `same_tokens`; without, it counts there). The
# *excess* is what hiding costs: nats per token above the model that sees all keys, paired by
# sequence and noise. Where paragraphs are too short, as in documentation and for long texts, a text
# runs over several of them. Long ones of natural English then show `<unk>`, WikiText-2's sign for a
# rare word.

# %%
import pandas as pd
from sinkprune_companion.experiments.hiding_scores import hiding_scores


def scored(lm, fingerprint: str, condition, hidings: list[Hiding]) -> pd.DataFrame:
    count = sequences if condition.tokens == main.tokens else long_sequences
    ids = sink_conditions.prompts(lm.tokenizer, condition, count, condition.tokens, seed)
    first_scored = 2 if condition.first_token and same_tokens else 1
    frame = hiding_scores(run, lm, fingerprint, hidings, ids, draws, first_scored)
    what = condition.begins
    if condition.tokens != main.tokens:
        what += f", {condition.tokens:,} tokens"
    frame = frame.assign(condition=condition.name(main) or "main", what=what)
    keys = shared_counts.get(condition)
    frame.loc[frame["count"] == keys, "what"] += f", {keys} keys"
    return frame


parts = []
for condition in conditions:
    hidings = list(every if condition == main else few)
    if condition in shared_counts:
        hidings += [Hiding(keys, shared_counts[condition]) for keys in ("top", "random")]
    parts += [scored(lm, prints[lm.name], condition, hidings) for lm in (dlm, ar)]
all_scores = pd.concat(parts, ignore_index=True)
scores = all_scores[all_scores.layers == "all"]
of_main = all_scores[all_scores.condition == "main"]
in_main = scores[scores.condition == "main"]

# %% [markdown]
# **Differences**, paired by sequence: the excess of one side minus that of the other. A side is a
# model, a choice of keys and their number.

# %%
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

# %% [markdown]
# All of them under every condition; the main ones also in one third of the layers, and with as large
# a share of a longer text hidden. The ending of a name says which:

# %%
from sinkprune.evaluation.intervals import interval


def by_unit(frame: pd.DataFrame, lm, label: str, count: int):
    """The excess of one model and hiding, by sequence or prompt."""
    part = frame[(frame.model == lm.name) & (frame.label == label) & (frame["count"] == count)]
    return part.sort_values("sequence").excess.to_numpy()


def contrast(frame: pd.DataFrame, name: str, keys: int | None = None):
    """The difference of two sides, with `keys` hidden on both where it is given."""
    one, other = (by_unit(frame, lm, label, keys or count) for lm, label, count in CONTRASTS[name])
    return interval(one - other)


found = {}
for third in thirds:
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

# %% [markdown]
# ## The finding: layer by layer
#
# The same five keys, hidden in one third of the layers alone. A key that is hidden from the first
# layer on can leave its place to another; one that is hidden later is what earlier layers made of
# it. A profile that lists no `thirds` has the row of all layers only.

# %%
from IPython.display import display
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.pages.render import title


def costs_of_keys(part: pd.DataFrame, comparison: str, count: int = COUNT) -> list[dict]:
    """A row per model: what the strongest keys cost beyond as many random ones."""
    rows = []
    for lm in (dlm, ar):
        of_random = by_unit(part, lm, "random", count)
        cost = interval(by_unit(part, lm, "strongest", count) - of_random)
        row = {"comparison": comparison, "kind": lm.kind, "keys": count, "value": cost.value}
        row |= {"low": cost.low, "high": cost.high, "sequences": cost.units}
        rows.append(row | {"random": of_random.mean()})
    return rows


COSTS = "cost beyond that of as many random keys (nats per token)"
WHERE = {"middle": "middle third", "late": "late third", "early": "early third"}
rows = []
for layers in [third for third in WHERE if third in thirds] + ["all"]:
    place = WHERE.get(layers, "all layers")
    rows += costs_of_keys(of_main[of_main.layers == layers], place)
by_layers = pd.DataFrame(rows)
says = title(run, "layers", "What hiding the five strongest keys costs, by the layers they leave")
drawn = forests.plot_costs(by_layers, COSTS, says)
decided = [name for name in found if name in MAIN_CONTRASTS or name.endswith("_layers")]
table = pd.concat([by_layers, forests.forest_table({name: found[name] for name in decided})])
figures.save_figure(run, drawn, "layers", table, f"what hiding five keys costs. {says}")

# %% [markdown]
# **Was a sink hidden at all?** Before, the hidden keys got the share `attention` of all attention.
# Once they are hidden, the strongest key that remains gets the share `left`; `second` says how
# often that is position 1. All are means over the layers where keys are hidden. Where `left` is as
# much as one sink had, another key has taken over, and the cost is not that of being without a
# sink. Without position 0, the second token of a causal model sees only itself, as the first one
# did.

# %%
strongest = of_main[(of_main.label == "strongest") & (of_main["count"] == COUNT)]
checked = strongest.groupby(["layers", "model"], sort=False)
columns = {"excess": "cost (nats per token)", "attention": "attention of the hidden keys"}
columns |= {"left": "of the strongest left (`left`)", "second": "how often position 1 (`second`)"}
checked[["excess", "attention", "left", "second"]].mean().round(3).rename(columns=columns)

# %% [markdown]
# ## More keys; other text, a special first token, longer text
#
# All in all layers. Under other conditions five keys, or where a row says so as large a share of a
# longer text as five are of the shortest.

# %%
single = in_main.label == "random, first token kept"  # measured for one key alone, below
some_hidden = in_main[(in_main["count"] > 0) & ~single]
costs = figures.intervals(some_hidden, ["model", "kind", "label", "count"], "excess")
says = title(run, "costs", "What hiding keys in all layers costs, by the number of keys")
axes = {"count": "keys hidden", "value": "cost (nats per token)"}
ends = ("low", "high")
drawn = figures.plot_curves(costs, "count", "value", "label", axes, ends, title=says, panel="model")
display(
    figures.save_figure(run, drawn, "costs", costs, f"bars: 95 % interval over sequences. {says}")
)

rows = []
for (_, what), part in scores.groupby(["condition", "what"], sort=False):
    fewest = part["count"][part["count"] >= COUNT].min()
    rows += costs_of_keys(part, what, fewest)
by_condition = pd.DataFrame(rows)
says = title(run, "conditions", "What hiding the five strongest keys costs, by condition")
drawn = forests.plot_costs(by_condition[by_condition["keys"] == COUNT], COSTS, says)
display(figures.save_figure(run, drawn, "conditions", by_condition, f"what hiding costs. {says}"))
by_condition[by_condition["keys"] != COUNT].set_index("comparison").round(3)

# %% [markdown]
# **Position 0 against another position.** One key is hidden: the first, a random other, or the
# strongest other. A model that does not depend on a special first token pays for position 0 what it
# pays for any other. Nats per token above the model with all keys.

# %%
from sinkprune.evaluation.numbers import signed_interval

POSITIONS = ["first token", "random, first token kept", "strongest, first token kept"]
one_hidden = scores[(scores["count"] == 1) & scores.label.isin(POSITIONS)]
positions = figures.intervals(one_hidden, ["what", "model", "label"], "excess")
cells = [signed_interval(row.value, row.low, row.high) for row in positions.itertuples()]
shown = positions.rename(columns={"what": "condition", "label": "one key hidden"}).assign(
    cell=cells
)
shown.pivot_table("cell", ["condition", "model"], "one key hidden", aggfunc="first", sort=False)

# %% [markdown]
# ## Writing without sinks
#
# Both models continue the same prompts, and at every step the keys that are strongest at that step
# are hidden. All variants use the same random numbers. The AR model, with no key hidden, then
# scores the text in nats per token. It prefers repetitive text, so the share of distinct neighbours
# stands beside the score. Other conditions are prompts behind `<|endoftext|>`, that token alone,
# and other samplers. From that token alone only the DLM writes: an AR model that begins with one
# key has no five to hide. The AR model has one sampler, so its rows beside Dream's repeat those of
# the main condition. Columns: the judge's nats per token (`value`), these above the text with all
# keys (`excess`), the share of tokens that changed, of neighbours that are distinct, and of attention
# that the hidden keys had had.

# %%
from sinkprune_companion.experiments.hiding_scores import hiding_texts

rules = {
    "llada": Sampler(written, steps, block=None, temperature=temperature),
    "dream": Sampler(written, steps, None, "entropy", "time", temperature),
}
variants = [Hiding("top", COUNT), Hiding("random", COUNT)]
writing = sink_conditions.conditions(
    [texts[0], sink_conditions.NOTHING], first_tokens, [prompt_length + written], samplers
)


def wrote(lm, condition) -> pd.DataFrame:
    chosen = sink_conditions.prompts(lm.tokenizer, condition, prompts, prompt_length, seed)
    prompt_NT = torch.cat(list(chosen.values()))
    rule = rules[condition.sampler if lm.is_diffusion else samplers[0]]
    frame = hiding_texts(run, lm, ar, prints, variants, prompt_NT, rule, seed)
    return frame.assign(condition=condition.name(writing[0]) or "main")


parts = []
for condition in writing:
    writers = [dlm] if condition.text == sink_conditions.NOTHING else [dlm, ar]
    parts += [wrote(lm, condition) for lm in writers]
texts_written = pd.concat(parts, ignore_index=True)
columns = ["value", "excess", "changed", "distinct", "attention"]
texts_written.groupby(["condition", "model", "label"], sort=False)[columns].mean().round(3)

# %% [markdown]
# One prompt, with what was hidden in front of each text:

# %%
shown = texts_written[(texts_written.sequence == 0) & (texts_written.condition == "main")]
first = sink_conditions.prompts(dlm.tokenizer, writing[0], prompts, prompt_length, seed)[texts[0]]


def in_one_line(ids) -> str:
    return " ".join(dlm.tokenizer.decode(ids).split())


print(f"prompt: {in_one_line(first[0])}")
for row in shown.itertuples():
    text = in_one_line([int(token) for token in row.tokens.split()])
    print(f"\n{row.model}, hidden: {row.label}: {text}")

# %% [markdown]
# ## The reading
#
# Costs in it are those beyond random keys; the ledger's rows compare costs as they are. The pair
# leaves the memory for the model that both were trained from, whose rows stand among all numbers.

# %% [markdown] tags=["reading"]
# * **Hidden in the middle third of the layers, the five strongest keys cost the AR model 0.72
#   [0.68, 0.76] and the DLM 0.31 [0.27, 0.34] nats per token beyond random keys.** In the late
#   third it is 0.55 and 0.23. In both no other key takes their place: the strongest that is left
#   gets a few percent of the attention (the table below the first figure). That is the paper's
#   direction: the DLM's sinks matter less, in nats of each model's own loss. It was measured only
#   on short natural text without a special first token.
# * In the early third it turns: AR 0.035, DLM 0.12 nats per token.
# * Hidden in all layers, or in the early third, sinks do not go away: another key takes over, and
#   alone receives much of what the five had together. What this costs, −0.021 [−0.043, 0.0018] in
#   the AR model and 0.17 [0.12, 0.21] in the DLM, says how well a model does with other sinks and
#   not whether it needs any.
# * Over 512 and 1,024 tokens the five strongest keys, hidden in all layers, cost the DLM −0.016
#   [−0.057, 0.026] and 0.013 [−0.0035, 0.030] (12 texts each). It is undecided where as large a
#   share of the keys is hidden: 0.038 [−0.043, 0.12] and 0.062 [−0.057, 0.18].
# * Hidden in all layers while the models write: 0.079 nats per token [−0.84, 1.0], DLM − AR, on 12
#   prompts. That is too wide to say anything.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded, results_table

for lm in (dlm, ar):
    lm.model.to("meta")  # names and tokenizers are all that is needed of them from here on
original = load(base, dtype, run.device)
base_scores = scored(original, original.fingerprint(), main, few)
top = by_unit(in_main, dlm, "strongest", COUNT)
found["excess_difference_base"] = interval(top - by_unit(base_scores, original, "strongest", COUNT))
for condition, part in texts_written.groupby("condition", sort=False):
    ending = "" if condition == "main" else f"_{condition}"
    top = by_unit(part, dlm, "strongest", COUNT)
    beyond = top - by_unit(part, dlm, "random", COUNT)
    found[f"written_top_minus_random_dlm{ending}"] = interval(beyond)
    if (part.model == ar.name).any():
        difference = top - by_unit(part, ar, "strongest", COUNT)
        found[f"written_difference{ending}"] = interval(difference)
run.find(found)
display(results_table(run))
Folded(listed(found))

# %% [markdown]
# ## Exercises
#
# 1. Set `counts` to `[5, 8]`. Expect hiding to cost more with every key, random ones included.
# 2. Set `twin` to `smol-ar`, the base. Does its first token matter more to it, or less?
#
# **What this does not show.** One pair of small models. A nat of a DLM's bound and a nat of an AR
# model's likelihood are not the same loss; the AR model predicts better and has more to lose. It was
# trained on far less text, as its base was autoregressive already. A
# model that forms a new sink may still need one. Hidden sinks push attention to places it was not
# trained for: a model trained without sinks may need none. Keys are chosen by their mean over
# layers and heads; in the AR model the choice has seen the whole text. There are few long texts,
# and unlike short ones they run over paragraphs. The AR model's score of a text is not a reader's.
