"""Where the energy of sinks lies: by kind of linear and layer."""

import pandas as pd
import seaborn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from sinkprune.figures.style import WIDTH, canvas, titled

LEAST = 0.1  # percent: the lower end of the colour scale
READS = {
    "q_proj": "q, k, v (after a norm layer)",
    "o_proj": "o_proj",
    "gate_proj": "gate, up (after a norm layer)",
    "down_proj": "down_proj",
}
"""Linears with an input of their own in models of Llama's kind, with what else reads it."""


def plot_energy(table: pd.DataFrame, title: str) -> Figure:
    """Draw the sinks' share of the energy of every input: kinds of input down, layers across.

    `table` is a `Diagnosis.table`. A model whose linears have other names has a row for each of them.
    """
    table = table.loc[table.sparsity == table.sparsity.iloc[0]]
    named = {kind: says for kind, says in READS.items() if kind in set(table.kind)}
    if len(named) < len(READS):
        named = {kind: kind for kind in table.kind.unique()}

    of_kind = table[table.kind.isin(named)]
    shares = 100 * of_kind.pivot_table(index="kind", columns="layer", values="energy").loc[list(named)]
    figure, [[axis]] = canvas(size=(WIDTH, 0.8 + 0.3 * len(named)))
    seaborn.heatmap(
        shares.clip(lower=LEAST),
        norm=LogNorm(LEAST, 100),
        cmap="cividis",
        xticklabels=5,
        yticklabels=list(named.values()),
        cbar_kws={
            "format": FormatStrFormatter("%g"),
            "label": f"sinks' share of\nenergy (%);\n≤ {LEAST:g} alike",
            "pad": 0.02,
            "extend": "min",
        },
        ax=axis,
    )
    axis.set(xlabel="layer (0 is the first)", ylabel="")
    axis.grid(False)

    return titled(figure, title)
