"""Settings in which notebook 08 repeats the headline rows of notebook 03, and models on record alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import signed
from sinkprune.models.loading import load
from sinkprune_companion import project_root
from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.comparisons import COMPARISONS
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.experiments.pruning_grid import CURVE, HEADLINE, SPARSITY, GridRow, grid_rows
from sinkprune_companion.experiments.variants import Variant, losses_on, measured
from sinkprune_companion.run import profiles
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core import LanguageModel
from sinkprune_core.pruning.report import Report

PUBLISHED = "published"  # the pair that ships
PAIR_DRAWS = 2  # calibration draws of other pairs
HALF = ("unstructured", SPARSITY)  # the place of verdicts
# words for what has a short name in data
TRAININGS = {"seed-1-diffusion": "seed-1 made again", "seed-2-diffusion": "seed-2 made again"}
RECIPES = {
    "wanda": "Wanda on as many tokens as noised recipes",
    "wanda-unmatched": "Wanda on SparseGPT's sequences",
    "noised-dense": "noised text, dense propagation",
    "paper": "official recipe at eight levels",
    "paper-sinks-kept": "official recipe at eight levels, sinks kept",
    "all-sinks": "noised text, dense propagation, all sinks left out",
    "unstable": "noised text, dense propagation, unstable sinks left out",
    "sparsegpt": "SparseGPT",
    "paper-sparsegpt": "SparseGPT, official sink weights",
}


class Setting(NamedTuple):
    """One way to measure the headline rows."""

    pair: str  # which training of the model: PUBLISHED, a folder or the name of an archive
    calibration: int  # sequences of calibration text
    own_noise: bool  # whether every calibration draw has noise of its own; else one for all
    length: int  # tokens per sequence
    seeds: int  # calibration draws
    other_draws: int = 0  # the same at other sparsities than that of verdicts; 0: not measured there
    archive: str = ""  # NAME of the figures/records-NAME.tar.xz with its records; empty: those of the run

    def value_of(self, factor: str) -> str:
        """Return what one of FACTORS is here, in words."""
        pair = Path(self.pair).name
        are_lost = self.archive and self.pair != PUBLISHED  # the weights, of which the scores are left
        return {
            "pair": f"old {pair} (weights lost)" if are_lost else pair,
            "calibration": f"{self.calibration} sequences",
            "own_noise": "noise of its own" if self.own_noise else "one noise",
            "length": f"{self.length} tokens",
        }[factor]

    @property
    def name(self) -> str:
        """What findings call it."""
        pair = Path(self.pair).name.replace("-", "_")
        noise = "own_noise" if self.own_noise else "one_noise"
        return f"{pair}_{self.calibration}x{self.length}_{noise}"


class Sizes(NamedTuple):
    """What is measured in every setting."""

    recipes: Sequence[str]
    sparsities: Sequence[float]
    sequences: int  # held-out ones
    noise_levels: int  # per calibration sequence
    dtype: str


# what was measured once, whose records the project keeps
ARCHIVED = (
    Setting(PUBLISHED, 16, False, 128, 7, 1, "hour"),
    Setting(PUBLISHED, 128, False, 128, 10, 2, "full-one-noise"),
    Setting(PUBLISHED, 128, True, 128, 10, 3, "full-own-noise"),
)
ARCHIVED_RECIPES = ("wanda", "noised-dense", "paper", "paper-sinks-kept", "all-sinks", "unstable")
ARCHIVED_SIZES = Sizes((*ARCHIVED_RECIPES, "sparsegpt", "paper-sparsegpt"), (0.5, 0.75), 264, 8, "bfloat16")

FACTORS = Setting._fields[:4]  # what a result may depend on


def apart_in(factor: str, settings: Iterable[Setting]) -> list[Setting]:
    """Return the first settings, two or more, that differ in one of FACTORS alone; none for none."""
    groups: dict[tuple, dict[object, Setting]] = {}
    for setting in settings:
        others = tuple(getattr(setting, name) for name in FACTORS if name != factor)
        groups.setdefault(others, {}).setdefault(getattr(setting, factor), setting)
    return next((list(alike.values()) for alike in groups.values() if len(alike) > 1), [])


def settings_of(
    archived: bool, amounts: Sequence[int], length: int, seeds: int, pairs: Sequence[str]
) -> list[Setting]:
    """Return ARCHIVED, or settings that are measured, one for every amount of text and one with own noise.

    Other pairs, folders or names of archives, are measured in the way of the first setting.
    """
    made = [Setting(PUBLISHED, amount, False, length, seeds) for amount in amounts]
    made.append(Setting(PUBLISHED, amounts[-1], True, length, seeds))
    if archived:
        made = list(ARCHIVED)

    first = made[0]._replace(seeds=PAIR_DRAWS, other_draws=0)
    for pair in pairs:
        archive = "" if (project_root() / pair).is_dir() else pair
        made.append(first._replace(pair=pair, archive=archive))

    return made


def settings_table(settings: Iterable[Setting]) -> pd.DataFrame:
    """Return a table of settings to read, in words."""
    rows = []
    for setting in settings:
        row = {"training of the model": setting.value_of("pair")}
        row["calibration sequences"] = setting.calibration
        row["noise of the draws"] = setting.value_of("own_noise")
        row["tokens per sequence"] = setting.length
        row["draws at 50 %"] = setting.seeds
        row["draws at other sparsities"] = setting.other_draws or "not measured"
        rows.append(row)
    return pd.DataFrame(rows)


def training_of(model: str) -> str:
    """Return what a model is called, which is named by itself or by its folder."""
    name = Path(model).name
    return TRAININGS.get(name, name)


class OnRecord(Variant):
    """A variant of a model whose weights are not at hand: what is not on record cannot be measured."""

    def ready(self) -> Report | None:
        """Raise FileNotFoundError."""
        raise FileNotFoundError(
            f"no record of {self.recipe or 'the dense model'} of the model {self.fingerprint}: "
            "name the folder of its weights in pairs"
        )


def archived_run(run: Run, archive: str) -> Run:
    """Return a run apart, `runs/archive-{archive}`, with an archive's scores.

    Errors are those of `profiles.put_missing`.
    """
    apart = replace(run, profile=f"archive-{archive}", records_read={})
    profiles.put_missing(archive, apart.records, "scores/")
    return apart


def archived_fingerprint(run: Run, model: str) -> str:
    """Return the fingerprint of the one model called so in a run's scores; ValueError for none or several."""
    files = (run.records / "scores").glob("*.json")
    keys = [json.loads(file.read_text(encoding="utf-8"))["key"] for file in files]

    fingerprints = {key["fingerprint"] for key in keys if key["model"] == model}
    if len(fingerprints) != 1:
        raise ValueError(
            f"runs/{run.profile} has scores of {len(fingerprints)} models called {model}, not of one"
        )

    return fingerprints.pop()


# what every setting gives


def scores_in(run: Run, settings: Iterable[Setting], sizes: Sizes, model: str) -> dict[Setting, pd.DataFrame]:
    """Return the scores of all recipes in every setting, above the dense model's where draws have own noise.

    A pair that is the name of an archive has no weights here: its scores are read.
    """
    runs = {"": run}
    models = {}
    found = {}
    for setting in tqdm(settings, desc="settings"):
        if setting.archive not in runs:
            runs[setting.archive] = archived_run(run, setting.archive)
        if setting.pair not in models:
            models[setting.pair] = _model_of(setting, runs[setting.archive], sizes.dtype, model)

        kind, lm, fingerprint = models[setting.pair]
        texts = held_out_texts(lm.tokenizer, sizes.sequences, setting.length)
        score = losses_on(runs[setting.archive], texts, setting.own_noise)
        grid = (rows_of(setting, sizes), setting.length, range(setting.seeds))

        frame = measured(score, lm, fingerprint, *grid, kind=kind, dense_once=not setting.own_noise)
        found[setting] = above_dense(frame) if setting.own_noise else frame
    return found


def _model_of(
    setting: Setting, home: Run, dtype: str, model: str
) -> tuple[type[Variant], LanguageModel, str]:
    """Return how variants of a setting's model are made, the model, and the fingerprint of its weights."""
    if setting.pair == PUBLISHED:
        lm = load(model, dtype, home.device)
    elif setting.archive:
        lm = load(model, dtype, home.device)  # for its tokenizer and its name
        return OnRecord, lm, archived_fingerprint(home, lm.name)
    else:
        lm = diffusion_model(setting.pair, dtype, home.device)
    return Variant, lm, lm.fingerprint()


def rows_of(setting: Setting, sizes: Sizes) -> list[GridRow]:
    """Return the rows of notebook 03 that a setting repeats; `paper` has the noise levels of the others."""
    rows = []
    for share in sizes.sparsities:
        is_half = share == SPARSITY
        names, count = (HEADLINE, setting.seeds) if is_half else (CURVE, setting.other_draws)
        place = ("unstructured", share, count, setting.calibration, sizes.noise_levels)
        rows += grid_rows(names, *place, official_levels=sizes.noise_levels, chosen=list(sizes.recipes))
    return [row for row in rows if row.is_calibrated]


Differences = dict[tuple[Setting, pruning_findings.Place], dict[str, Estimate]]


def differences_in(scores: Mapping[Setting, pd.DataFrame]) -> Differences:
    """Return the differences of notebook 03 in every setting, at every place where it was measured."""
    return {
        (setting, place): pruning_findings.differences(of_setting, place)
        for setting, of_setting in scores.items()
        for place in pruning_findings.places(of_setting)
    }


def findings_of(differences: Differences) -> dict[str, Estimate]:
    """Return differences as findings: their name, the place where it is another than 50 %, the setting."""
    found = {}
    for (setting, place), estimates in differences.items():
        ending = f"{pruning_findings.suffix(place)}_{setting.name}"
        found |= {name + ending: estimate for name, estimate in estimates.items()}
    return found


# tables


def label_of(comparison: str) -> str:
    """Return what a comparison is called here, where the official recipe has as many levels as others, and
    Wanda beside SparseGPT the same sequences.
    """
    label = COMPARISONS[comparison].label.replace("official recipe", RECIPES["paper"])
    label = label.replace("Wanda on as many tokens", "Wanda, same sequences")
    return label.replace("Wanda on fewer tokens", RECIPES["wanda-unmatched"])


def by_draw(scores: Mapping[Setting, pd.DataFrame], factor: str, shown: Sequence[str]) -> pd.DataFrame:
    """Return a table to read of `draw_values`, a column for every draw."""
    values = draw_values(scores, factor, shown)
    if values.empty:
        return pd.DataFrame()

    columns = values.assign(draw="draw " + values.draw.astype(str), value=values.value.round(4))
    table = columns.pivot_table("value", ["difference", factor], "draw", sort=False)
    table = table.rename_axis(index={"pair": "training of the model"})
    return table.astype(object).fillna("–").rename_axis(columns=None)


def draw_values(scores: Mapping[Setting, pd.DataFrame], factor: str, shown: Sequence[str]) -> pd.DataFrame:
    """Return differences at 50 % draw by draw, in the settings that differ in a factor alone: a row with
    `difference`, the factor, `draw` and `value`, a mean over sequences.
    """
    rows = []

    for setting in apart_in(factor, scores):
        at_half = scores[setting][scores[setting].sparsity == SPARSITY]

        for comparison in shown:
            compared = COMPARISONS[comparison]
            one, other = (at_half[at_half.variant == side] for side in compared[:2])
            if len(one) and len(other):
                row = {"difference": label_of(comparison), factor: setting.value_of(factor)}
                draws = enumerate((pivot(one) - pivot(other)).mean(1))
                rows += [row | {"draw": draw, "value": value} for draw, value in draws]

    return pd.DataFrame(rows)


def costs_by_amount(scores: Mapping[Setting, pd.DataFrame]) -> pd.DataFrame:
    """Return what every recipe costs at 50 %, a column per amount of calibration text."""
    costs = {}
    for setting in apart_in("calibration", scores):
        excess = pruning_findings.excess(scores[setting]).set_index("recipe")
        column = f"{setting.value_of('calibration')}, {_draws(setting.seeds)}"
        costs[column] = excess[excess.sparsity == SPARSITY].shown
    return pd.DataFrame(costs).fillna("–").rename(index=RECIPES)


def _draws(count: int) -> str:
    return "1 draw" if count == 1 else f"{count} draws"


def elsewhere_by_amount(differences: Differences) -> pd.DataFrame:
    """Return differences at other places than 50 %, a column per amount of calibration text.

    They stand without intervals, because so few draws decide nothing.
    """
    rows = {}
    settings = dict.fromkeys(setting for setting, _ in differences)

    for setting in apart_in("calibration", settings):
        column = f"{setting.value_of('calibration')}, {_draws(setting.other_draws)}"
        for (where, place), estimates in differences.items():
            if where != setting or place == HALF:
                continue
            for comparison, estimate in estimates.items():
                row = (pruning_findings.heading(place).removeprefix("unstructured, "), label_of(comparison))
                rows.setdefault(row, {})[column] = signed(estimate.value)

    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def widths_by_noise(differences: Differences) -> pd.DataFrame:
    """Return differences at 50 %, half-widths and margins by noise, in thousandths of a nat."""
    rows = []
    settings = dict.fromkeys(setting for setting, _ in differences)

    for setting in apart_in("own_noise", settings):
        for comparison, estimate in differences[setting, HALF].items():
            row = {"comparison": label_of(comparison), "noise": setting.value_of("own_noise")}
            row |= {"difference": estimate.value, "half-width": estimate.half_width}
            rows.append(row | {"margin": estimate.margin})

    if not rows:
        return pd.DataFrame()

    table = pd.DataFrame(rows).set_index(["comparison", "noise"])
    return (1000 * table.astype(float)).round(1).unstack(sort=False)


def by_kind(scores: pd.DataFrame, shown: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Return differences at 50 % in one setting, by what is compared and the kind of text that is scored."""
    found = {}
    for kind, of_kind in scores.groupby("text", sort=False):
        estimates = pruning_findings.differences(of_kind, HALF)
        for comparison in shown:
            if comparison in estimates:
                found.setdefault(comparison, {})[kind] = estimates[comparison]
    return found
