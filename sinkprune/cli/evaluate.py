"""`sinkprune evaluate`: likelihood of held-out text, or tasks of lm-evaluation-harness."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import ExistingDirectory, PositiveInt

from sinkprune.cli.options import (
    ANY,
    AT,
    Length,
    Model,
    NewPath,
    Seed,
    Source,
    SourceOptions,
    Where,
    WhereOptions,
    refuse,
)
from sinkprune.cli.screen import loading, say

if TYPE_CHECKING:
    import pandas as pd

    from sinkprune_core.language_model import LanguageModel

SEQUENCES = Group("likelihood of sequences drawn from the text", sort_key=4)
WHOLE_TEXT = Group("likelihood of the whole text", sort_key=5)
TASKS = Group("tasks", sort_key=6)
MEANINGS = {  # of the suite's columns
    "acc": "share of items whose right answer is more likely; acc_norm: per token. Chance is one half",
    "low, high": "95 % interval over templates of items; what random masks add is in it",
    "error_draws": "standard error that random masks add to the value at most; --draws asks for more of them",
}
TEXT_BATCH = 32  # sequences at once where text is scored
TEXT_DRAWS = 8  # noise levels per sequence
TEXT_SEQUENCES = 32
PROTOCOL_BATCH = 16  # windows at once where a protocol scores it


def evaluate(
    model: Model,
    /,
    *,
    sequences: Annotated[
        PositiveInt | None, Parameter(help="sequences of text", show_default="32", group=SEQUENCES)
    ] = None,
    length: Annotated[Length, Parameter(group=SEQUENCES)] = None,
    protocol: Annotated[
        Literal["ppl_llada", "main_llada", "main_dream"] | None,
        Parameter(
            help="score the whole --text in windows by a published perplexity protocol", group=WHOLE_TEXT
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        Parameter(
            help="tasks of lm-evaluation-harness, by spaces or commas, with --data blimp and wikitext from a "
            "local folder; suite (this project's own, offline); or paper (the paper's eight benchmarks)",
            metavar="TASK …",
            consume_multiple=(1, None),
            group=TASKS,
        ),
    ] = None,
    include_path: Annotated[
        ExistingDirectory | None,
        Parameter(
            help="folder of further tasks, YAML files of lm-evaluation-harness",
            metavar="FOLDER",
            group=TASKS,
        ),
    ] = None,
    family: Annotated[
        Literal["llada", "dream", "autoregressive"] | None,
        Parameter(
            help="whose published settings the paper's benchmarks take. They are shots, draws (of LLaDA for "
            "MMLU one), classifier-free guidance (of LLaDA 0.5 in five), the longest input (of Dream 2048 "
            "tokens) and the length of what is written (default: the harness's own; for --tasks paper by the "
            "kind of model)",
            group=TASKS,
        ),
    ] = None,
    limit: Annotated[
        PositiveInt | None,
        Parameter(help="items per task, or windows of --protocol", show_default="all", group=TASKS),
    ] = None,
    draws: Annotated[
        PositiveInt | None,
        Parameter(
            help="random masks of each sequence, or of each answer of --tasks, under a diffusion model",
            show_default="8 for texts and the suite, 128 for other tasks, as published",
        ),
    ] = None,
    seed: Seed = 0,
    batch: Annotated[
        PositiveInt | None, Parameter(help="sequences at once; it changes speed and memory only")
    ] = None,
    json: Annotated[NewPath, Parameter(help="where the table goes besides")] = None,
    source: SourceOptions = ANY,
    where: WhereOptions = AT,
) -> None:
    """Measure the likelihood of held-out text, or score tasks."""
    names = " ".join(tasks or ()).replace(",", " ").split()
    if tasks and not names:
        raise ValueError(f"--tasks {' '.join(tasks)} names no task: give one, e.g. --tasks suite")

    shared = {"draws": draws, "seed": seed, "batch": batch}
    if names:
        of_text = {"text": source.text, "sequences": sequences, "length": length}
        refuse("it is for held-out text, and tasks have texts of their own", protocol=protocol, **of_text)
        lm, table = task_table(
            model, where, source, names, include_path, family=family, limit=limit, **shared
        )
    else:
        refuse("it is for --tasks", family=family, include_path=include_path)
        if protocol is None:
            refuse("it counts items of --tasks or windows of --protocol", limit=limit)
            lm, table = text_table(model, where, source, sequences or TEXT_SEQUENCES, length, **shared)
        else:
            refuse(
                "a protocol scores the whole --text in windows and draws of its own",
                sequences=sequences,
                length=length,
                draws=draws,
            )
            lm, table = protocol_table(model, where, source, protocol, limit, seed, batch)

    from sinkprune.cli import common

    common.write_rows(table, json)
    common.print_table(table, common.described(lm))
    if {"task", "error_draws"} <= set(table):  # of the suite
        common.explain(MEANINGS)

    warning = common.known_text(source, model)
    if warning is not None:
        say(warning, sys.stdout)


def text_table(
    model: str,
    where: Where,
    source: Source,
    sequences: int,
    length: int | None,
    draws: int | None,
    seed: int,
    batch: int | None,
) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and nats per token of sequences of the text, with an interval, a row per source."""
    with loading(model):
        import pandas as pd

        from sinkprune.cli import common
        from sinkprune.evaluation.text_scores import score_texts

        lm, texts = common.model_and_texts(model, where, source, sequences, length, seed=seed, held_out=True)

    if not lm.is_diffusion:
        refuse(f"{lm.name} is autoregressive, and its likelihood is exact", draws=draws)

    scored = score_texts(lm, texts, draws or TEXT_DRAWS, batch=batch or TEXT_BATCH, seed=seed)
    by_source = scored.groupby("text").value
    rows = {name: {"measure": measure_of(lm), **common.estimate(values)} for name, values in by_source}
    return lm, pd.DataFrame(rows).T


def protocol_table(
    model: str, where: Where, source: Source, name: str, limit: int | None, seed: int, batch: int | None
) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and nats per token of `--text`, or of its first `--limit` windows, by a protocol."""
    if source.text is None:
        raise ValueError(f"--protocol {name} scores a running text: give --text")

    with loading(model):
        import pandas as pd

        from sinkprune.cli import common
        from sinkprune.documents import written
        from sinkprune.evaluation.conditional_likelihood import perplexity
        from sinkprune.evaluation.local_data import running_text
        from sinkprune.evaluation.protocols import PROTOCOLS

        documents = common.documents_of(source, held_out=True) or []
        lm = common.open_model(model, where)

    protocol = PROTOCOLS[name]
    ids_T = lm.encode(running_text(written(documents, lm.text_tokenizer)))
    if limit is not None and protocol.chunk is not None:
        ids_T = ids_T[: protocol.chunk * (limit + 1) + 1]

    scored = perplexity(lm, ids_T, protocol, seed, batch or PROTOCOL_BATCH, progress=True)
    row = {"measure": f"{measure_of(lm)}, {name}", **asdict(scored)}
    return lm, pd.DataFrame({source.text.name: row | {"perplexity": scored.perplexity}}).T


def task_table(
    model: str,
    where: Where,
    source: Source,
    tasks: list[str],
    include_path: Path | None,
    **settings: Any,
) -> tuple[LanguageModel, pd.DataFrame]:
    """Return the model, and the results of `--tasks`, with BLiMP and WikiText-2 from `--data` if given.

    `settings` are the family, the limit, the draws, the seed and the batch.
    """
    if source.data is None or "wikitext" not in tasks:
        refuse("it chooses among files of --data FOLDER for the task wikitext", split=source.split)
    if source.data is not None:
        refuse("--data FOLDER brings the tasks blimp and wikitext", include_path=include_path)

    with ExitStack() as stack:
        with loading(model):
            from sinkprune.cli import common
            from sinkprune.evaluation.harness.benchmarks import evaluate_named, local_tasks, named
            from sinkprune.evaluation.suite import groups_of

            of_suite = [name for name in tasks if groups_of(name)]
            others = [name for name in tasks if not groups_of(name)]

            family = settings["family"]
            if family is not None and not {"paper", *named(family)} & {*tasks}:
                known = ", ".join(named(family))
                refuse(f"it has settings of paper and of {known} only", family=family)
            if not others:
                refuse("the suite comes with this package", data=source.data, include_path=include_path)

            include = include_path
            if source.data is not None:
                data = local_tasks(source.data, others, source.split or "test")
                others, include = stack.enter_context(data)

            lm = common.open_model(model, where)

        if not lm.is_diffusion and not others:
            exact = f"{lm.name} is autoregressive, and its answers to the suite are exact"
            refuse(exact, seed=settings["seed"])
        table = evaluate_named(lm, [*of_suite, *others], **settings, include=include, progress=True)

    if {"low", "high"} <= set(table):  # of the suite, whose values are shares
        table[["low", "high"]] = table[["low", "high"]].clip(0.0, 1.0)

    return lm, table


def measure_of(lm: LanguageModel) -> str:
    """Return what a number of this model is."""
    return f"{'NELBO' if lm.is_diffusion else 'negative log-likelihood'}, nats per token"
