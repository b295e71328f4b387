"""Recompute the numbers of the paper's protocol from the archive, by code that shares nothing with the rest.

    python tools/recompute.py

It reads `figures/records-full.tar.xz`, takes every difference of recipes under that protocol, in losses
and in right answers, with the intervals of a crossed design by the textbook's formulas, and compares value,
interval and margin with what `figures/findings` has. It needs numpy and scipy, and ends with status 1 where a
number differs.

Dimensions: R calibration draws, N scored sequences or templates of items.
"""

import csv
import io
import json
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
SCORED = "2274f27e28e5cf0f"  # fingerprint of the scored sequences of the protocol
MARGIN = (53.18 - 52.70) / (57.93 - 52.70) / 2  # half of what the paper's method gives back of Wanda's cost
TOLERANCE = 1e-9

# what tells a recipe from others, in the words of its record; what is left out is as in Wanda
WANDA = {
    "criterion": "wanda",
    "inputs": "clean",
    "propagation": "sequential",
    "exclude": "none",
    "pattern": "row",
}
NOISED = {**WANDA, "inputs": "noised", "propagation": "dense", "noise": "grid"}
OFFICIAL = {**NOISED, "noise": "official", "norm_reduction": "sum"}
SPARSEGPT = {**WANDA, "criterion": "sparsegpt", "pattern": "layer"}
RECIPES = {
    "wanda": WANDA,
    "noised-dense": NOISED,
    "all-sinks": {**NOISED, "exclude": "all"},
    "unstable": {**NOISED, "exclude": "unstable"},
    "random": {**NOISED, "exclude": "random"},
    "paper": {**OFFICIAL, "exclude": "official"},
    "paper-sinks-kept": OFFICIAL,
    "sparsegpt": SPARSEGPT,
    "paper-sparsegpt": {**SPARSEGPT, "exclude": "official"},
    "recommended": {**SPARSEGPT, "inputs": "noised", "noise": "half-clean"},
    "structured": {**WANDA, "pattern": "structured"},
    "structured-sink": {**OFFICIAL, "exclude": "official", "pattern": "structured"},
    "structured-sinks-kept": {**OFFICIAL, "pattern": "structured"},
}
DIFFERENCES = {
    "paper_minus_wanda": ("paper", "wanda"),
    "noised_dense_minus_wanda": ("noised-dense", "wanda"),
    "paper_minus_paper_sinks_kept": ("paper", "paper-sinks-kept"),
    "paper_sinks_kept_minus_wanda": ("paper-sinks-kept", "wanda"),
    "paper_sinks_kept_minus_noised_dense": ("paper-sinks-kept", "noised-dense"),
    "all_sinks_minus_none": ("all-sinks", "noised-dense"),
    "unstable_minus_none": ("unstable", "noised-dense"),
    "random_minus_none": ("random", "noised-dense"),
    "paper_sparsegpt_minus_sparsegpt": ("paper-sparsegpt", "sparsegpt"),
    "sparsegpt_minus_wanda": ("sparsegpt", "wanda"),
    "recommended_minus_sparsegpt": ("recommended", "sparsegpt"),
}
DENSE = ("dense", 0.0, False)
OF_UNITS = {
    "structured_sink_minus_structured": ("structured-sink", "structured"),
    "structured_sink_minus_sinks_kept": ("structured-sink", "structured-sinks-kept"),
}


def records(archive: Path) -> list[tuple[str, dict, list[dict]]]:
    """Return the kind, the key and the rows of every record of scores and answers."""
    keys, tables = {}, {}
    with tarfile.open(archive) as packed:
        for member in packed:
            kind, _, name = member.name.removeprefix("./").partition("/")
            if kind not in ("scores", "answers") or not member.isfile():
                continue

            text = packed.extractfile(member).read().decode()
            stem = f"{kind}/{Path(name).stem}"
            if name.endswith(".json"):
                keys[stem] = json.loads(text)["key"]
            else:
                tables[stem] = list(csv.DictReader(io.StringIO(text)))

    return [(stem.partition("/")[0], key, tables[stem]) for stem, key in keys.items()]


def name_of(recipe: dict | None) -> str | None:
    """Return what a record's recipe is called here; None for one of other questions."""
    if recipe is None:
        return "dense"
    found = [name for name, fields in RECIPES.items() if fields.items() <= recipe.items()]
    return found[0] if len(found) == 1 else None


def crossed(values_RN: np.ndarray) -> tuple[float, float, float]:
    """Return mean and 95 % interval of two crossed random effects without replication (Satterthwaite)."""
    draws, units = values_RN.shape
    mean = values_RN.mean()
    of_draw = values_RN.mean(1) - mean
    of_unit = values_RN.mean(0) - mean
    rest_RN = values_RN - mean - of_draw[:, None] - of_unit[None, :]

    freedom_rest = (draws - 1) * (units - 1)
    square_rest = (rest_RN**2).sum() / freedom_rest
    sources = [
        (units * (of_draw**2).sum() / (draws - 1), draws - 1),
        (draws * (of_unit**2).sum() / (units - 1), units - 1),
    ]
    counted = [(square, freedom) for square, freedom in sources if square > square_rest]
    times_rest = 1 - len(counted)  # how often the square of the rest is in the sum

    variance = sum(square for square, _ in counted) + times_rest * square_rest
    if variance == 0:
        return mean, mean, mean

    spread = sum(square**2 / freedom for square, freedom in counted)
    spread += (times_rest * square_rest) ** 2 / freedom_rest
    reach = stats.t.ppf(0.975, variance**2 / spread) * (variance / values_RN.size) ** 0.5
    return mean, mean - reach, mean + reach


class Measured:
    """Losses or answers, by recipe, sparsity and calibration draw."""

    def __init__(self):
        self.by_variant = defaultdict(dict)

    def add(self, name: str, sparsity: float, large: bool, draw: int, values_N: list[float]) -> None:
        """Add what one pruned model scored."""
        self.by_variant[name, sparsity, large][draw] = values_N

    def together(self, *variants: tuple[str, float, bool]) -> list[np.ndarray] | None:
        """Return values (R, N) of variants on the draws that all have; None where one was not measured."""
        draws = set.intersection(*(set(self.by_variant.get(variant, ())) for variant in variants))
        if len(draws) < 2:
            return None
        return [np.array([self.by_variant[variant][draw] for draw in sorted(draws)]) for variant in variants]


def losses_and_answers(archive: Path) -> tuple[Measured, dict[tuple[str, str], Measured]]:
    """Return losses of the protocol, and its answers by benchmark and by what of them counts."""
    losses, answers = Measured(), defaultdict(Measured)
    draw_of_text = {}
    found = records(archive)

    for kind, key, rows in found:
        name = name_of(key["recipe"])
        if kind != "scores" or key["data"] != SCORED or name is None:
            continue

        draw = key["evaluation_seed"]  # each draw has noise of its own, numbered as the draw
        draw_of_text[key["calibration"]] = draw
        sparsity = key["recipe"]["sparsity"] if key["recipe"] else 0.0
        ordered = sorted(rows, key=lambda row: int(row["sequence"]))
        large = int(rows[0]["calibration_tokens"]) > 100_000
        losses.add(name, sparsity, large, draw, [float(row["value"]) for row in ordered])

    for kind, key, rows in found:
        name = name_of(key["recipe"])
        if kind != "answers" or key["draws"] != 2 or name is None:
            continue

        sparsity = key["recipe"]["sparsity"] if key["recipe"] else 0.0
        draws = range(5) if name == "dense" else [draw_of_text[key["calibration"]]]
        for what in ("accuracy", "answer_margin"):
            values_N = by_template(rows, what)
            for draw in draws:
                answers[key["benchmark"], what].add(name, sparsity, False, draw, values_N)

    return losses, answers


def by_template(rows: list[dict], what: str) -> list[float]:
    """Return one value for each template of items, such that their mean is the mean over all items."""
    groups = defaultdict(list)
    for row in rows:
        value = 100.0 * (row["correct"] == "True") if what == "accuracy" else float(row["margin"])
        groups[row["group"], row["template"]].append(value)

    mean = sum(map(sum, groups.values())) / len(rows)
    factor = len(groups) / len(rows)
    return [mean + factor * sum(value - mean for value in group) for group in groups.values()]


class Found(dict):
    """Findings by their published names, each with `value`, `low`, `high` and, where it has one, `margin`."""

    def add(self, name: str, values_RN: np.ndarray, cost_RN: np.ndarray | None = None) -> None:
        """Add a difference, and the margin that the cost of its second side gives."""
        value, low, high = crossed(values_RN)
        self[name] = {"value": value, "low": low, "high": high}
        if cost_RN is not None and crossed(cost_RN)[1] > 0:
            self[name]["margin"] = MARGIN * cost_RN.mean()

    def add_sides(self, name: str, sides: list[np.ndarray] | None, sign: int = 1) -> None:
        """Add one less other of (one, other, dense); `sign` is -1 where what is lost is dense less other."""
        if sides is not None:
            one_RN, other_RN, dense_RN = sides
            self.add(name, one_RN - other_RN, sign * (other_RN - dense_RN))


def recomputed(archive: Path) -> Found:
    """Return every finding of the protocol that is a difference of two models."""
    losses, answers = losses_and_answers(archive)
    found = Found()
    for sparsity, ending in ((0.5, ""), (0.25, "_25"), (0.75, "_75")):
        add_losses(found, losses, sparsity, ending)
    add_units(found, losses)
    add_larger_amounts(found, losses)
    for (benchmark, what), measured in answers.items():
        add_answers(found, measured, f"{what}_{{}}_50_{benchmark}_wikitext")

    return found


def add_losses(found: Found, losses: Measured, sparsity: float, ending: str) -> None:
    """Add differences of losses at one sparsity, and at 50 % also without the sequence that differs most."""
    for name, (one, other) in DIFFERENCES.items():
        sides = losses.together((one, sparsity, False), (other, sparsity, False), DENSE)
        found.add_sides(f"{name}_wikitext{ending}", sides)
        if sparsity == 0.5 and not name.startswith("paper_sinks_kept"):
            largest = np.abs(sides[0] - sides[1]).max(0).argmax()
            rest = [np.delete(side, largest, 1) for side in sides]
            found.add_sides(f"{name}_wikitext_without_largest", rest)

    for one, other in (("paper", "wanda"), ("paper-sparsegpt", "sparsegpt")):
        one_RN, other_RN, dense_RN = losses.together((one, sparsity, False), (other, sparsity, False), DENSE)
        name, bar_RN = one.replace("-", "_"), MARGIN * (other_RN - dense_RN)
        found.add(f"{name}_matches_wikitext{ending}", one_RN - other_RN - bar_RN)
        found.add(f"{name}_full_gain_wikitext{ending}", one_RN - other_RN + 2 * bar_RN)


def add_units(found: Found, losses: Measured) -> None:
    """Add differences of losses where whole units are removed."""
    for ratio in (0.3, 0.5):
        for name, (one, other) in OF_UNITS.items():
            sides = losses.together((one, ratio, False), (other, ratio, False), DENSE)
            found.add_sides(f"{name}_{100 * ratio:.0f}_wikitext", sides)


def add_larger_amounts(found: Found, losses: Measured) -> None:
    """Add differences of losses on eight times the calibration text, to each other and to Wanda on less."""
    for name in ("paper_minus_wanda", "paper_minus_paper_sinks_kept", "paper_sinks_kept_minus_wanda"):
        one, other = DIFFERENCES[name]
        found.add_sides(
            f"{name}_wikitext_131072", losses.together((one, 0.5, True), (other, 0.5, True), DENSE)
        )

    for name, one in (("paper_as_many_sequences", "paper"), ("wanda_larger", "wanda")):
        sides = losses.together((one, 0.5, True), ("wanda", 0.5, False), DENSE)
        found.add_sides(f"{name}_minus_wanda_wikitext", sides)


def add_answers(found: Found, measured: Measured, pattern: str) -> None:
    """Add differences of answers at 50 %, which are better where they are higher."""
    for name, (one, other) in (DIFFERENCES | {"wanda_minus_dense": ("wanda", "dense")}).items():
        at_other = DENSE if other == "dense" else (other, 0.5, False)
        if not name.startswith("paper_sinks_kept"):
            sides = measured.together((one, 0.5, False), at_other, DENSE)
            found.add_sides(pattern.format(name), sides, sign=-1)


def differing(found: dict[str, dict[str, float]], published: dict[str, dict]) -> list[str]:
    """Return a line for every number that is not the published one."""
    lines = []
    for name, numbers in found.items():
        for part, number in numbers.items():
            printed = published.get(name, {}).get(part)
            if printed is None or abs(printed - number) > TOLERANCE * max(1.0, abs(number)):
                lines.append(f"{name}, {part}: published {printed}, recomputed {number}")

    return lines


def main() -> int:
    """Print what was recomputed and what differs, and return the exit status."""
    file = ROOT / "figures" / "findings" / "03_leaving_sinks_out.json"
    published = json.loads(file.read_text(encoding="utf-8"))["findings"]
    found = recomputed(ROOT / "figures" / "records-full.tar.xz")
    lines = differing(found, published)

    numbers = sum(map(len, found.values()))
    print(f"{len(found)} findings of the paper's protocol, {numbers} numbers; {len(lines)} differ")
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
