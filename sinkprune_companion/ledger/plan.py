"""The plan of notebook 10: what pruning a large model takes, which commands do it, and what it could show.

Nothing here is measured: costs are lower bounds, and what could be seen follows from numbers of items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from sinkprune.evaluation.harness.benchmarks import PAPER
from sinkprune.evaluation.intervals import CONFIDENCE
from sinkprune.evaluation.verdict_rule import POWER
from sinkprune.models.catalog import MODELS
from sinkprune_companion.ledger import published
from sinkprune_companion.ledger.published import SEQUENCES, Result

MATCHED = 13  # sequences: at ten noise levels about as many tokens as 128 that are read once
HALF = SEQUENCES // 2  # of a recipe that reads each sequence twice
FIRST_TASKS = ("piqa", "winogrande", "arc_challenge")  # of a first evaluation
FIRST_ITEMS = 200  # of each of them
BASELINES = {  # of the published methods
    "sink-aware Wanda": "Wanda",
    "sink-aware SparseGPT": "SparseGPT",
    "sink-aware": "unnamed baseline",
}


@dataclass(frozen=True)
class Plan:
    """How one model is pruned by several recipes and evaluated."""

    model: str  # hub id
    preset: str  # the recipe that was asked for
    sparsity: float

    @property
    def official(self) -> str:
        """The preset of the official recipe for the model."""
        return "paper-dream" if MODELS[self.model].family == "dream" else "paper"

    @property
    def controls(self) -> dict[str, str]:
        """The official recipe and what differs from it in its sink weights alone, in words by preset."""
        known = {self.official: "as it is"}
        if self.official == "paper":
            known["paper-sinks-kept"] = "its sinks kept"
        return known

    def result(self, preset: str | None, sequences: int = SEQUENCES) -> Result:
        """Return a row of the plan: a model pruned on so many sequences, or with None the dense one."""
        sparsity = self.sparsity if preset else 0.0
        return Result(self.model, preset, sparsity, FIRST_TASKS, sequences=sequences)

    def costs(self) -> pd.DataFrame:
        """Return what pruning takes on the official amount of text, a row per preset."""
        wanted = [self.preset, "recommended", "wanda", self.official, "sparsegpt", "paper-sparsegpt"]
        rows = {}

        for preset in dict.fromkeys(wanted):
            result = self.result(preset)
            cost = result.pruning()
            rows[preset] = {
                "calibration tokens": f"{cost.tokens:,}",
                "passes": cost.passes,
                "TFLOP": round(cost.flops / 1e12),
                "memory (GB)": round(cost.memory / 1e9),
                "lower bound, not a run time (minutes)": round(60 * result.pruning_hours(), 1),
            }

        return pd.DataFrame.from_dict(rows, orient="index")

    def evaluation_minutes(self) -> float:
        """Return the minutes that FIRST_ITEMS of each of FIRST_TASKS take at least."""
        hours = 0.0
        for task in FIRST_TASKS:
            whole = Result(self.model, None, 0.0, (task,)).evaluation_hours()
            hours += whole * FIRST_ITEMS / published.REQUESTS[task].documents
        return 60 * hours

    def draws_hours(self, draws: int) -> dict[str, float]:
        """Return the least hours of so many calibration draws of every control, and of the dense model.

        By what is evaluated: FIRST_ITEMS of each of FIRST_TASKS, or all benchmarks of the paper in full.
        """
        pruning = sum(self.result(preset, MATCHED).pruning_hours() for preset in self.controls)
        evaluated = draws * len(self.controls) + 1  # models
        each = {
            f"{FIRST_ITEMS} items of {', '.join(FIRST_TASKS)}": self.evaluation_minutes() / 60,
            "all benchmarks of the paper, in full": Result(self.model, None, 0.0).evaluation_hours(),
        }
        return {what: draws * pruning + evaluated * hours for what, hours in each.items()}

    def commands(self, draws: int) -> dict[str, list[str]]:
        """Return shell commands by what they are for; the last ones take so many calibration draws."""
        made = {}
        sequences = {"recommended": HALF}
        for preset in dict.fromkeys([self.preset, "recommended", "wanda", self.official]):
            count = sequences.get(preset, SEQUENCES)
            made[f"{preset}, {count} sequences"] = self.result(preset, count).commands()

        for preset, words in self.controls.items():
            what = f"{self.official}, on about as many tokens as wanda, {words}"
            made[what] = self.result(preset, MATCHED).commands()
        made["the dense model"] = self.result(None).commands()
        made["two models in pairs, on text alone"] = self._comparisons()

        made = {what: [_limited(line) for line in lines] for what, lines in made.items()}
        made[f"{draws} calibration draws of what differs in sinks alone"] = self._draws(draws)
        return made

    def _comparisons(self) -> list[str]:
        """Return the commands that compare models in pairs on text."""
        wanda = self.result("wanda").folder
        folders = {preset: self.result(preset, MATCHED).folder for preset in self.controls}
        official = folders.pop(self.official)
        pairs = [(self.model, wanda), (wanda, official), *((kept, official) for kept in folders.values())]
        return [f"sinkprune compare {one} {other} --text wikitext-2" for one, other in pairs]

    def _draws(self, draws: int) -> list[str]:
        """Return a loop over seeds of every control: its calibration text and noise differ by the seed."""
        lines = [f"for seed in {' '.join(map(str, range(draws)))}; do"]
        for preset in self.controls:
            result = self.result(preset, MATCHED)
            for command in result.commands():
                of_seed = command.replace(result.folder, f"{result.folder}-$seed")
                if " prune " in of_seed:
                    of_seed += " --seed $seed"
                lines.append(_limited(of_seed))
        return [*lines, "done"]


def shown(commands: dict[str, list[str]]) -> str:
    """Return commands as text to copy, an option a line, below what they are for."""
    parts = []
    for what, lines in commands.items():
        parts.append(f"# {what}")
        parts += [line.replace(" --", " \\\n    --") for line in lines]
        parts.append("")
    return "\n".join(parts)


def _limited(command: str) -> str:
    """Return a command that evaluates with a limit on its items."""
    return f"{command} --limit {FIRST_ITEMS}" if " evaluate " in command else command


# what the authors report


def published_tables(model: str) -> list[pd.DataFrame]:
    """Return the published numbers of a model in percent, each table before what sink-awareness gains."""
    tables = []
    numbers = published.beside(model)

    for unit, of_unit in numbers.groupby("unit", sort=False):
        values = of_unit.pivot_table("published", ["sparsity", "method"], "task", sort=False)
        values = (values if "percent" in unit else 100 * values).round(2)

        methods = values.index.get_level_values("method")
        gains = {
            f"{one} − {other}": values.xs(one, level="method") - values.xs(other, level="method")
            for one, other in BASELINES.items()
            if one in methods
        }
        tables += [values, pd.concat(gains).round(2)]

    return [table.astype(object).fillna("") for table in tables]


# what an evaluation could show


def published_gain() -> float:
    """Return the points that the authors report sink-awareness to gain over Wanda, on average."""
    average = published.published_averages()
    return average["sink-aware Wanda"] - average["Wanda"]


def power(model: str, disagreements: Sequence[float]) -> pd.DataFrame:
    """Return what paired accuracies could show, by the share of items that one model alone gets right.

    Columns: the points that FIRST_ITEMS of each of FIRST_TASKS, and all benchmarks of the paper in full,
    could show in their mean, and the items of one benchmark that show the gain that the authors report. The
    test has two sides at 1 − CONFIDENCE, no correction for several tests, and POWER. The two models are
    fixed: how much a difference varies over calibration draws has no part.
    """
    family = "dream" if MODELS[model].family == "dream" else "llada"
    in_full = [published.REQUESTS[benchmark.task].documents for benchmark in PAPER[family]]
    first = [FIRST_ITEMS] * len(FIRST_TASKS)
    gain = published_gain()

    rows = {
        f"{share:.0%}": {
            f"{FIRST_ITEMS} items of {len(first)} benchmarks, points": detectable_points(share, first),
            f"all {len(in_full)} in full, points": detectable_points(share, in_full),
            f"items of one for {gain:.2f} points": f"{needed_items(share, gain):,}",
        }
        for share in disagreements
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("answered differently")


def detectable_points(disagreement: float, items: Sequence[int]) -> float:
    """Return the smallest difference of mean accuracies, in points, that so many items could show."""
    variance = sum(disagreement / count for count in items) / len(items) ** 2
    return 100 * _reach() * variance**0.5


def needed_items(disagreement: float, points: float) -> int:
    """Return how many items of one benchmark show a difference of so many points."""
    return round(disagreement * (100 * _reach() / points) ** 2)


def _reach() -> float:
    """Return how many standard errors a difference must lie from zero to be seen with POWER."""
    return float(stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))
