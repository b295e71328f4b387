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
# # 04 · Why does leaving sinks out change so little, and when would it matter?
#
# **Question.** [Notebook 03](03_leaving_sinks_out.ipynb) finds that leaving attention sinks out of
# the calibration statistics changes next to nothing. A null result can have two reasons: there is
# no effect, or the pipeline could not have seen one. This notebook tells them apart. It says from
# one pass over a dense model how much leaving sinks out *can* change, checks that against the masks,
# and then plants an effect, to see how large it must be before the loss shows it.

# %% [markdown] tags=["answer"]
# **Answer.** It changes so little because sinks hold little of what Wanda reads: they are 1.1 % of
# the calibration tokens, and without them 0.17 % of the kept weights are others, where another draw
# of calibration text exchanges 2.2 %. The pipeline would have seen an effect: with inputs at the
# sinks 30 times as large, leaving them out lowers the loss by 0.13 nats per token. It would matter
# in a model whose sinks hold far more of the energy, and `sinkprune diagnose` says from one pass,
# before anything is pruned, whether a model is one of these.
#
# The picture to look at is [what leaving planted sinks out gains](../figures/04_why/doses_50.png).

# %% [markdown]
# **Parameters**, with the values that *Run all* takes.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model that is explained
other_models: list[str] = ["smol-ar-adapted"]  # models that are diagnosed beside it
seeds: int = 1  # calibration draws of the diagnosis
calibration: int = (
    2  # calibration sequences of a draw; as many more are the text it is compared with
)
layers: list[int] = [11, 20]  # whose input channels are drawn
planted_sparsities: list[float] = [0.5]  # shares of zeros at which an effect is planted
planted_draws: int = 1  # calibration draws of the planted effect
doses: list[float] = [1.0, 30.0]  # how many times as large inputs at the sinks are made
planted_official: bool = True  # whether the official token weights are tried on it, too
sequences: int = 12  # scored sequences of the planted effect
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("04_why", globals())

# %% [markdown]
# ## Where the energy of sinks lies
#
# Wanda reads one number of every input channel: the norm of its values over all calibration tokens.
# So a sink can matter to pruning only through its share of these squared norms, its *energy*. One
# pass over the paper's calibration text, WikiText-2, measures that share for every linear map.

# %%
from sinkprune.figures.energy import plot_energy
from sinkprune_companion.experiments import why
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.figures import figures
from sinkprune_companion.figures import why as pictures
from sinkprune_companion.pages.render import title

dlm = diffusion_model(model, dtype, run.device)
fingerprint = dlm.fingerprint()
table = why.diagnosis_table(run, dlm, fingerprint, 2 * calibration, 128, seed=0)
says = title(run, "energy", "The share of every input's energy that sinks hold")
figure = plot_energy(table, says)
caption = f"share of the energy of every input that attention sinks hold, by layer. {says}"
figures.save_figure(run, figure, "energy", table, caption)

# %% [markdown]
# ## Why a large share can still change nothing
#
# Wanda ranks weights **within a row**. If sinks held the same share of every channel, leaving them
# out would multiply all scores of a row by one number, and the ranking would stay as it is. Only what
# differs from channel to channel counts. Let $p_j$ be the share of channel $j$ that sinks hold. Without
# them the logarithm of its norm changes by $\delta_j = \frac12 \ln(1 - p_j)$.
#
# Take weights of a normal distribution, and let $u_j$ be the row's threshold in standard deviations of
# the weights in channel $j$. Weights lie within $|\delta_j - \bar\delta|$ of the threshold with density
# $2 u_j \varphi(u_j)$ on the scale of logarithms, and half of those that cross it leave. So the share of
# kept weights that is lost is
#
# $$\frac{\sum_j u_j\,\varphi(u_j)\,|\delta_j - \bar\delta|}{\sum_j 2\,(1 - \Phi(u_j))}.$$
#
# In ten lines, for channels of equal norm, on random weights:

# %%
import torch

normal = torch.distributions.Normal(0.0, 1.0)
rng = torch.Generator().manual_seed(0)
weight_OI = torch.randn(2000, 1000, generator=rng)
share_I = 0.1 * torch.rand(1000, generator=rng)  # what sinks hold of every channel
for sparsity in (0.5, 0.75):
    delta_I = 0.5 * torch.log1p(-share_I)
    u = normal.icdf(torch.tensor((1 + sparsity) / 2))  # the threshold of a row
    density = u * torch.exp(normal.log_prob(u))
    predicted = density / (1 - sparsity) * (delta_I - delta_I.mean()).abs().mean()
    count = int(1000 * sparsity)
    kept_OI, other_OI = torch.ones(2, 2000, 1000, dtype=torch.bool)
    kept_OI.scatter_(1, weight_OI.abs().argsort(1)[:, :count], False)
    other_OI.scatter_(1, (weight_OI.abs() * (1 - share_I).sqrt()).argsort(1)[:, :count], False)
    exact = (kept_OI & ~other_OI).sum() / kept_OI.sum()
    print(f"{sparsity:.0%} zeros: predicted {predicted:.3%} of the kept weights, exact {exact:.3%}")

# %% [markdown]
# The library's version knows the norms of the channels. Its prediction and the exact change of the
# mask, for every linear map of the model:

# %%
from sinkprune_core.pruning.diagnosis import predicted_change

assert abs(predicted_change(share_I, torch.ones(1000), sparsity) - float(predicted)) < 1e-4
says = title(run, "foreseen", "Predicted and exact change of every map's mask without sinks")
figure = pictures.plot_foreseen(table, says)
caption = f"share of kept weights that leaving sinks out exchanges, predicted and exact. {says}"
figures.save_figure(run, figure, "foreseen", table, caption)

# %% [markdown]
# ## Few hot channels
#
# In the middle layers sinks carry massive activations: at `down_proj` their inputs are hundreds of
# times as large as those of other tokens, and hold most of the energy. But they do so in a few channels
# of 1,536. Behind a normalisation layer (q, k, v, gate, up) every token has the same norm, so a sink
# holds about its share of the tokens, and less in channels that others fill.

# %%
channels = why.channel_table(run, dlm, fingerprint, 2 * calibration, 128, 0, layers)
places = [(layers[0], name) for name in ("mlp.down_proj", "self_attn.q_proj")]
places.append((layers[-1], "mlp.down_proj"))
says = title(run, "channels", "The sinks' share of every input channel")
figure = pictures.plot_channels(channels, places, says)
caption = f"norm of every input channel and the sinks' share of its energy, for three maps. {says}"
figures.save_figure(run, figure, "channels", channels, caption)

# %% [markdown]
# ## How much leaving sinks out changes, beside other text
#
# The same over several calibration draws. *Other text* is what another draw of calibration text
# changes, with all sinks kept. Means count every map by its weights; medians are over maps.

# %%
import pandas as pd

draws = [
    why.diagnosis_table(run, dlm, fingerprint, 2 * calibration, 128, seed) for seed in range(seeds)
]
found = why.diagnosis_findings(draws)
run.find(found)
by_kind = pd.concat(draws).groupby(["sparsity", "kind"], sort=False)
shares = ["energy", "mean_share", "hot_channels", "predicted", "exact", "other_text"]
(100 * by_kind[shares].mean()).round(2).add_suffix(" (%)")

# %% [markdown]
# ## Other models
#
# The autoregressive twin, other trainings of the adapter, and the same architecture with random
# weights. The last column is the verdict of `sinkprune diagnose`: whether leaving sinks out
# changes more than another draw of text does.

# %%
from sinkprune import load
from sinkprune_companion.experiments.random_null import with_random_weights
from sinkprune_core.pruning.diagnosis import Diagnosis

rows = []
for name in [model, *other_models]:
    if name == model:
        lm = dlm
    elif name == "random weights":
        lm = with_random_weights(dlm, 0, dtype, run.device)
    elif name.startswith("smol-ar"):
        lm = load(name, dtype, run.device)
    else:
        lm = diffusion_model(name, dtype, run.device)
    of_model = why.diagnosis_table(run, lm, lm.fingerprint(), 2 * calibration, 128, seed=0)
    diagnosis = Diagnosis(lm.name, of_model, float(of_model.left_out.iloc[0]))
    for sparsity, row in diagnosis.overall().iterrows():
        expects = diagnosis.expect_an_effect(sparsity)
        fit = why.correlation(of_model[of_model.sparsity == sparsity])
        rows.append([name, sparsity, diagnosis.left_out, *row, fit, expects])
columns = [
    "model",
    "zeros",
    "sinks among tokens",
    "predicted",
    "exact",
    "other text",
    "correlation",
]
others = pd.DataFrame(rows, columns=[*columns, "expect an effect"])
figures.save_table(run, "other_models", others, "what one pass foresees, by model")
others.round(4)

# %% [markdown]
# ## A planted effect
#
# Would the pipeline see an effect if there were one? Wanda's mask does not change when all inputs are
# multiplied by one number, so inputs at the sinks that are 30 times as large are the same as all other
# inputs divided by 30. That is a choice of token weights like any other, and no other code runs:

# %%
import inspect

from sinkprune_companion.experiments import planted

print(inspect.getsource(planted.Planted.__call__))

# %% [markdown]
# Each model is pruned with the planted tokens in the statistics (*kept*) and without (*left out*),
# by Wanda on noised text with dense propagation. As a control, as many random tokens are planted. Below
# zero, leaving them out helps.

# %%
from IPython.display import display
from sinkprune_companion.experiments.paired_differences import above_dense
from sinkprune_companion.figures.forests import listed

losses = pd.concat(
    [
        planted.planted_losses(
            run,
            dlm,
            fingerprint,
            planted_sparsities,
            sequences,
            calibration,
            seed,
            doses,
            planted_official,
        )
        for seed in range(planted_draws)
    ],
    ignore_index=True,
)
gains = planted.planted_findings(above_dense(losses), planted_sparsities, doses)
found |= gains
run.find(found)
NAMED = {
    "planted_gain": "all sinks left out",
    "planted_official_gain": "official token weights",
    "planted_random_gain": "random tokens planted and left out",
}
for sparsity in planted_sparsities:
    ending = f"_{100 * sparsity:.0f}"
    lines = {
        name: {dose: gains[f"{finding}_x{dose:g}{ending}"] for dose in doses}
        for finding, name in NAMED.items()
        if planted_official or finding != "planted_official_gain"
    }
    says = title(
        run, f"doses{ending}", f"What leaving planted tokens out changes at {sparsity:.0%}"
    )
    figure = pictures.plot_doses(lines, says)
    caption = f"loss with planted tokens left out less with them kept, by dose. {says}"
    data = listed({name: gain for name, gain in gains.items() if name.endswith(ending)})
    display(figures.save_figure(run, figure, f"doses{ending}", data.reset_index(), caption))

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **Sinks hold little of what Wanda reads.** They are 1.1 % of the calibration tokens. Behind a
#   normalisation layer, at q, k and v, they hold 0.56 % of the inputs' energy. At `down_proj` they
#   hold 13 %, most of it in a few layers and, there, in a few of 1,536 channels.
# * **So leaving them out changes few weights.** At 50 % it exchanges 0.17 % of the kept weights,
#   and in the median map 0.063 %; another draw of calibration text exchanges 2.2 %. At 75 % these
#   are 0.36 % and 4.5 %. On average over the draws sinks change more than other text does in 2.6 of
#   210 maps.
# * **One pass foresees it.** Predicted and exact changes of the maps correlate at 0.99 (their
#   logarithms, at 50 %) and 0.99 at 75 %. `sinkprune diagnose MODEL` prints both for any model.
# * **The pipeline sees an effect that is there.** With inputs at the sinks 10 times as large in the
#   statistics, leaving them out changes the loss by −0.044 [−0.062, −0.025] (reproduced), 30 times
#   by −0.13 [−0.17, −0.079] (reproduced) and 100 times by −0.27 [−0.37, −0.18] (reproduced). As
#   they are, it changes it by 0.0028 [−0.0010, 0.0066]: the model as it is stands at the left end
#   of that curve. As many random tokens, 30 times as large, give −0.015 [−0.029, −0.0019]
#   (undecided). The official token weights on planted sinks, and 75 %, are not run.

# %%
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
Folded(listed(found))

# %% [markdown]
# ## Exercises
#
# 1. Set `calibration` to 16. Expect *other text* to change less, as more text averages more out.
# 2. Write a choice of tokens of your own and pass it to `diagnose(lm, text, sinks=…)`. How much would
#    leaving out the first token of every sequence change?
#
# **What this does not show.** The formula is of Wanda's score, row by row. SparseGPT reads products of
# channels as well. The planted effect is in the statistics alone: the model itself does not have such
# activations. And every model here comes from one base of 135 million weights.
