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
# # 03 · Does leaving sinks out give better pruned models?
#
# **Question.** Pruning scores weights by statistics of calibration text. Does it help to leave the
# attention sinks out of these statistics: all of them, which the official code does softly, by giving
# them less weight, or only the unstable ones, as the abstract says? First this is asked on WikiText-2, as in the paper, and then on other text; with
# Wanda and with SparseGPT; for single weights, for whole units, and for 2:4 zeros, which are two
# zeros among every four weights.

# %% [markdown] tags=["answer"]
# **Answer.** On WikiText-2, as in the paper, leaving sinks out of Wanda's statistics makes no
# difference that matters, with half of the weights zero and with three quarters. With SparseGPT and
# for whole units it is undecided, and all of this is one model of 135 million weights.
#
# ![Differences in loss at 50 %: all that concern sinks lie in the grey band, SparseGPT lies far to
# its left.](../figures/03_leaving_sinks_out/protocol_50.png)
#
# * **Half of the weights zero.** Leaving unstable sinks out changes the loss by −0.00058 nats per
#   token [−0.0041, 0.0029] and leaving all out by −0.00075 [−0.0044, 0.0029]; 0.014 would matter.
# * **The official recipe** as a whole differs from Wanda by −0.0015 [−0.012, 0.0089], which is
#   undecided after correction.
# * **SparseGPT** does help: its loss is lower than Wanda's by 0.16.

# %% [markdown]
# Words are those of the [glossary](../docs/glossary.md). The loss of the diffusion model is its
# NELBO, an upper bound on the negative log-likelihood, in nats per token. What a recipe *costs* is
# how far the loss of the pruned model lies above that of the dense one. A *calibration draw* is one
# random choice of the calibration text.
#
# **Parameters**, with the values that *Run all* takes, which takes minutes. The pictures and
# numbers stored on this page are of a larger run, whose values the set-up below lists.
# [docs/performance.md](../docs/performance.md) has times and memory.

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
# the paper's protocol: calibrated on WikiText-2, scored on other articles
protocol_tokens: int = 1024  # calibration tokens of every recipe in the paper's protocol
protocol_draws: int = 1  # its calibration draws at 50 %
protocol_sequences: int = 12  # its scored sequences
protocol_sparsities: list[float] = []  # other shares of zeros in the paper's protocol
protocol_ratios: list[float] = []  # shares of the weights that whole units have there
# other text, as a control; the recipes are those of the protocol, too
recipes: list[str] | None = [
    "wanda",
    "noised-dense",
    "paper",
    "all-sinks",
    "unstable",
    "sparsegpt",
    "paper-sparsegpt",
    "structured",
    "structured-sink",
]  # presets to measure, of those below; null: all
sparsities: list[float] = [0.5]  # shares of zeros; verdicts are read at 0.5
calibration: int = 2  # calibration sequences of noised recipes; clean ones get as many tokens
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
seeds: int = 1  # calibration draws

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
protocol_other_draws: int = 1  # its calibration draws there, and of whole units
protocol_large_tokens: int = 0  # more calibration tokens for Wanda and the official recipe at 50 %
protocol_large_draws: int = 1  # calibration draws with that many
protocol_long: int = 0  # tokens of long calibration sequences, as the paper's are; 0: not measured
protocol_long_sequences: int = 64  # how many of them
protocol_long_draws: int = 1  # calibration draws of them
protocol_answer_draws: int = 0  # calibration draws in which models answer two-choice items
protocol_item_draws: int = 1  # ways to mask an ending there
# other text: what is measured
sparsegpt_sparsities: list[float] = []  # where SparseGPT has `sparsegpt_draws`, if need be alone
patterns: list[str] = []  # N zeros in every M consecutive inputs, e.g. 2:4, 4:8
ratios: list[float] = [0.5]  # shares of the weights that structured pruning removes
answer_sparsities: list[float] = [0.5]  # at which pruned models answer two-choice items
twin: str = "smol-ar-adapted"  # its autoregressive twin, trained on a part of its text
twin_sparsities: list[float] = [0.5]  # shares of zeros in the AR twin
# how much of it, and in how many calibration draws
draws: int = 1  # noise draws per sequence
own_noise: bool = True  # each calibration draw is scored under noise of its own; else all under one
items: int = 24  # items of the offline suite, of 1,512
blimp_pairs: int = 1  # minimal pairs of each of BLiMP's 67 paradigms, of 60
item_draws: int = 1  # ways to mask an ending
noise_levels: int = 4  # noise levels per calibration sequence; official recipes have ten
length: int = 64  # tokens per sequence
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
other_draws: int = 1  # the same for controls and other sparsities
sparsegpt_draws: int = 1  # the same for SparseGPT at `sparsegpt_sparsities`
pattern_draws: int = 1  # the same for Wanda and the official recipe with N:M zeros
unit_draws: int = 1  # the same for other recipes with N:M zeros, and for structured pruning
answer_draws: int = 1  # the same for two-choice items, and sparsities where only they are asked
# which tokens are sinks
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of levels is stable
# the machine
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("03_leaving_sinks_out", globals())

# %% [markdown]
# ## The claim
#
# > we propose Sink-Aware Pruning, which automatically identifies and prunes unstable sinks in DLMs
# (prior studies usually keep sinks for AR LLMs). Without retraining, our method achieves a better
# quality-efficiency trade-off and outperforms strong prior pruning baselines under matched compute.
# (abstract)
#
# For LLaDA-8B with half of its weights zero the paper reports averages over eight tasks: dense
# 57.93, Wanda 52.70, the method 53.18, SparseGPT 52.34, SparseGPT with sink weights 52.36. So the
# method gives back 9.18 % of what Wanda lost. Here the *margin*, the smallest difference that
# matters, is 4.59 % of what the second of two recipes costs. That is half of the paper's share, and
# our choice. A gain as large as the paper's over Wanda could not be called negligible. Its gain over
# SparseGPT is about a thirteenth of the margin, and we could not have seen it.
#
# **How a verdict is made.** One rule decides every difference of this notebook. It takes the 95 %
# interval and p, and the first of these that fits is the verdict:
#
# 1. *Too few draws*: the difference rests on fewer than five calibration draws.
# 2. *No difference that matters*: the interval lies wholly between −margin and +margin, and a
#    difference as large as the margin has p below 0.05, corrected as in 3. This is so even where the
#    interval excludes zero, and it does not support the claim.
# 3. *Helps* or *hurts*: the interval lies on one side of zero, and p is below 0.05 after correction.
#    p is multiplied by how often we looked at the result while it could still have decided, and
#    then corrected for related questions (Holm).
# 4. *Undecided*: none of these.
#
# A row that also stands in the claims table has its verdict from there. Rows that were not asked
# beforehand are corrected for the rows beside them.
#
# **What would falsify the claim.** The claim is contradicted if the method's loss is shown to be
# higher than the baseline's. To test whether the sinks are the reason, the same rule is applied to
# two recipes that differ in the sinks alone.

# %% [markdown]
# ## The paper's protocol
#
# The paper calibrates on WikiText-2 and scores on text that calibration has not seen. Here
# calibration text is crops of WikiText-2's validation split, as its training split is not shipped,
# and scored text is articles of its test split. Every recipe sees equally many tokens; one that
# sees each sequence at several noise levels gets fewer sequences. The claims on pruning are judged
# here.
#
# * **Wanda** scores a weight by its size times the norm of its input, on clean text. It prunes
#   block after block, and each block is calibrated on what the pruned ones before it give
#   (*sequential propagation*).
# * The **official recipe** is the method of the paper's code. It changes four things at once: text
#   is noised, at ten levels; each block is calibrated on what the dense model's blocks give (*dense
#   propagation*); a norm is taken at each level, and these are added; and sinks count less.
# * **One switch**: all sinks are left out, or the unstable ones, or as many random tokens, and
#   nothing else changes. The recipe to compare with sees noised text with dense propagation, and
#   keeps all tokens.
# * **SparseGPT** also adjusts the weights that stay. With *sink weights* its sinks count less.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import paper_length, paper_protocol
from sinkprune_companion.experiments.paired_differences import above_dense

dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
draws_at = {0.5: protocol_draws} | dict.fromkeys(protocol_sparsities, protocol_other_draws)
draws_of_units = dict.fromkeys(protocol_ratios, protocol_other_draws)
cell_draws = range(first_seed, first_seed + seeds) if run.is_cell else None  # of a sweep: its own
sizes = (draws_at, draws_of_units, protocol_tokens, protocol_sequences, cell_draws, recipes)
losses = paper_protocol.protocol_losses(run, dlm, fingerprint, *sizes)
protocol = above_dense(losses)
found = paper_protocol.protocol_findings(protocol)
found |= paper_protocol.without_largest(protocol, ("unstructured", 0.5))
found["dense_loss_wikitext"] = paper_protocol.dense_loss(losses)
if protocol_large_tokens:
    large = ({0.5: protocol_large_draws}, {}, protocol_large_tokens, protocol_sequences, cell_draws)
    on_large = paper_protocol.protocol_losses(run, dlm, fingerprint, *large, paper_protocol.LARGE)
    on_large = above_dense(on_large)
    of_large = paper_protocol.protocol_findings(on_large)
    found |= paper_protocol.on_tokens(of_large, protocol_large_tokens)
    found |= paper_protocol.beside_other_amounts(protocol, on_large)
if protocol_long:
    of_cell = cell_draws or range(protocol_long_draws)
    long_draws = [seed for seed in of_cell if seed < protocol_long_draws]
    long = (protocol_long_sequences, protocol_long, protocol_sequences, long_draws)
    found |= paper_length.findings(run, dlm, fingerprint, *long)
run.find(found)

# %% [markdown]
# **At 50 %.** Each row is a difference of two recipes, and its verdict is made by the rule above.
# Left of zero the first recipe is better, and inside the grey band the difference does not matter.
# *Official sink weights − none* is the official recipe with and without its sink weights. *Masked
# text, unpruned inputs* is what this notebook calls noised text with dense propagation. Intervals
# are t intervals over draws and sequences together, so they cover new calibration text and new
# scored text.

# %%
from sinkprune_companion.figures.recipes import save_protocol

save_protocol(run, found, 0.5)

# %% [markdown]
# ## The method in code
#
# What does *sinks count less* mean? The official weight of a calibration token is one minus a
# sigmoid of how far its attention mass lies above the sink threshold, and the token's input is
# multiplied by it. The library must give the same weights as the cell:

# %%
import torch
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.token_weights import OFFICIAL_ALPHA, heads_of, rows_for
from sinkprune_core.pruning.recipe import preset

sample = calibration_draw(dlm, 2, length, 0)
official = preset("paper", noise_levels=2)
profiles = sink_profiles(dlm, sample, official.noise_levels, official.noise, progress=False)
mass_NST = profiles[0]  # in even shares, a mean over layers and heads
threshold_NS1 = mass_NST.mean(-1, keepdim=True) + 2 * mass_NST.std(-1, correction=0, keepdim=True)
alpha = OFFICIAL_ALPHA * heads_of(dlm)  # mass here is a mean over heads, there a sum
weight_NST = 1 - torch.sigmoid(alpha * (mass_NST - threshold_NS1))
of_library_RT = rows_for(dlm, sample, official.statistics_key, False, profiles).weight_RT
assert torch.allclose(weight_NST.flatten(0, 1), of_library_RT, atol=1e-2)
weight_T, mass_T = weight_NST[0, 0], mass_NST[0, 0]
of_sink, of_median = float(weight_T[mass_T.argmax()]), float(weight_T.median())
print(f"the strongest sink counts {of_sink:.2f}, and half of the tokens at least {of_median:.2f}")

# %% [markdown]
# Wanda's score is a weight's size times the norm of its input ([notebook 00](00_start_here.ipynb)).
# SparseGPT's is the square of the weight over its input's entry on the diagonal of the Cholesky
# factor of the inverse Gram matrix. The library must leave out the weights with the lowest of these
# scores, but for rounding:

# %%
from sinkprune_core.pruning.patterns import lowest, select
from sinkprune_core.pruning.sparsegpt import sparsegpt

weight_OI = dlm.linears(dlm.blocks[0])["self_attn.q_proj"].weight.detach().float().cpu()
input_NI = dlm.model.get_input_embeddings()(sample.ids_NT.to(dlm.device)).flatten(0, 1)
input_NI = input_NI.detach().double().cpu()  # of any input: here of embeddings
gram_II = input_NI.T @ input_NI
damped_II = gram_II + 0.01 * gram_II.diagonal().mean() * torch.eye(len(gram_II))
factor_II = torch.linalg.cholesky(torch.linalg.inv(damped_II), upper=True)
score_OI = (weight_OI / factor_II.diagonal()).square()
columns = min(128, len(gram_II))  # the first ones are scored before any weight is updated
mask_OP = lowest(score_OI[:, :columns].contiguous(), columns // 2)
_, (of_library_OI,) = sparsegpt(
    [weight_OI], gram_II.float(), select("row", 0.5), None, 0.01, columns
)
assert (mask_OP == of_library_OI[:, :columns]).float().mean() > 0.999

# %% [markdown]
# ## The paper's protocol at other sparsities, and for whole units
#
# First come single weights at the other sparsities of this run. Then come whole units, which are
# key-value groups and MLP channels: every block loses the same number of them, so that a smaller
# dense model remains. The official code has no structured pruning. So here its token weights are
# used in a structured pruning of our own.

# %%
from IPython.display import display
from sinkprune_companion.figures.recipes import save_protocol_units

pictures = [save_protocol(run, found, share) for share in protocol_sparsities]
pictures.append(save_protocol_units(run, found, protocol_ratios))
display(*filter(None, pictures))

# %% [markdown]
# The folded table has all differences. The table below it has what each recipe costs: the NELBO of
# the pruned model less that of the dense one, on the same sequences under the same noise. Lower is
# better. Two calibration draws share some of their text, as the pool is small.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded
from sinkprune_companion.run.texts import held_out_stream

pool = len(held_out_stream(dlm.tokenizer, "natural"))
overlap = paper_protocol.pool_overlap(pool, protocol_tokens // paper_protocol.LENGTH)
print(f"the pool has {pool:,} tokens; two draws of Wanda's text share {overlap:.1%} of theirs")
if protocol_large_tokens:
    overlap = paper_protocol.pool_overlap(pool, protocol_large_tokens // paper_protocol.LENGTH)
    print(f"of {protocol_large_tokens:,} tokens each they share {overlap:.0%}")
margins = [estimate.margin for estimate in found.values()]
display(Folded(listed(found, margin=margins), "Differences under the paper's protocol"))
costs = paper_protocol.costs(protocol)
listed({f"{variant}, {share:.0%}": cost for (variant, share), cost in costs.items()})

# %% [markdown]
# ## Right answers, as the paper counts them
#
# The published numbers are accuracies. So the models that were pruned to 50 % above answer
# two-choice items, too: the six groups of the offline
# [suite](../sinkprune/data/tasks/README.md), and a slice of
# [BLiMP](../sinkprune/data/blimp/README.md). Chance is 50 %. Intervals are over calibration draws
# and over the templates that items are made from (in BLiMP, paradigms).

# %%
from sinkprune_companion.experiments.paired_differences import by_template
from sinkprune_companion.experiments.pruning_findings import shares_right

questions = {"suite": items, "blimp": blimp_pairs}
if protocol_answer_draws:
    of_cell = cell_draws or range(protocol_answer_draws)
    answer_seeds = [seed for seed in of_cell if seed < protocol_answer_draws]
    asked = (0.5, protocol_tokens, questions, protocol_item_draws, answer_seeds)
    answers = paper_protocol.protocol_answers(run, dlm, fingerprint, *asked)
    right = by_template(answers.assign(points=100 * answers.correct), "points")
    points = paper_protocol.protocol_answer_findings(right, 0.5, "accuracy")
    in_nats = by_template(answers, "margin")
    in_nats = paper_protocol.protocol_answer_findings(in_nats, 0.5, "answer_margin")
    found |= points | in_nats
    run.find(found)
    display(shares_right(right))
    display(Folded(listed(points), "Differences in points"))
    display(Folded(listed(in_nats), "Differences in nats: the right answer's lead over the wrong"))
else:
    print("no model answered in this run: set protocol_answer_draws, for instance to 5")

# %% [markdown]
# ## Other text, as a control
#
# Is it the same on other text? The same recipes are calibrated on samples of the AR model that the
# diffusion model was made from, and on documentation. Tables call this text the *former pool*, since
# it was used before the paper's protocol was. Models are scored on three kinds of text: natural
# English, samples and documentation. Natural English here is WikiText-2's validation split, from
# which the paper's protocol takes its calibration text; so a third of the scored text is WikiText-2,
# and none of the calibration text is. Half of the scored sequences are crops, and half begin a
# document, behind the separator `<|endoftext|>`. Calibration text is crops that begin anywhere, so
# it has no such special first token.
#
# There are more recipes here than above, and more sparsities and patterns: the appendix names them
# and shows the rest. Recipes get equally many calibration tokens, but for those of SparseGPT. These
# see clean text alone and fewer tokens, and we compare them with a Wanda that sees as few.
# [Notebook 06](06_gain_at_75.ipynb) takes the official recipe apart on this text.

# %%
from sinkprune_companion.experiments import pruning_grid
from sinkprune_core.pruning.patterns import n_and_m

last = first_seed + seeds
half = [(pruning_grid.HEADLINE, last), (pruning_grid.CONTROLS, other_draws)]
curve, units, answering = pruning_grid.CURVE, pruning_grid.UNITS, pruning_grid.ANSWERING
pair = pruning_grid.SPARSEGPT

plan = []  # names of recipes, pattern, share of zeros, calibration draws
for share in sparsities:
    for names, count in half if share == 0.5 else [(curve, other_draws)]:
        plan.append((names, "unstructured", share, count))

for share in answer_sparsities:
    if share not in sparsities:
        plan.append((answering, "unstructured", share, answer_draws))

plan += [(pair, "unstructured", share, sparsegpt_draws) for share in sparsegpt_sparsities]

for pattern in patterns:
    zeros, group = n_and_m(pattern)
    plan.append((curve, pattern, zeros / group, unit_draws))
    plan.append((["wanda", "paper"], pattern, zeros / group, pattern_draws))

plan += [(units, "structured", ratio, unit_draws) for ratio in ratios]

# %% [markdown]
# A plan becomes a grid, with one row for each recipe, pattern and share of zeros. Some of the rows
# also answer questions.

# %%
settings = {"noise_levels": noise_levels, "sink_std": sink_std}
settings["stability_threshold"] = stability_threshold

grid = {}  # what is planned twice counts as it was planned last
for place in plan:
    for row in pruning_grid.grid_rows(*place, calibration, chosen=recipes, **settings):
        grid[row.variant, row.pattern, row.sparsity] = row
grid = list(grid.values())

asked = {row for row in grid if row.pattern == "unstructured" and row.variant in answering}
asked = {row for row in asked if row.sparsity in answer_sparsities}
print(f"{len(grid)} variants, {len(asked)} of which answer, {seeds} calibration draws")

# %% [markdown]
# **The loop.** What looks at no calibration text is measured first: the dense model, under the
# noise of every draw, and `magnitude`. A variant is pruned inside its `with` block, when it is
# first asked for something that is not on record, and at the end of the block the dense weights are
# put back. Variants of one draw see the same noise, and each draw has noise of its own. Recipes
# with dense propagation share their passes over the text, because the dense model computes the same
# for all of them. Every result is a record, so a run that was stopped goes on where it was.

# %%
import pandas as pd
from sinkprune_companion.experiments.variants import Variant, draw_for, variant_answers
from sinkprune_companion.run.texts import held_out_texts
from tqdm.auto import tqdm

texts = held_out_texts(dlm.tokenizer, sequences, length)
losses, answered = [], []

for seed in sorted({0, *range(first_seed, last)}) if own_noise else [0]:
    labels = {"variant": "dense", "pattern": "dense", "sparsity": 0.0, "seed": seed}
    with Variant(dlm, fingerprint) as variant:
        losses.append(variant.scores(run, texts, draws, noise=seed, **labels))
        if seed == 0:
            answered.append(variant_answers(run, variant, questions, item_draws, **labels))

for row in grid:
    if not row.is_calibrated:
        with Variant(dlm, fingerprint, row.recipe) as variant:
            losses.append(variant.scores(run, texts, draws, **row.labels, seed=0))

# %% [markdown]
# Then come all calibrated recipes, draw by draw.

# %%
for seed in tqdm(range(first_seed, last), desc="calibration draws"):
    rows = [row for row in grid if row.is_calibrated and seed < row.draws]
    drawn = draw_for(dlm, [(row.recipe, row.sequences) for row in rows], length, seed)

    for row in tqdm(rows, desc="prune and measure", unit="variant", leave=False):
        labels = {**row.labels, "seed": seed}
        with Variant(dlm, fingerprint, row.recipe, *drawn[row.sequences]) as variant:
            noise = seed if own_noise else 0
            losses.append(variant.scores(run, texts, draws, noise=noise, **labels))
            if row in asked and seed < answer_draws:
                answered.append(variant_answers(run, variant, questions, item_draws, **labels))

losses = pd.concat(losses, ignore_index=True)
answers = pd.concat(answered, ignore_index=True)
scores = above_dense(losses) if own_noise else losses  # on one sequence under the same noise
dense = losses[losses.variant == "dense"].value.mean()
print(f"NELBO of the dense model: {dense:.4f} nats per token")

# %% [markdown]
# ## Paired differences on other text
#
# The two recipes of a row have equally many zeros in the same pattern and, but for rounding to
# whole sequences, equally many calibration tokens. Margins and verdicts are made as above. Names of
# rows are those of the paper's protocol, except that SparseGPT is compared with a Wanda on as many
# tokens as SparseGPT sees. The data of the picture has more rows: what fewer tokens are worth to
# Wanda, extreme controls, and, where other rows have five draws, rows with fewer, which give no
# verdict. That *official recipe − Wanda* hurts rests on one assumption, which the reading names.

# %%
from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.comparisons import ACCURACY, ANSWER_MARGINS
from sinkprune_companion.experiments.kinds_of_text import findings_by_kind
from sinkprune_companion.experiments.pruning_findings import answer_findings
from sinkprune_companion.figures.recipes import save_differences

found |= pruning_findings.likelihood_findings(scores)
right = by_template(answers.assign(points=100 * answers.correct), "points")
accuracy = answer_findings(right, answer_sparsities, "accuracy", ACCURACY)
margins = by_template(answers, "margin")
found |= accuracy | answer_findings(margins, answer_sparsities, "answer_margin", ANSWER_MARGINS)
by_kind = findings_by_kind(scores)
run.find(found | by_kind)

save_differences(run, "differences_50", scores, [("unstructured", 0.5)], seeds)

# %% [markdown]
# **By kind of text.** A difference above is a mean over three kinds of scored text, and its sign
# may depend on the kind: calibration text is samples and documentation, never natural English.
# [docs/controls.md](../docs/controls.md#by-kind-of-text) has all rows.

# %%
from sinkprune_companion.experiments.comparisons import COMPARISONS
from sinkprune_companion.experiments.kinds_of_text import finding_on
from sinkprune_companion.run.texts import DOMAINS

ASKED = ("paper_minus_wanda", "all_sinks_minus_none", "unstable_minus_none")
rows = {}
for name in ASKED:
    on_kind = {kind: by_kind.get(finding_on(name, kind)) for kind in DOMAINS}
    rows[COMPARISONS[name].label] = {kind: str(each or "–") for kind, each in on_kind.items()}
pd.DataFrame.from_dict(rows, orient="index")

# %% [markdown]
# ## Right answers of models that were calibrated on other text
#
# In the stored run models of seven recipes, calibrated on the former pool, answer the same items.
# Each ending is masked four times here and twice above, so even the dense model scores differently.
#
# The first table has right answers in percent, as means over calibration draws; its average counts
# every column alike. The second has intervals of these shares, over calibration draws and over the
# templates that items are made from (in BLiMP, paradigms). The third, folded, has differences in
# points, paired by item: above zero the first recipe is better. The reading below has a finer
# measure, too: how far the log-likelihood of the right answer lies above that of the wrong one, in
# nats.

# %%
column = answers.group.where(answers.benchmark == "suite", "BLiMP")
names = ["sparsity", "variant", column.rename("group")]
share_right = 100 * answers.groupby([*names, "seed"], sort=False).correct.mean()
by_group = share_right.groupby(level=[0, 1, 2], sort=False).mean().unstack()
by_group = by_group[list(dict.fromkeys(column))]
display(by_group.assign(average=by_group.mean(axis=1)).round(1))
display(shares_right(right))
Folded(listed(accuracy), "Differences in points")

# %% [markdown]
# ## Where the masks differ
#
# This is the share of kept weights that two recipes do not have in common, at 50 %, by layer and
# linear map, on one calibration draw of other text. One of the two is always `noised-dense`: noised
# text, dense propagation and all tokens. The first map gives the scale: there the other is the same
# recipe on another draw. Two random masks would differ by 50 %. [Notebook 04](04_why.ipynb) says
# why so few weights change.

# %%
from sinkprune_companion.experiments.masks import mask_differences
from sinkprune_companion.figures import maps
from sinkprune_companion.figures.titles import draw
from sinkprune_core.pruning.recipe import compared_preset

NAMES = ["noised-dense", "unstable", "all-sinks"]
text, other_text = (calibration_draw(dlm, calibration, length, first_seed + i) for i in (0, 1))
compared = {name: (compared_preset(name, **settings), text) for name in NAMES}
more = calibration_draw(dlm, calibration * noise_levels, length, first_seed)
compared["wanda"] = (compared_preset("wanda", **settings), more)
compared["other text"] = (compared["noised-dense"][0], other_text)
pairs = [("noised-dense", name) for name in ("other text", "wanda", "unstable", "all-sinks")]
if first_seed == 0 or not run.is_cell:  # a sweep measures this on draw 0 alone
    masks = run.record(
        "masks",
        lambda: mask_differences(dlm, compared, pairs),
        variants={name: [recipe, each.fingerprint] for name, (recipe, each) in compared.items()},
        pairs=pairs,
        fingerprint=fingerprint,
    )
    found |= pruning_findings.mask_findings(masks)
    run.find(found | by_kind)
    plain = "Where the masks of two recipes differ at 50 %"
    told = {"data": masks}
    told["caption"] = "share of kept weights that differ at 50 %, by layer and linear map"
    display(draw(run, "masks", plain, maps.plot_mask_differences, masks, **told))

# %% [markdown]
# The folded table has the share of calibration tokens that each recipe leaves out, the zeros as
# counted, the calibration tokens, and the seconds to prune, which include those for statistics that
# recipes share. The records of the first runs have the tokens alone, so the other columns are means
# over fewer draws: as many as `counted in` says.

# %%
COUNTED = ["left_out_share", "zeros", "calibration_tokens", "prune_seconds"]
by_draw = scores[scores.sparsity == 0.5].groupby(["pattern", "variant", "seed"], sort=False)
by_variant = by_draw[COUNTED].mean().groupby(["pattern", "variant"], sort=False)
counts = {"draws": by_variant.size(), "counted in": by_variant.zeros.count()}
Folded(by_variant.mean().round(4).assign(**counts), "Tokens left out, zeros, tokens, seconds")

# %% [markdown]
# ## The AR twin, as a control
#
# Pruning recipes for AR models keep sinks. Here Wanda prunes the AR model with its sinks and
# without them, calibrated and scored on the other text. The value is a difference of its exact
# negative log-likelihoods; below zero the first is better.

# %%
from sinkprune_companion.experiments.comparisons import TWIN_COMPARISONS

dlm.model.to("meta")  # its weights have served; the twin gets their room
ar = load(twin, dtype, run.device)
fingerprint = ar.fingerprint()
labels = {"variant": "dense", "pattern": "dense", "sparsity": 0.0}
of_ar = [Variant(ar, fingerprint).scores(run, texts, draws, **labels, seed=0)]
for seed in range(first_seed, min(last, other_draws)):
    text = calibration_draw(ar, calibration, length, seed)
    for share in twin_sparsities:
        labels = {"pattern": "unstructured", "sparsity": share, "seed": seed}
        for tokens in ("none", "all", "random"):
            recipe = compared_preset("wanda", sparsity=share, exclude=tokens, **settings)
            with Variant(ar, fingerprint, recipe, text) as variant:
                variant_name = f"wanda, {tokens}"
                of_ar.append(variant.scores(run, texts, draws, variant=variant_name, **labels))
of_ar = pd.concat(of_ar, ignore_index=True)
found |= pruning_findings.likelihood_findings(of_ar, TWIN_COMPARISONS)
by_kind |= findings_by_kind(of_ar, TWIN_COMPARISONS)
run.find(found | by_kind)
twins = {}
for place in pruning_findings.places(of_ar):
    of_place = pruning_findings.differences(of_ar, place, TWIN_COMPARISONS)
    for finding, estimate in of_place.items():
        twins[f"AR, {place[1]:.0%}: {TWIN_COMPARISONS[finding].label}"] = estimate
listed(twins)

# %% [markdown]
# ## The reading
#
# The paper's claims are judged at 50 %. Controls and questions of our own say at which sparsity
# they are. Intervals are over calibration draws and sequences together, in nats per token, and
# below zero the first of two recipes is better.

# %% [markdown] tags=["reading"]
# **The sinks make no difference that matters to Wanda.** At 50 % this holds for unstable sinks, all
# sinks, the official weights for sinks, and as many random tokens. At 75 % leaving sinks out raises
# the loss, by 0.029 [0.012, 0.047] for unstable ones and by 0.023 [0.0056, 0.040] for all. That is
# less than what matters where Wanda costs 2.7. The official weights there, and at 25 %, are
# undecided after correction. [Notebook 04](04_why.ipynb) says why.
#
# **Elsewhere it is undecided.** The sink weights of SparseGPT change its loss at 50 % by −0.00031
# [−0.0076, 0.0069], which is undecided after correction. For SparseGPT at 75 % and whole units the
# intervals exceed what matters.
#
# **What helps is not the sinks.** With all sinks kept, noised text and dense propagation beat Wanda
# at 50 %. SparseGPT is far ahead of Wanda, and `recommended`, which is SparseGPT on text with and
# without masks, leads SparseGPT.
#
# **What it does not show.** A gain over Wanda as large as the paper's is excluded at 50 %, but not
# at 75 %. A gain over SparseGPT as small as the paper's could not have been seen.
#
# <details><summary>Other text, 2:4 zeros and answers</summary>
#
# * **Other text.** Leaving sinks out of Wanda's statistics does not matter at 50 %, either. The
#   official recipe is worse by 0.012 [0.0058, 0.018] as a mean over three kinds of text; on natural
#   English alone it is −0.012 [−0.023, −0.00083], which is undecided after correction.
# * **2:4 zeros.** The official recipe is worse than Wanda by 0.063 [0.040, 0.085].
# * **Answers.** On our suite, at 50 %, SparseGPT's models answer better than Wanda's. Whether
#   leaving sinks out helps to answer is undecided. BLiMP decides nothing, since pruning is not
#   shown to cost anything there.
#
# </details>
#
# [Controls](../docs/controls.md) has all other rows.

# %%
from sinkprune_companion.pages.render import results_table

results_table(run)

# %% [markdown]
# All numbers:

# %%
estimates = {name: estimate for name, estimate in found.items() if estimate is not None}
Folded(listed(estimates, margin=[estimate.margin for estimate in estimates.values()]))

# %% [markdown]
# **What this does not show.** This is one small model. Its NELBO is far above its twin's negative
# log-likelihood, and it gets many items wrong before it is pruned. Calibration draws overlap, as
# they come from one pool of text. The official code has no structured pruning, and its
# sink-aware Wanda has no N:M pattern; those rows apply its token weights to our patterns. Speed is
# the subject of [notebook 05](05_matched_compute.ipynb).
#
# ## Exercises
#
# 1. Set `noise_levels` to 1. Expect no unstable sinks on other text: a sink at the only level is
#    one at all levels, so `unstable` becomes `noised-dense`.
# 2. Set `protocol_sparsities` to `[0.6]`. Expect costs to rise. Do the methods keep their order?

# %% [markdown]
# ## Appendix: the recipes, and how they are named
#
# | recipe | calibration text and propagation | left out of the statistics |
# |---|---|---|
# | `magnitude` | – | – |
# | `wanda` | clean, as many tokens as noised; sequential | nothing |
# | `wanda-unmatched` | clean, as many sequences as noised; sequential | nothing |
# | `dwanda` | noised; sequential | nothing |
# | `noised-dense` | noised; dense | nothing |
# | `paper` | noised at the official levels; dense; sum of norms | all sinks, softly |
# | `paper-sinks-kept` | as `paper` | nothing |
# | `all-sinks` | noised; dense | all sinks |
# | `unstable`, `stable` | noised; dense | unstable or stable sinks |
# | `random` | noised; dense | as many random tokens as `all-sinks` |
# | `only-sinks` | noised; dense | everything but the sinks |
# | `sparsegpt` | clean, as many sequences as noised; sequential | nothing |
# | `paper-sparsegpt` | as `sparsegpt` | all sinks, softly |
# | `sparsegpt-unstable` | as `sparsegpt` | unstable sinks |
# | `structured` | clean, as many tokens; sequential | nothing |
# | `structured-sink` | as `paper` | all sinks, softly |
# | `structured-sinks-kept` | as `paper` | nothing |
# | `structured-magnitude` | – | – |
# | `flap` | as `structured`, with biases | nothing |
#
# `magnitude` scores a weight by its size, names with *sparsegpt* by SparseGPT, all others by Wanda.
# Names with *structured* score whole units; `flap` scores them by FLAP. *Softly* means by the
# official sink weights; `all-sinks` is `paper` with hard masks, one norm and an even grid of
# levels.
#
# A noised recipe sees every sequence at `noise_levels` levels, and at the official ten where it has
# the official noise. Clean baselines see it once. Each gets as many sequences as make up the same
# tokens; `wanda-unmatched` shows what that is worth. SparseGPT's recipes are all clean. They get
# `calibration` sequences, and are compared with each other and with `wanda-unmatched`.
#
# **Where each of them is measured on other text**, and in how many calibration draws: those that
# verdicts rest on in most.

# %%
counts = [row.draws if row.is_calibrated else 1 for row in grid]
table = pd.DataFrame(grid).assign(draws=counts)
by_place = table.pivot(index="variant", columns=["pattern", "sparsity"], values="draws")
by_place.loc[table.variant.unique()].astype("Int64").astype(object).fillna("–")

# %% [markdown]
# ### Other sparsities, and N:M patterns
#
# Here are differences on other text at the other sparsities, and with N zeros in every M
# consecutive inputs (2:4), which hardware supports. The table has what every recipe costs, at all
# places, also for whole units: the NELBO of the pruned DLM less that of the dense one, on the same
# sequences under the same noise, as a mean over text and calibration draws. Notebooks [06](06_gain_at_75.ipynb) and [07](07_best_recipe.ipynb)
# have more draws at 75 %, and notebook 06 has more of whole units.

# %%
measured = pruning_findings.places(scores)
pictures = []
for share in sorted({*sparsities, *sparsegpt_sparsities} - {0.5}):
    name = f"differences_{100 * share:.0f}"
    pictures.append(save_differences(run, name, scores, [("unstructured", share)], seeds))
of_patterns = [place for place in measured if n_and_m(place[0])]
pictures.append(save_differences(run, "differences_patterns", scores, of_patterns, seeds))
display(*filter(None, pictures))
excess = pruning_findings.excess(scores)
rows = excess.pivot(index="recipe", columns="panel", values="shown")
rows.loc[excess.recipe.unique(), excess.panel.unique()].fillna("–")
