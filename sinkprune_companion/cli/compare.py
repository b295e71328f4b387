"""`sinkprune compare`: two models, or one before and after pruning, in pairs on the same texts and items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions, check_model
from sinkprune_companion.cli.options import option, path, positional, real, whole

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from sinkprune_core.models.language_model import LanguageModel

TEXT_BATCH = 32  # sequences at once
TEXT_DRAWS = 4  # noise levels per sequence: more sequences tell more than more draws


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ModelOptions):
    """The options of `sinkprune compare`; `model` is A and `other` is B."""

    other: str = positional("the model to compare it with, B in what is printed; the first is A")
    batch: int | None = whole(None, "sequences at once; it changes speed and memory only", least=1)
    sequences: int = whole(64, "sequences of held-out text", least=2)
    length: int | None = whole(None, "tokens per sequence", least=2, stated="128, with --text 512")
    draws: int | None = whole(
        None,
        "random masks of each sequence and of each answer under a diffusion model, the same for both",
        least=1,
        stated=f"{TEXT_DRAWS}, in the suite as in evaluate",
    )
    margin: float = real(
        0.02,
        "smallest difference that would matter, in nats per token; 0.02 is 2 % of perplexity",
        "above 0",
    )
    tasks: tuple[str, ...] = option(
        (),
        "suite: this project's offline items, besides the text",
        nargs="+",
        choices=("suite",),
        metavar="TASK",
    )
    limit: int | None = whole(None, "items of each group of the suite", least=1, stated="all")
    json: Path | None = path("where the result goes besides")

    outputs = ("json",)

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks:
            self.refuse(("limit",), "it counts items of --tasks")

    def check_inputs(self) -> None:
        """Raise an error for a `--text` or a model that is not there."""
        super().check_inputs()
        check_model(self.other)


def run(options: CompareOptions) -> int:
    """Score both models, one after the other, and print differences with a verdict."""
    from sinkprune_companion.cli.inputs import model_and_texts, on_device, open_model
    from sinkprune_companion.experiments.comparison import comparison
    from sinkprune_core.files import write_json

    options = on_device(options)
    lm, texts = model_and_texts(options, common_length(options), held_out=True)
    a, kind_a = scores(lm, texts, options), lm.kind
    del lm  # only one model is in memory at a time
    lm = open_model(replace(options, model=options.other))
    b = scores(lm, texts, options)
    result = {"a": options.model, "b": options.other, "kind_a": kind_a, "kind_b": lm.kind}
    result |= {"margin": options.margin, **comparison(a, b, options.margin)}
    print(report(result))
    if options.json is not None:
        write_json(options.json, result)
    return 0


def common_length(options: CompareOptions) -> int:
    """Return the tokens per sequence that both models are scored on; no weights are read for it.

    Raises ValueError for models of different tokenizers, for a length beyond the positions of one, and for
    `--draws` where both are exact.
    """
    from sinkprune_companion.cli.inputs import default_length, without_weights

    kind_a, vocabulary_a, positions_a = without_weights(options.model)
    kind_b, vocabulary_b, positions_b = without_weights(options.other)
    if vocabulary_a != vocabulary_b:
        raise ValueError(
            f"{options.model} and {options.other} have different tokenizers: nats per token of different "
            "tokens cannot be compared (bits per character would be needed); give two models of one tokenizer"
        )
    if kind_a == kind_b == "autoregressive":
        options.refuse(("draws",), "both models are autoregressive, and their likelihood is exact")
    positions = min(positions_a, positions_b)
    length = options.length or default_length(options, positions)
    if length > positions:
        shorter = options.model if positions_a == positions else options.other
        raise ValueError(
            f"--length {length} exceeds the {positions} positions of {shorter}: ask for shorter sequences"
        )
    return length


def scores(
    lm: LanguageModel, texts: dict[str, torch.Tensor], options: CompareOptions
) -> dict[str, pd.DataFrame]:
    """Return nats per token of the texts and, where they are asked for, answers to the suite, by measure.

    Noise depends on `--seed` alone.
    """
    from sinkprune_companion.experiments.comparison import ACCURACY, NATS
    from sinkprune_companion.experiments.scoring import score_texts
    from sinkprune_companion.harness import suite
    from sinkprune_core.evaluation import two_choice

    draws, batch = options.draws or TEXT_DRAWS, options.batch or TEXT_BATCH
    tables = {NATS: score_texts(lm, texts, draws, batch=batch, seed=options.seed)}
    if options.tasks:
        draws, batch = options.draws or two_choice.DRAWS, options.batch or two_choice.BATCH
        items = suite.items(limit=options.limit)
        tables[ACCURACY] = two_choice.accuracy(lm, items, draws, options.seed, batch, progress=True)
    return tables


def report(result: dict) -> str:
    """Return what is printed: the table, the items that flipped, and the verdict last."""
    import pandas as pd

    from sinkprune_companion.cli.tables import as_text

    table = pd.DataFrame(result["differences"]).set_index("measure")
    lines = [f"A is {result['a']}, B is {result['b']}", "", as_text(table), ""]
    if "flips" in result:
        counts = result["flips"]
        same = counts["both"] + counts["neither"]
        lines.append(
            f"items: {counts['only_a']} are right in A only, {counts['only_b']} in B only, "
            f"{same} alike ({counts['both']} right, {counts['neither']} wrong)"
        )
    if result["kind_a"] != result["kind_b"]:
        lines.append(
            "a diffusion model's nats are an upper bound and an autoregressive model's are exact: "
            "part of the difference is the bound's"
        )
    lines.append(f"verdict (margin {result['margin']:g} nats per token): {result['verdict']}")
    return "\n".join(lines)
