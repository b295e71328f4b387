"""`sinkprune compare`: two models, or one before and after pruning, in pairs on the same texts and items.

`model` is A, `other` is B, and differences are B - A.
"""

import math
import sys
from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from sinkprune.cli import common
from sinkprune.cli.commands.compare import Compare
from sinkprune.cli.help_pages import say
from sinkprune.evaluation import suite, two_choice
from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.text_scores import score_texts
from sinkprune.evaluation.verdict_rule import ABOVE, BELOW, UNDECIDED, deciding_factor, verdict
from sinkprune.files import write_json
from sinkprune.models.loading import without_weights
from sinkprune_core.language_model import LanguageModel

TEXT_BATCH = 32  # sequences at once
TEXT_DRAWS = 4  # noise levels per sequence: more sequences tell more than more draws
NATS = "nats per token"
ACCURACY = "accuracy"
MEASURES = {  # what is independent, the columns that name one of these, and the column that is compared
    NATS: ("sequences", ["sequence"], "value"),
    ACCURACY: ("templates of items", ["group", "template", "pair"], "correct"),
}
BETTER = {ABOVE: "A is better", BELOW: "B is better"}  # where B - A in a loss lies


def run(options: Compare) -> None:
    """Score both models, one after the other, and print differences with a verdict."""
    common.settle_device(options)
    lm, texts = common.model_and_texts(options, options.sequences, common_length(options), held_out=True)

    a = scores(lm, texts, options)
    kind_a = lm.kind
    about_a = common.described(lm)
    del lm  # only one model is in memory at a time

    say(f"loading {options.other} …")
    lm = common.open_model(options, options.other)
    b = scores(lm, texts, options)
    about_b = common.described(lm)

    warnings = [common.known_text(options, name) for name in (options.model, options.other)]
    known = [warning for warning in warnings if warning is not None]
    result = {"a": options.model, "b": options.other, "kind_a": kind_a, "kind_b": lm.kind}
    result |= {"margin": options.margin, **comparison(a, b, options.margin)}

    print(f"A is {options.model}: {about_a}")
    print(f"B is {options.other}: {about_b}\n")
    print(report(result))
    for warning in known:
        say(warning, sys.stdout)

    if options.json is not None:
        write_json(options.json, result)


def common_length(options: Compare) -> int:
    """Return the tokens per sequence that both models are scored on, before weights are read.

    Raises ValueError for other tokenizers, a length beyond positions, and `--draws` where both are exact.
    """
    a, _ = without_weights(options.model)
    b, _ = without_weights(options.other)
    if a.text_tokenizer.get_vocab() != b.text_tokenizer.get_vocab():
        raise ValueError(
            f"{options.model} and {options.other} have different tokenizers: nats per token of different "
            "tokens cannot be compared (bits per character would be needed); give two models of one tokenizer"
        )

    if not a.is_diffusion and not b.is_diffusion:
        options.refuse(("draws",), "both models are autoregressive, and their likelihood is exact")

    positions_a, positions_b = (each.model.config.max_position_embeddings for each in (a, b))
    positions = min(positions_a, positions_b)
    length = options.length or common.default_length(options, positions)
    if length > positions:
        shorter = options.model if positions_a == positions else options.other
        raise ValueError(
            f"--length {length} exceeds the {positions} positions of {shorter}: ask for shorter sequences"
        )

    return length


def scores(lm: LanguageModel, texts: dict[str, torch.Tensor], options: Compare) -> dict[str, pd.DataFrame]:
    """Return nats per token of the texts and, where they are asked for, answers to the suite, by measure."""
    draws, batch = options.draws or TEXT_DRAWS, options.batch or TEXT_BATCH
    tables = {NATS: score_texts(lm, texts, draws, batch=batch, seed=options.seed)}

    if options.tasks:
        draws, batch = options.draws or two_choice.DRAWS, options.batch or two_choice.BATCH
        items = suite.items(limit=options.limit)
        tables[ACCURACY] = two_choice.accuracy(lm, items, draws, options.seed, batch, progress=True)

    return tables


def comparison(
    a: Mapping[str, pd.DataFrame], b: Mapping[str, pd.DataFrame], margin: float
) -> dict[str, object]:
    """Return what the `scores` of two models say: the verdict on NATS, the items that flipped where there are
    some, and every difference with its 95 % interval.

    Raises ValueError for other texts or items, and for a single sequence or template.
    """
    result = {}
    differences = []
    for measure, table in a.items():
        units, keys, column = MEASURES[measure]
        rows = paired(table, b[measure], keys, column)
        changes = rows.b - rows.a
        if measure == ACCURACY:
            changes = suite.by_template(changes.reset_index(name="change"), "change")

        change = interval(changes)
        row = {"measure": measure, "a": float(rows.a.mean()), "b": float(rows.b.mean())}
        low, high = change.low, change.high
        if measure == ACCURACY:  # a difference of two shares
            low, high = max(low, -1.0), min(high, 1.0)

        row |= {"b_minus_a": change.value, "low": low, "high": high}
        differences.append({**row, "number": change.units, "units": units})

        if measure == NATS:
            result["verdict"] = outcome(change, margin)
        else:
            right_a, right_b = rows.a == 1, rows.b == 1
            kinds = {
                "only_a": right_a & ~right_b,
                "only_b": right_b & ~right_a,
                "both": right_a & right_b,
                "neither": ~right_a & ~right_b,
            }
            result["flips"] = {name: int(which.sum()) for name, which in kinds.items()}

    return {**result, "differences": differences}


def paired(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Return `column` of both tables as `a` and `b`, by `keys` and the number of a row where they repeat.

    Raises ValueError where these differ.
    """
    rows = [table.assign(row=table.groupby(keys).cumcount()).set_index([*keys, "row"]) for table in (a, b)]
    if not rows[0].index.equals(rows[1].index):
        raise ValueError(
            f"the two tables have {len(a)} and {len(b)} rows and not the same {', '.join(keys)}: "
            "score both models on the same texts and items"
        )

    return pd.DataFrame({"a": rows[0][column], "b": rows[1][column]}, dtype=float)


def outcome(difference: Estimate, margin: float) -> str:
    """Return what a difference in nats per token says by `verdict_rule`, of `undecided` with half the width
    of the interval and the number of sequences that would decide.
    """
    result = verdict(difference, margin)
    if result != UNDECIDED:
        return BETTER.get(result, result)
    count = math.ceil(difference.units * deciding_factor(difference, 0.0, margin))
    return f"undecided (half-width {difference.half_width:.2g}; about {count:,} sequences would decide)"


def report(result: dict) -> str:
    """Return what is printed: the table, the items that flipped, and the verdict last."""
    table = pd.DataFrame(result["differences"]).set_index("measure")
    lines = [common.as_text(table), ""]

    if "flips" in result:
        only_a, only_b, both, neither = result["flips"].values()
        alike = f"{both + neither} alike ({both} right, {neither} wrong)"
        lines.append(f"items: {only_a} are right in A only, {only_b} in B only, {alike}")

    if result["kind_a"] != result["kind_b"]:
        lines.append(
            "a diffusion model's nats are an upper bound and an autoregressive model's are exact: "
            "part of the difference is the bound's"
        )

    lines.append(f"verdict (margin {result['margin']:g} nats per token): {result['verdict']}")
    return "\n".join(lines)
