"""`sinkprune compare`: two models, or one before and after pruning, in pairs on the same texts and items.

`model` is A, `other` is B, and differences are B - A.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import (
    ANY,
    AT,
    Length,
    Model,
    NewPath,
    Seed,
    Source,
    SourceOptions,
    WhereOptions,
    refuse,
)
from sinkprune.cli.screen import loading, say

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from sinkprune_core.language_model import LanguageModel

TEXT_BATCH = 32  # sequences at once
TEXT_DRAWS = 4  # noise levels per sequence: more sequences tell more than more draws


def compare(
    model: Model,
    other: Annotated[
        str, Parameter(help="the model to compare it with, B in what is printed; the first is A")
    ],
    /,
    *,
    sequences: Annotated[int, Parameter(help="sequences of held-out text", validator=Number(gte=2))] = 64,
    length: Length = None,
    draws: Annotated[
        PositiveInt | None,
        Parameter(
            help="random masks of each sequence and of each answer under a diffusion model, alike for both",
            show_default="4, in the suite as in evaluate",
        ),
    ] = None,
    margin: Annotated[
        PositiveFloat,
        Parameter(help="smallest difference that would matter, in nats per token; 0.02 is 2 % of perplexity"),
    ] = 0.02,
    tasks: Annotated[
        tuple[Literal["suite"], ...],
        Parameter(help="suite: this project's offline items, besides the text", consume_multiple=(1, None)),
    ] = (),
    limit: Annotated[
        PositiveInt | None, Parameter(help="items of each group of the suite", show_default="all")
    ] = None,
    steps: Annotated[
        tuple[PositiveInt, ...],
        Parameter(
            help="denoising steps in which A and B write a short text that is timed; one counts for both",
            show_default="nothing is timed",
            consume_multiple=(1, 2),
        ),
    ] = (),
    seed: Seed = 0,
    batch: Annotated[
        PositiveInt | None, Parameter(help="sequences at once; it changes speed and memory only")
    ] = None,
    json: Annotated[NewPath, Parameter(help="where the result goes besides")] = None,
    source: SourceOptions = ANY,
    where: WhereOptions = AT,
) -> None:
    """Compare two models, or one before and after pruning, in pairs, with a verdict."""
    if not tasks:
        refuse("it counts items of --tasks", limit=limit)

    with loading(model):
        from sinkprune.cli import common
        from sinkprune.evaluation.comparison import comparison
        from sinkprune.files import write_json

        length = common_length(model, other, source, length, draws)
        check_steps(model, other, steps)
        lm, texts = common.model_and_texts(model, where, source, sequences, length, seed=seed, held_out=True)

    a = scores(lm, texts, draws, batch, seed, limit, bool(tasks))
    costs = {"a": cost(lm, steps[:1])}
    kind_a, about_a = lm.kind, common.described(lm)
    del lm  # only one model is in memory at a time

    with loading(other):
        lm = common.open_model(other, where)
    b = scores(lm, texts, draws, batch, seed, limit, bool(tasks))
    costs["b"] = cost(lm, steps[-1:])

    result = {"a": model, "b": other, "kind_a": kind_a, "kind_b": lm.kind, "costs": costs}
    result |= {"margin": margin, **comparison(a, b, margin)}
    if json is not None:
        write_json(json, result)

    print(f"A is {model}: {about_a}")
    print(f"B is {other}: {common.described(lm)}\n")
    print(report(result))
    for name in (model, other):
        warning = common.known_text(source, name)
        if warning is not None:
            say(warning, sys.stdout)


def common_length(model: str, other: str, source: Source, length: int | None, draws: int | None) -> int:
    """Return the tokens per sequence that both models are scored on, before weights are read.

    Raises ValueError for other tokenizers, a length beyond positions, and `--draws` where both are exact.
    """
    from sinkprune.cli.common import default_length
    from sinkprune.models.loading import without_weights

    a, _ = without_weights(model)
    b, _ = without_weights(other)
    if a.text_tokenizer.get_vocab() != b.text_tokenizer.get_vocab():
        raise ValueError(
            f"{model} and {other} have different tokenizers: nats per token of different tokens cannot be "
            "compared (bits per character would be needed); give two models of one tokenizer"
        )

    if not a.is_diffusion and not b.is_diffusion:
        refuse("both models are autoregressive, and their likelihood is exact", draws=draws)

    positions_a, positions_b = (each.model.config.max_position_embeddings for each in (a, b))
    positions = min(positions_a, positions_b)
    length = length or default_length(source, positions)
    if length > positions:
        shorter = model if positions_a == positions else other
        raise ValueError(
            f"--length {length} exceeds the {positions} positions of {shorter}: ask for shorter sequences"
        )

    return length


def check_steps(model: str, other: str, steps: tuple[int, ...]) -> None:
    """Raise ValueError for `--steps` with an autoregressive model, or beyond the tokens that are written."""
    from sinkprune.evaluation.savings import WRITTEN
    from sinkprune.models.loading import without_weights

    for name in (model, other):
        if not without_weights(name)[0].is_diffusion:
            refuse(f"{name} is autoregressive and has no denoising steps", steps=steps)
    if max(steps, default=0) > WRITTEN:
        raise ValueError(f"--steps {max(steps)} are more than the {WRITTEN} tokens of the text that is timed")


def cost(lm: LanguageModel, steps: tuple[int, ...]) -> dict[str, float]:
    """Return the gigabytes of a model's weights and, where `steps` name a number, what writing takes."""
    from dataclasses import asdict

    from sinkprune.evaluation.savings import savings, weight_bytes

    return asdict(savings(lm, *steps)) if steps else {"gigabytes": weight_bytes(lm) / 1e9}


def scores(
    lm: LanguageModel,
    texts: dict[str, torch.Tensor],
    draws: int | None,
    batch: int | None,
    seed: int,
    limit: int | None,
    with_suite: bool,
) -> dict[str, pd.DataFrame]:
    """Return nats per token of the texts and, where they are asked for, answers to the suite, by measure."""
    from sinkprune.evaluation import suite, two_choice
    from sinkprune.evaluation.comparison import ACCURACY, NATS
    from sinkprune.evaluation.text_scores import score_texts

    tables = {NATS: score_texts(lm, texts, draws or TEXT_DRAWS, batch=batch or TEXT_BATCH, seed=seed)}
    if with_suite:
        draws, batch = draws or two_choice.DRAWS, batch or two_choice.BATCH
        items = suite.items(limit=limit)
        tables[ACCURACY] = two_choice.accuracy(lm, items, draws, seed, batch, progress=True)

    return tables


def report(result: dict) -> str:
    """Return what is printed: the table, the items that flipped, and the verdict last."""
    import pandas as pd

    from sinkprune.cli.common import as_text

    table = pd.DataFrame(result["differences"]).set_index("measure")
    lines = [as_text(table), ""]

    if "flips" in result:
        only_a, only_b, both, neither = result["flips"].values()
        alike = f"{both + neither} alike ({both} right, {neither} wrong)"
        lines.append(f"items: {only_a} are right in A only, {only_b} in B only, {alike}")

    if result["kind_a"] != result["kind_b"]:
        lines.append(
            "a diffusion model's nats are an upper bound and an autoregressive model's are exact: "
            "part of the difference is the bound's"
        )

    lines += cost_lines(result["costs"]["a"], result["costs"]["b"])
    lines.append(f"verdict (margin {result['margin']:g} nats per token): {result['verdict']}")
    return "\n".join(lines)


def cost_lines(a: dict[str, float], b: dict[str, float]) -> list[str]:
    """Return what is printed of what the two models cost."""
    from sinkprune.evaluation.savings import WRITTEN

    lines = [f"weights: A {a['gigabytes']:.3g} GB, B {b['gigabytes']:.3g} GB"]
    if "seconds" in a:
        written = " and ".join(
            f"{name} in {of_model['steps']} steps {of_model['seconds']:.3g} s"
            for name, of_model in (("A", a), ("B", b))
        )
        ratio = b["seconds"] / a["seconds"]
        lines.append(f"writing {WRITTEN} tokens: {written}, {ratio:.2f} times as long")

    for name, of_model in (("A", a), ("B", b)):
        if of_model.get("kernel_seconds") is not None:
            lines.append(f"{name} on kernels for 2:4 zeros: {of_model['kernel_seconds']:.3g} s")

    return lines
