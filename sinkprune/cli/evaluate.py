"""`sinkprune evaluate`: likelihood of held-out text, or tasks of lm-evaluation-harness."""

import sys
from contextlib import nullcontext
from dataclasses import asdict

import pandas as pd

from sinkprune.cli import common
from sinkprune.cli.commands.evaluate import MEANINGS, Evaluate
from sinkprune.cli.help_pages import say
from sinkprune.documents import written
from sinkprune.evaluation.conditional_likelihood import perplexity
from sinkprune.evaluation.harness.benchmarks import evaluate_named, local_tasks, named
from sinkprune.evaluation.local_data import running_text
from sinkprune.evaluation.protocols import PROTOCOLS
from sinkprune.evaluation.suite import groups_of
from sinkprune.evaluation.text_scores import score_texts
from sinkprune_core.language_model import LanguageModel

TEXT_BATCH = 32  # sequences at once where text is scored
TEXT_DRAWS = 8  # noise levels per sequence
PROTOCOL_BATCH = 16  # windows at once where a protocol scores it


def run(options: Evaluate) -> None:
    """Evaluate a model and print a table; what is missing or broken is said before the model is loaded."""
    common.settle_device(options)
    if options.tasks:
        lm, table = task_table(options)
    elif options.protocol is None:
        lm, table = text_table(options)
    else:
        lm, table = protocol_table(options, options.protocol)

    is_of_suite = {"task", "error_draws"} <= set(table)
    common.print_table(table, options.json, MEANINGS if is_of_suite else None, common.described(lm))

    warning = common.known_text(options, options.model)
    if warning is not None:
        say(warning, sys.stdout)


def text_table(options: Evaluate) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and nats per token of sequences of the text, with an interval, a row per source."""
    lm, texts = common.model_and_texts(options, options.sequences, options.length, held_out=True)
    if not lm.is_diffusion:
        options.refuse(("draws",), f"{lm.name} is autoregressive, and its likelihood is exact")

    draws, batch = options.draws or TEXT_DRAWS, options.batch or TEXT_BATCH
    by_source = score_texts(lm, texts, draws, batch=batch, seed=options.seed).groupby("text").value
    rows = {source: {"measure": measure_of(lm), **common.estimate(values)} for source, values in by_source}
    return lm, pd.DataFrame(rows).T


def protocol_table(options: Evaluate, name: str) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and nats per token of `--text`, or of its first `--limit` windows, by a protocol."""
    protocol = PROTOCOLS[name]
    documents = common.documents_of(options, held_out=True)
    assert options.text is not None and documents is not None  # or the options would not have settled

    lm = common.open_model(options, options.model)
    ids_T = lm.encode(running_text(written(documents, lm.text_tokenizer)))
    if options.limit is not None and protocol.chunk is not None:
        ids_T = ids_T[: protocol.chunk * (options.limit + 1) + 1]

    batch = options.batch or PROTOCOL_BATCH
    scored = perplexity(lm, ids_T, protocol, options.seed, batch, progress=True)
    row = {"measure": f"{measure_of(lm)}, {name}", **asdict(scored)}
    return lm, pd.DataFrame({options.text.name: row | {"perplexity": scored.perplexity}}).T


def task_table(options: Evaluate) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and the results of `--tasks`, with BLiMP and WikiText-2 from `--data` if given."""
    of_suite = [name for name in options.tasks if groups_of(name)]
    others = [name for name in options.tasks if not groups_of(name)]

    if options.family is not None:
        settled = named(options.family)
        if not settled.keys() & {*options.tasks} and options.tasks != ["paper"]:
            options.refuse(("family",), f"it has settings of paper and of {', '.join(settled)} only")

    if not others:
        options.refuse(("data", "include_path"), "the suite comes with this package")

    data = nullcontext((others, options.include_path))
    if options.data is not None:
        data = local_tasks(options.data, others, options.split or "test")

    with data as (others, include):
        lm = common.open_model(options, options.model)
        if not lm.is_diffusion and not others:
            options.refuse(("seed",), f"{lm.name} is autoregressive, and its answers to the suite are exact")
        shared = {name: getattr(options, name) for name in ("limit", "family", "draws", "seed", "batch")}
        table = evaluate_named(lm, [*of_suite, *others], **shared, include=include, progress=True)

    if {"low", "high"} <= set(table):  # of the suite, whose values are shares
        table[["low", "high"]] = table[["low", "high"]].clip(0.0, 1.0)

    return lm, table


def measure_of(lm: LanguageModel) -> str:
    """Return what a number of this model is."""
    return f"{'NELBO' if lm.is_diffusion else 'negative log-likelihood'}, nats per token"
