"""`sinkprune evaluate`: likelihood of held-out text, or tasks of lm-evaluation-harness."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions, check_model
from sinkprune_companion.cli.options import option, path, whole

if TYPE_CHECKING:
    import pandas as pd

    from sinkprune_core.models.language_model import LanguageModel

PROTOCOLS = ("ppl_llada", "main_llada", "main_dream")  # of evaluation.protocols, those for a running text
FAMILIES = ("llada", "dream", "autoregressive")  # of harness.benchmarks.PAPER
TEXT_BATCH = 32  # sequences at once where text is scored
TEXT_DRAWS = 8  # noise levels per sequence
SUITE_MEANINGS = {
    "acc": "share of items whose right answer is more likely; acc_norm: per token. Chance is one half",
    "low, high": "95 % interval over pairs of items; what random masks add is in it",
    "error_draws": "standard error that random masks add to the value at most; --draws asks for more of them",
}
PROTOCOL_BATCH = 16  # windows at once where a protocol scores it
DRAWN = "likelihood of sequences drawn from the text"
WHOLE = "likelihood of the whole text"
TASKS = "tasks"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ModelOptions):
    """The options of `sinkprune evaluate`: those of one of its three ways to evaluate, and no others."""

    batch: int | None = whole(None, "sequences at once; it changes speed and memory only", least=1)
    json: Path | None = path("where the table goes besides")
    draws: int | None = whole(
        None,
        "random masks of each sequence, or of each answer of --tasks, under a diffusion model",
        least=1,
        stated=f"{TEXT_DRAWS} for texts and the suite, 128 for other tasks, as published",
    )
    sequences: int = whole(32, "sequences of text", least=1, group=DRAWN)
    length: int | None = whole(
        None, "tokens per sequence", least=2, stated="128, with --text 512", group=DRAWN
    )
    protocol: str | None = option(
        None,
        f"score the whole --text in windows by a published perplexity protocol: {', '.join(PROTOCOLS)}",
        WHOLE,
        choices=PROTOCOLS,
        metavar="NAME",
    )
    tasks: tuple[str, ...] = option(
        (),
        "tasks of lm-evaluation-harness, by spaces or commas, with --data blimp and wikitext from a "
        "local folder; suite (this project's own, offline); or paper (the paper's eight benchmarks)",
        TASKS,
        nargs="+",
        metavar="TASK",
    )
    family: str | None = option(
        None,
        "whose published settings (shots, draws, length of what is written) the paper's benchmarks take: "
        "llada, dream or autoregressive (default: the harness's own; for --tasks paper by the kind of model)",
        TASKS,
        choices=FAMILIES,
    )
    limit: int | None = whole(
        None, "items per task, or windows of --protocol", least=1, stated="all", group=TASKS
    )

    outputs = ("json",)

    def __post_init__(self):
        super().__post_init__()
        if self.protocol is not None and (self.tasks or self.text is None):
            raise ValueError(f"--protocol {self.protocol} scores a running text: give --text and no --tasks")
        if self.tasks:
            self._check_tasks()
            return
        self.refuse(("family",), "it chooses settings of --tasks")
        if self.protocol is None:
            self.refuse(("limit",), "it counts items of --tasks or windows of --protocol")
        else:
            self.refuse(("sequences", "length"), "a protocol scores the whole --text in windows of its own")
            self.refuse(("draws",), "a protocol has its own number of draws")

    def _check_tasks(self) -> None:
        if not self.task_names:
            raise ValueError(f"--tasks {' '.join(self.tasks)} names no task: give one, e.g. --tasks suite")
        unused = ("text", "sequences", "length")
        self.refuse(unused, "it is for held-out text, and tasks have texts of their own")
        if self.split is not None and self.data is None:
            raise ValueError(
                f"--split {self.split} chooses among local files of WikiText-2: "
                "give --data FOLDER, or leave it out (the harness takes test)"
            )
        if "wikitext" not in self.task_names:
            self.refuse(("split",), "it chooses a split of the task wikitext, which is not among the --tasks")

    @property
    def task_names(self) -> list[str]:
        """The tasks of `--tasks`, which may be separated by commas too."""
        return [name for part in self.tasks for name in part.split(",") if name]

    def check_inputs(self) -> None:
        """Raise an error for a model or, without tasks, for a `--text` that is not there."""
        if self.tasks:
            check_model(self.model)
        else:
            super().check_inputs()


def run(options: EvaluateOptions) -> int:
    """Evaluate a model and print a table; what is missing or broken is said before the model is loaded."""
    from sinkprune_companion.cli.inputs import on_device
    from sinkprune_companion.cli.tables import print_table

    options = on_device(options)
    if options.tasks:
        table = task_table(options)
    elif options.protocol is not None:
        table = protocol_table(options)
    else:
        table = text_table(options)
    is_of_suite = {"task", "error_draws"} <= set(table)
    print_table(table, options.json, SUITE_MEANINGS if is_of_suite else None)
    return 0


def text_table(options: EvaluateOptions) -> "pd.DataFrame":
    """Return nats per token of sequences drawn from the text, with an interval, a row per source."""
    import pandas as pd

    from sinkprune_companion.cli.inputs import model_and_texts
    from sinkprune_companion.cli.tables import estimate
    from sinkprune_companion.experiments.scoring import score_texts

    lm, texts = model_and_texts(options, options.length, held_out=True)
    if not lm.is_diffusion:
        options.refuse(("draws",), f"{lm.name} is autoregressive, and its likelihood is exact")
    draws, batch = options.draws or TEXT_DRAWS, options.batch or TEXT_BATCH
    by_source = score_texts(lm, texts, draws, batch=batch, seed=options.seed).groupby("text").value
    rows = {source: {"measure": measure_of(lm), **estimate(values)} for source, values in by_source}
    return pd.DataFrame(rows).T


def protocol_table(options: EvaluateOptions) -> "pd.DataFrame":
    """Return nats per token of `--text`, or of its first `--limit` windows, by a published protocol."""
    import pandas as pd

    from sinkprune_companion.cli.inputs import documents_of, open_model
    from sinkprune_companion.harness.local_data import running_text
    from sinkprune_core.evaluation import protocols
    from sinkprune_core.evaluation.conditional_likelihood import perplexity

    protocol = protocols.PROTOCOLS[options.protocol]
    documents = documents_of(options, held_out=True)
    lm = open_model(options)
    ids_T = lm.encode(running_text(documents))
    if options.limit is not None:
        ids_T = ids_T[: protocol.chunk * (options.limit + 1) + 1]
    batch = options.batch or PROTOCOL_BATCH
    estimate = perplexity(lm, ids_T, protocol, options.seed, batch, progress=True)
    row = {"measure": f"{measure_of(lm)}, {options.protocol}", **asdict(estimate)}
    return pd.DataFrame({options.text.name: row | {"perplexity": estimate.perplexity}}).T


def task_table(options: EvaluateOptions) -> "pd.DataFrame":
    """Return the results of `--tasks`, with the data of BLiMP and WikiText-2 from `--data` if given."""
    from sinkprune_companion.cli.inputs import open_model
    from sinkprune_companion.harness.benchmarks import evaluate_named, local_tasks, named
    from sinkprune_companion.harness.suite import groups_of

    names = options.task_names
    of_suite = [name for name in names if groups_of(name)]
    others = [name for name in names if not groups_of(name)]
    if options.family is not None:
        settled = named(options.family)
        if not settled.keys() & {*names} and names != ["paper"]:
            options.refuse(("family",), f"it has settings of paper and of {', '.join(settled)} only")
    if not others:
        options.refuse(("data",), "the suite comes with this package")
    data = nullcontext((others, None))
    if options.data is not None:
        data = local_tasks(options.data, others, options.split or "test")
    with data as (others, include):
        lm = open_model(options)
        return evaluate_named(
            lm,
            [*of_suite, *others],
            options.limit,
            options.family,
            options.draws,
            options.seed,
            options.batch,
            include,
            progress=True,
        )


def measure_of(lm: "LanguageModel") -> str:
    """Return what a number of this model is."""
    return f"{'NELBO' if lm.is_diffusion else 'negative log-likelihood'}, nats per token"
