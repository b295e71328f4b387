"""Pictures of how recipes differ: in percent of what pruning costs, so that one holds several sparsities, by
the tokens that they leave out, against sparsity, and in other settings.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune.evaluation.verdict_rule import LEAST_DRAWS, judge, verdicts_on_losses
from sinkprune_companion.experiments import paper_protocol, pruning_findings
from sinkprune_companion.experiments.comparisons import COMPARISONS
from sinkprune_companion.experiments.paired_differences import pivot
from sinkprune_companion.experiments.pruning_grid import UNSTRUCTURED
from sinkprune_companion.experiments.recipe_differences import Difference
from sinkprune_companion.experiments.robustness import (
    HALF,
    Differences,
    Setting,
    apart_in,
    by_kind,
    draw_values,
    label_of,
)
from sinkprune_companion.figures import figures, forests, titles
from sinkprune_companion.figures.looks import BLACK, CALLED
from sinkprune_companion.ledger.results import results_for
from sinkprune_companion.run.records import Run
from sinkprune_core.pruning.patterns import n_and_m

Sections = Mapping[str, Mapping[str, Difference]]  # rows by their label, below a heading each

IN_NATS = "loss, first − second (nats per token): ← better"
ROWS_OF_RECOVERY = {  # what they are called beside models with single zeros
    "dense": "unpruned model",
    "wanda, taught": "Wanda, learning from the dense model",
    "structured": "half of the units removed instead",
}
ASIDE = (  # comparisons on other text that are in the data of a picture alone: extremes, and fewer tokens
    "paper_minus_wanda_unmatched",
    "wanda_minus_wanda_unmatched",
    "unstable_minus_sparsegpt",
    "only_sinks_minus_none",
    "all_sinks_minus_random",
    "stable_minus_none",
)
CONTROL = "stable − random, as many as stable"
SECTIONS = {  # headings of what is drawn, by its name in data
    "stable − none": "stable sinks left out − kept",
    "unstable − none": "unstable sinks left out − kept",
    "all − none": "all sinks left out − kept",
}

Effects = Mapping[str, tuple[Mapping[str, np.ndarray], float | None]]  # (R, N) and a margin, by model


def save_protocol(run: Run, found: Mapping[str, Estimate], sparsity: float) -> Figure | None:
    """Save and return the picture of single weights under the paper's protocol; None where it has no row."""
    rows = paper_protocol.by_label(found, UNSTRUCTURED, sparsity)
    if not rows:
        return None

    groups = {each.label: each.group for each in paper_protocol.COMPARISONS.values() if each.label in rows}
    table = forests.forest_table(rows, results_for(run).on_losses)
    return titles.draw(
        run,
        f"protocol_{100 * sparsity:.0f}",
        f"Paired differences under the paper's protocol, {100 * sparsity:g} %",
        forests.plot_effects,
        table.assign(section=table.comparison.map(groups)),
        IN_NATS,
        data=table,
        caption="paired differences under the paper's protocol, with 95 % intervals",
    )


def save_protocol_units(run: Run, found: Mapping[str, Estimate], ratios: Sequence[float]) -> Figure | None:
    """Save and return the picture of whole units under the paper's protocol, a section for each share of the
    weights that they have; None where it has no row.
    """
    judged = results_for(run).on_losses
    parts = []
    for ratio in ratios:
        rows = paper_protocol.by_label(found, "structured", ratio)
        if rows:
            table = forests.forest_table(rows, judged)
            parts.append(table.assign(section=f"{100 * ratio:g} % of the weights removed"))
    if not parts:
        return None

    table = pd.concat(parts, ignore_index=True)
    return titles.draw(
        run,
        "protocol_units",
        "Whole units under the paper's protocol",
        forests.plot_effects,
        table,
        IN_NATS,
        data=table,
        caption="paired differences of whole units under the paper's protocol, with 95 % intervals",
    )


def save_differences(
    run: Run, name: str, scores: pd.DataFrame, places: Sequence[pruning_findings.Place], draws: int
) -> Figure | None:
    """Save and return the picture of differences on other text at some places; None where it has no row.

    `draws` are the calibration draws of the run. Where these are enough for a verdict, rows with fewer are in
    its data alone, as is what ASIDE names.
    """
    estimates, drawn, groups = {}, {}, {}
    for place in places:
        prefix = f"{pruning_findings.heading(place)}: " if len(places) > 1 else ""
        for finding, estimate in pruning_findings.differences(scores, place).items():
            label = prefix + COMPARISONS[finding].label
            estimates[label] = estimate
            groups[label] = COMPARISONS[finding].group
            decides = draws < LEAST_DRAWS or (estimate.draws or draws) >= LEAST_DRAWS
            if finding not in ASIDE and decides:
                drawn[label] = estimate
    if not drawn:
        return None

    where = ", ".join(map(pruning_findings.heading, places))
    judged = results_for(run).on_losses
    table = forests.forest_table(drawn, judged)
    return titles.draw(
        run,
        name,
        f"Paired differences, {where}",
        forests.plot_effects,
        table.assign(section=table.comparison.map(groups)),
        IN_NATS,
        data=forests.forest_table(estimates, judged),
        caption="paired differences in loss, with 95 % intervals",
    )


def shares_table(sections: Sections, judged: forests.Judge = verdicts_on_losses) -> pd.DataFrame:
    """Return a row per difference: `value`, `low` and `high` in nats, and `percent…` of a cost in nats.

    That cost is what each difference is measured against. Where every row has a margin there is a `verdict`,
    as `judged` gives it of the rows of a section.
    """
    parts = []
    for section, rows in sections.items():
        if not rows:
            continue
        table = forests.forest_table({label: each.estimate for label, each in rows.items()}, judged)
        shares = [each.in_percent() for each in rows.values()]
        table["percent"] = [share.value for share in shares]
        table["percent_low"] = [share.low for share in shares]
        table["percent_high"] = [share.high for share in shares]
        table["percent_margin"] = [share.margin for share in shares]
        parts.append(table.assign(section=section))

    whole = pd.concat(parts, ignore_index=True)
    return whole.dropna(axis=1) if whole.percent_margin.isna().any() else whole


def save_shares(
    run: Run,
    name: str,
    plain: str,
    sections: Sections,
    of: str | None = "what Wanda costs",
    aside: Mapping[str, Difference] | None = None,
) -> Figure | None:
    """Save and return the picture of differences in percent `of` a cost, below its written title or `plain`;
    None where no section has a row.

    Where `of` is None they are drawn in nats. What is `aside` is in the data alone.
    """
    if not any(sections.values()):
        return None

    judged = results_for(run).on_losses
    table = shares_table(sections, judged)

    title = titles.title(run, name, plain)
    if of is None:
        picture = forests.plot_effects(table, IN_NATS, title)
        unit = "nats per token"

    else:
        drawn = table.drop(columns=["value", "low", "high", "margin"], errors="ignore")
        drawn = drawn.rename(columns=lambda column: column.removeprefix("percent_"))
        drawn = drawn.rename(columns={"percent": "value"})
        picture = forests.plot_effects(drawn, f"loss, first − second (% of {of}): ← better", title)
        unit = f"percent of {of}"

    if aside:
        table = pd.concat([table, shares_table({"": aside}, judged)], ignore_index=True)

    return figures.save_figure(run, picture, name, table, f"{title}: differences in {unit}")


def damage_table(costs: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return what recipes cost, a row per place and recipe: sparsities in order, and behind them patterns.

    `costs` are losses above the dense model, by `variant` and `place`, a sparsity in percent or a pattern
    N:M; `names` says which variants are taken, and how they are called.
    """
    lines = []
    for (place, variant), cells in costs[costs.variant.isin(names)].groupby(["place", "variant"], sort=False):
        cost = crossed_interval(pivot(cells))
        ratio = n_and_m(place)
        zeros = 100 * ratio[0] / ratio[1] if ratio else float(place.removesuffix(" %"))
        line = {"recipe": names[variant], "zeros": place, "sparsity": zeros, "is_pattern": ratio is not None}
        lines.append(line | {"value": cost.value, "low": cost.low, "high": cost.high, "draws": cost.draws})

    table = pd.DataFrame(lines).sort_values(["is_pattern", "sparsity"], kind="stable", ignore_index=True)
    return table.drop(columns="is_pattern")


def save_damage(run: Run, costs: pd.DataFrame, names: Mapping[str, str], bigram: float) -> Figure:
    """Save and return the picture of `damage_table`, and where a bigram model stands.

    `bigram` is that model's loss above the dense model's.
    """
    table = damage_table(costs, names)
    places = table.zeros.drop_duplicates().tolist()
    drawn = table.assign(place=table.zeros.map(places.index))  # evenly apart, however near they are

    title = titles.title(run, "damage", "What recipes cost, by the share of zeros")
    labels = {"place": "weights that are zero; bars: 95 % interval of each cost by itself"}
    labels["value"] = "loss above the unpruned model's (nats per token)"
    how = {"interval_columns": ("low", "high"), "logy": True, "dodge": True, "title": title}
    picture = figures.plot_curves(drawn, "place", "value", "recipe", labels, **how)

    axis = picture.axes[0]
    axis.set_xticks(range(len(places)), places)
    axis.axhline(bigram, color="0.4", ls=":")
    axis.annotate("a bigram model", (-0.45, bigram), va="bottom")
    caption = f"{title}: loss above the unpruned model's by the share of zeros, with 95 % intervals"
    return figures.save_figure(run, picture, "damage", table, caption)


def save_recovery(run: Run, levels: pd.DataFrame) -> Figure:
    """Save and return the picture of `recovery.recovery_levels`: a panel for each place, a row for each
    recipe, and a mark for each amount of training. All panels share their axis, and zero is on it.
    """
    table = levels.assign(
        recipe=levels.recipe.map(lambda name: ROWS_OF_RECOVERY.get(name, CALLED.get(name, name))),
        training=levels.tokens.map(lambda count: f"after {count:,} tokens" if count else "before training"),
    )

    title = titles.title(run, "recovery", "Losses of pruned models before and after recovery")
    xlabel = "loss above the unpruned model's before training (nats per token): ← better"
    picture = forests.plot_rows(table, "zeros", "recipe", xlabel, title, "training")
    for axis in picture.axes:
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
        axis.axvline(0, color=BLACK, lw=0.9)

    caption = f"{title}: loss above the unpruned model's before training, with 95 % intervals"
    return figures.save_figure(run, picture, "recovery", levels, caption)


def save_settings(
    run: Run, factor: str, differences: Differences, shown: Sequence[str], plain: str
) -> Figure | None:
    """Save and return the picture of differences at 50 % in the settings that differ in one factor alone.

    A section is a difference, a row one setting. Raises ValueError where no two settings differ so.
    """
    settings = apart_in(factor, dict.fromkeys(setting for setting, _ in differences))

    by_comparison = {
        comparison: {
            setting.value_of(factor): differences[setting, HALF][comparison]
            for setting in settings
            if comparison in differences[setting, HALF]
        }
        for comparison in shown
    }

    return _save_compared(run, f"by_{factor}", by_comparison, plain)


def save_draws(
    run: Run,
    factor: str,
    scores: Mapping[Setting, pd.DataFrame],
    differences: Differences,
    shown: Sequence[str],
    plain: str,
) -> Figure | None:
    """Save and return the picture of every calibration draw at 50 %, in the settings that differ in one
    factor alone; None where no two settings differ so.

    Bands are the margins of each setting.
    """
    values = draw_values(scores, factor, shown)
    if values.empty:
        return None

    margins = {
        (label_of(name), setting.value_of(factor)): differences[setting, HALF][name].margin
        for setting in apart_in(factor, scores)
        for name in shown
        if name in differences[setting, HALF]
    }
    title = titles.title(run, f"by_{factor}", plain)
    picture = forests.plot_lanes(values, "difference", factor, margins, IN_NATS, title)
    lanes = zip(values.difference, values[factor], strict=True)
    data = values.assign(margin=[margins.get(lane) for lane in lanes])
    return figures.save_figure(run, picture, f"by_{factor}", data, f"{title}: one dot for every draw")


def save_by_kind(run: Run, scores: pd.DataFrame, shown: Sequence[str], plain: str) -> Figure | None:
    """Save and return the picture of differences at 50 % on every kind of text that is scored."""
    return _save_compared(run, "by_kind", by_kind(scores, shown), plain)


def _save_compared(
    run: Run, name: str, by_comparison: Mapping[str, Mapping[str, Estimate]], plain: str
) -> Figure | None:
    """Save and return a picture with a section for each comparison of COMPARISONS; None where nothing
    was compared.
    """
    judged = results_for(run).on_losses

    parts = [
        forests.forest_table(dict(estimates), judged).assign(section=label_of(comparison))
        for comparison, estimates in by_comparison.items()
        if estimates
    ]

    if not parts:
        return None

    table = pd.concat(parts, ignore_index=True)
    title = titles.title(run, name, plain)
    picture = forests.plot_effects(table, IN_NATS, title)
    return figures.save_figure(run, picture, name, table, title)


def save_left_out(run: Run, effects: Effects, controls: Effects, plain: str) -> Figure:
    """Save and return the picture of what SECTIONS names, a row for each model; the rest is in its data.

    `effects` are beside nothing left out, `controls` are CONTROL. In the data p is corrected within a model,
    and apart for controls. Verdicts are those of the ledger.
    """
    given = [*effects.items(), *controls.items()]
    parts = [judge(by_choice, margin, model) for model, (by_choice, margin) in given]
    table = pd.concat(parts, ignore_index=True)

    estimates = [
        crossed_interval(values_RN).with_margin(margin)
        for _, (by_choice, margin) in given
        for values_RN in by_choice.values()
    ]
    table["verdict"] = results_for(run).on_losses(estimates)

    title = titles.title(run, "left_out", plain)
    drawn = [
        table[table.comparison == comparison].assign(comparison=lambda part: part.section, section=section)
        for comparison, section in SECTIONS.items()
    ]

    picture = forests.plot_effects(pd.concat(drawn, ignore_index=True), IN_NATS, title)
    caption = f"{title}: differences in loss, with 95 % intervals"
    return figures.save_figure(run, picture, "left_out", table, caption)
