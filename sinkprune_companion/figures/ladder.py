"""The picture of what a loss means: what recipes cost, where a bigram model stands, what models write."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import number
from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.looks import BLACK, GREY, INK, METHODS
from sinkprune_companion.margins import known_damage

CAPTION = (
    "What recipes add to the loss bound at 50 and 75 %, over natural English, samples of the AR model and "
    "documentation, and a bigram model's loss, beside what such models write (calibrated on less text than "
    "the losses)"
)
TEXTS = "notebooks/00_start_here.ipynb"  # where models write, from the repository's root
OFFICIAL = "06/paper_minus_wanda"  # the finding of the official recipe − Wanda, without its sparsity
NOTEBOOK = "07"  # the number of the one that has the findings on SparseGPT and on the bigram model
DENSE = "dense"
BIGRAM = "a bigram model"
WRITTEN = re.compile(r"^ *(?P<recipe>[a-z-]+)(?:, (?P<percent>\d+)%)?: (?P<text>.*)$")
CONTINUED = 18 * " "  # before a line that goes on
WIDE = (7.0, 4.9)  # inches
NARROW = (3.6, 6.6)
LINES = 2  # of a text
LETTERS = 82  # of a line
LETTERS_NARROW = 38


class Rung(NamedTuple):
    """A pruned model: its recipe as METHODS names it, its zeros in percent, and its words in the picture."""

    recipe: str
    percent: int
    words: str
    beside_bigram: str = ""  # the finding of its loss less a bigram model's; empty: there is none


RUNGS = (
    Rung("recommended", 50, "recommended, 50 % zeros"),
    Rung("wanda", 50, "Wanda, 50 %"),
    Rung("paper", 50, "official recipe, 50 %"),
    Rung("recommended", 75, "recommended, 75 %", "minus_bigram_sparsegpt_half_owl"),
    Rung("sparsegpt", 75, "SparseGPT, 75 %", "minus_bigram_sparsegpt_clean"),
    Rung("paper", 75, "official recipe, 75 %", "minus_bigram_paper"),
    Rung("wanda", 75, "Wanda, 75 %", "minus_bigram_wanda"),
)


# the data


def ladder_table(estimates: Mapping[str, Estimate], texts: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """Return a row per model, by what it costs: `recipe`, `words`, `cost` in nats per token, and its `text`.

    `low` and `high` are the ends of the 95 % interval of its loss less a bigram model's, at 75 %. `texts` are
    by recipe and percent of zeros; a model that wrote none has an empty one. Raises KeyError for a finding
    that is not there, and ValueError where one that a cost rests on has no margin.
    """
    rows: list[dict[str, object]] = [
        {"recipe": DENSE, "words": "unpruned", "cost": 0.0, "text": texts.get((DENSE, 0), "")}
    ]
    for rung in RUNGS:
        cost = _cost(rung, estimates)
        text = texts.get((rung.recipe, rung.percent), "")
        row = {"recipe": rung.recipe, "words": rung.words, "cost": cost, "text": text}
        if rung.beside_bigram:
            beside = estimates[f"{NOTEBOOK}/{rung.beside_bigram}"]
            row |= {"low": beside.low, "high": beside.high}
        rows.append(row)

    of_bigram = -estimates[f"{NOTEBOOK}/minus_bigram_dense"].value
    rows.append({"recipe": BIGRAM, "words": "a table of token pairs (bigram)", "cost": of_bigram, "text": ""})
    return pd.DataFrame(rows).sort_values("cost", ignore_index=True)


def _cost(rung: Rung, estimates: Mapping[str, Estimate]) -> float:
    """Return what a recipe adds to the dense model's loss: its baseline's cost and the differences to it."""
    if rung.recipe in ("wanda", "paper"):
        official = f"{OFFICIAL}_{rung.percent}"
        cost = known_damage(official, estimates)
        return cost + (estimates[official].value if rung.recipe == "paper" else 0.0)

    half_noised = f"{NOTEBOOK}/sparsegpt_half_minus_sparsegpt_clean_{rung.percent}"
    cost = known_damage(half_noised, estimates)
    if rung.recipe == "recommended":
        cost += estimates[half_noised].value
        if rung.percent == 75:  # with OWL's allocation
            cost += estimates[f"{NOTEBOOK}/owl_in_half_noised_75"].value
    return cost


def written_texts(root: Path) -> dict[tuple[str, int], str]:
    """Return what models wrote in the published notebook, by recipe and percent of zeros (0: dense)."""
    texts: dict[tuple[str, int], str] = {}
    key = None

    for cell in nbformat.read(root / TEXTS, 4).cells:
        printed = [output.text for output in cell.get("outputs", []) if output.get("name") == "stdout"]

        for line in "".join(printed).splitlines():
            begins = WRITTEN.match(line)
            if line.startswith(CONTINUED) and key:
                texts[key] += f" {line.strip()}"
            elif begins and begins["recipe"] in METHODS:
                key = (begins["recipe"], int(begins["percent"] or 0))
                texts[key] = begins["text"].strip()
            else:
                key = None

    return texts


# the picture


def plot_ladder(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `ladder_table`: rungs at their cost, downwards, and beside each its name and its text."""
    figure, [[axis]] = canvas(size=NARROW if is_narrow else WIDE)
    deepest = table.cost.max()
    step = 1.04 * deepest / (len(table) - 1)
    for place, row in enumerate(table.itertuples(index=False)):
        _draw_rung(axis, row, place * step, is_narrow)

    axis.set(xlim=(0, 1), ylim=(1.04 * deepest + 0.75 * step, -0.35 * step))
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.grid(False)
    words = (
        "losses are those of notebooks 06 and 07, over three kinds of text, so they differ from README's, "
        "whose text is WikiText-2 alone; what models write is that of notebook 00, calibrated on less text"
    )
    axis.set_xlabel(textwrap.fill(words, LETTERS_NARROW if is_narrow else LETTERS), fontsize=8)
    axis.set_ylabel("loss above the unpruned model's (nats per token)")
    return titled(figure, _title(table))


def _draw_rung(axis: Axes, row: object, level: float, is_narrow: bool) -> None:
    """Draw one model's cost as a rung, and its name and text at a `level` of their own."""
    look = METHODS.get(row.recipe)
    colour = look.color if look else BLACK
    rung, bend, words = (0.07, 0.13, 0.14) if is_narrow else (0.05, 0.09, 0.10)
    axis.plot([0, rung], [row.cost, row.cost], color=colour, lw=2.4, ls="-" if look else ":")
    axis.plot([rung, bend], [row.cost, level], color=GREY, lw=0.7)

    name = f"{row.words}: {number(row.cost)}" if row.cost else row.words
    axis.text(words, level, name, va="center", fontsize=9, color=INK, weight="bold")
    letters = LETTERS_NARROW if is_narrow else LETTERS
    lines = textwrap.wrap(row.text, letters, max_lines=LINES, placeholder=" …")
    below = {"textcoords": "offset points", "va": "top", "fontsize": 8.5, "color": INK, "style": "italic"}
    axis.annotate("\n".join(lines), (words, level), (0, -6), **below).set_parse_math(False)


def _title(table: pd.DataFrame) -> str:
    """Return the title: the loss bounds of which recipes at 75 % lie above a bigram model's loss.

    It says so only where every interval is on its side of zero.
    """
    above = set(table.recipe[table.low > 0])
    below = set(table.recipe[table.high < 0])

    if above == {"paper", "wanda"} and below == {"sparsegpt", "recommended"}:
        return "With 75 % zeros, only SparseGPT's models stay below the loss of a table of token pairs"

    return "What recipes cost, and what the models write"
