"""`sinkprune compare`: two models, or one before and after pruning, in pairs on the same texts and items."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.evaluate import SUITE_DRAWS, say_duration
from sinkprune_companion.cli.model_options import ModelOptions, add_model_options, check_model_name
from sinkprune_companion.cli.options import add_number, new_files, real, suggestion, whole

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from sinkprune_core.evaluation.comparison import Comparison
    from sinkprune_core.models.language_model import LanguageModel

SUMMARY = "two models, or one before and after pruning, on the same texts and items, with a verdict"
TEXT_BATCH = 32  # sequences at once
TEXT_DRAWS = 4  # noise levels per sequence: more sequences tell more than more draws
TASKS = ("suite",)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ModelOptions):
    """The options of `sinkprune compare`; `model` is A and `other` is B."""

    other: str
    batch: int | None = whole(None, least=1)
    sequences: int = whole(64, least=2)
    length: int | None = whole(None, least=2)
    draws: int | None = whole(None, least=1)
    tasks: tuple[str, ...] = ()
    limit: int | None = whole(None, least=1)
    margin: float = real(0.02, least=0, without_least=True)
    json: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in self.tasks:
            if name not in TASKS:
                near = suggestion(name, TASKS)
                raise ValueError(
                    f"--tasks {name} cannot be compared{near or ';'} give suite, or measure each model with "
                    "sinkprune evaluate"
                )
        if not self.tasks:
            self.refuse(("limit",), "it counts items of --tasks")


@dataclass(frozen=True)
class Scores:
    """What one model got."""

    kind: str
    """Its kind: a diffusion model's nats are a bound."""
    texts: pd.DataFrame
    """Nats per token, a row per sequence."""
    answers: pd.DataFrame | None
    """Answers to the suite, a row per item; None where it was not asked for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `CompareOptions`."""
    add_model_options(parser, CompareOptions)
    parser.add_argument("other", help="the model to compare it with, B in what is printed; the first is A")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes besides")
    add_number(parser, CompareOptions, "sequences", "sequences of held-out text")
    add_number(parser, CompareOptions, "length", "tokens per sequence", "128, with --text 512")
    add_number(
        parser,
        CompareOptions,
        "draws",
        "random masks of each sequence and of each answer under a diffusion model, the same for both",
        f"{TEXT_DRAWS}, in the suite {SUITE_DRAWS}",
    )
    add_number(
        parser,
        CompareOptions,
        "margin",
        "smallest difference that would matter, in nats per token; 0.02 is 2 % of perplexity",
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="suite: this project's offline items, besides the text"
    )
    add_number(parser, CompareOptions, "limit", "items of each group of the suite", "all")


def run(options: CompareOptions) -> int:
    """Score both models, one after the other, and print differences with a verdict."""
    check_model_name(options.model)
    check_model_name(options.other)
    options.check_text()
    with new_files(json=options.json):
        return compare_and_write(options)


def compare_and_write(options: CompareOptions) -> int:
    """Do what `run` says, with an output that is held."""
    from sinkprune_companion.cli.inputs import documents_of, on_device, open_model, sequences_of
    from sinkprune_companion.cli.tables import picture_of, print_next
    from sinkprune_core.files import write_json

    options = on_device(options)
    check_comparable(options)
    documents = documents_of(options, held_out=True)
    lm = open_model(options)
    texts = sequences_of(lm, options, documents, options.length, held_out=True)
    a = scores(lm, texts, options)
    del lm  # only one model is in memory at a time
    b = scores(open_model(dataclasses.replace(options, model=options.other)), texts, options)
    found = comparison(a, b, options)
    print(report(found, options))
    if options.json is not None:
        write_json(options.json, found)
    print_next("trace", options.other, "--figure", picture_of(options.other))
    return 0


def kept(options: CompareOptions) -> str:
    """Return what an interrupted run leaves."""
    return "nothing was written, and the same command begins anew"


def check_comparable(options: CompareOptions) -> None:
    """Raise ValueError for models of different tokenizers, and for `--draws` where both are exact."""
    from sinkprune_companion.cli.inputs import kind_and_tokenizer

    kind_a, tokenizer_a = kind_and_tokenizer(options.model)
    kind_b, tokenizer_b = kind_and_tokenizer(options.other)
    if tokenizer_a.get_vocab() != tokenizer_b.get_vocab():
        raise ValueError(
            f"{options.model} and {options.other} have different tokenizers: nats per token of different "
            "tokens cannot be compared (bits per character would be needed); give two models of one tokenizer"
        )
    if kind_a == kind_b == "autoregressive":
        options.refuse(("draws",), "both models are autoregressive, and their likelihood is exact")


def scores(lm: LanguageModel, texts: dict[str, torch.Tensor], options: CompareOptions) -> Scores:
    """Score the texts, and the items where they are asked for, on noise that depends on `--seed` alone."""
    from sinkprune_companion.experiments.scoring import score_texts
    from sinkprune_companion.harness import suite
    from sinkprune_core.diffusion.sampling import check_positions
    from sinkprune_core.evaluation import two_choice

    check_positions(lm, max(ids_NT.shape[1] for ids_NT in texts.values()))
    draws = options.draws or TEXT_DRAWS
    by_text = score_texts(lm, texts, draws, batch=options.batch or TEXT_BATCH, seed=options.seed)
    answers = None
    if options.tasks:
        answers = two_choice.accuracy(
            lm,
            suite.items(limit=options.limit),
            options.draws or SUITE_DRAWS,
            options.seed,
            options.batch or two_choice.BATCH,
            progress=True,
            announce=partial(say_duration, lm, options.draws or SUITE_DRAWS),
        )
    return Scores(lm.kind, by_text, answers)


def comparison(a: Scores, b: Scores, options: CompareOptions) -> dict[str, object]:
    """Return what is reported, as JSON values: differences, flips and the verdict."""
    from sinkprune_core.evaluation.comparison import (
        accuracy_difference,
        flips,
        nats_difference,
        outcome,
    )

    nats = nats_difference(a.texts, b.texts)
    rows = [row("nats per token", nats, "sequences")]
    found = {
        "a": options.model,
        "b": options.other,
        "kind_a": a.kind,
        "kind_b": b.kind,
        "margin": options.margin,
        "verdict": outcome(nats.difference, options.margin),
        "differences": rows,
    }
    if a.answers is not None:
        rows.append(row("accuracy", accuracy_difference(a.answers, b.answers), "pairs of items"))
        found["flips"] = dataclasses.asdict(flips(a.answers, b.answers))
    return found


def row(measure: str, found: Comparison, units: str) -> dict[str, object]:
    """Return one measure of both models as a row."""
    return {
        "measure": measure,
        "a": found.a,
        "b": found.b,
        "b_minus_a": found.difference.value,
        "low": found.difference.low,
        "high": found.difference.high,
        "number": found.difference.units,
        "units": units,
    }


def report(found: dict[str, object], options: CompareOptions) -> str:
    """Return what is printed: the table, the items that flipped, and the verdict last."""
    import pandas as pd

    from sinkprune_companion.cli.tables import as_text

    table = pd.DataFrame(found["differences"]).set_index("measure")
    lines = [f"A is {options.model}, B is {options.other}", "", as_text(table), ""]
    if "flips" in found:
        counts = found["flips"]
        same = counts["both"] + counts["neither"]
        lines += [
            f"items: {counts['only_a']} are right in A only, {counts['only_b']} in B only, "
            f"{same} alike ({counts['both']} right, {counts['neither']} wrong)"
        ]
    if found["kind_a"] != found["kind_b"]:
        lines += [
            "a diffusion model's nats are an upper bound and an autoregressive model's are exact: "
            "part of the difference is the bound's"
        ]
    lines += [f"verdict (margin {options.margin:g} nats per token): {found['verdict']}"]
    return "\n".join(lines)
