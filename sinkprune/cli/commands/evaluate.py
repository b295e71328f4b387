"""What `sinkprune evaluate` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group, Parameter

from sinkprune.cli.options import OPTIONS, Length, TextOptions, place, whole, word

SEQUENCES = Group("likelihood of sequences drawn from the text", sort_key=4)
WHOLE_TEXT = Group("likelihood of the whole text", sort_key=5)
TASKS = Group("tasks", sort_key=6)
MEANINGS = {  # of the suite's columns
    "acc": "share of items whose right answer is more likely; acc_norm: per token. Chance is one half",
    "low, high": "95 % interval over templates of items; what random masks add is in it",
    "error_draws": "standard error that random masks add to the value at most; --draws asks for more of them",
}


@dataclass(kw_only=True)
class Evaluate(TextOptions):
    """Options of `sinkprune evaluate`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("json",)

    batch: Annotated[
        int | None, whole("sequences at once; it changes speed and memory only", at_least=1, group=OPTIONS)
    ] = None
    json: Annotated[Path | None, place("where the table goes besides")] = None
    draws: Annotated[
        int | None,
        whole(
            "random masks of each sequence, or of each answer of --tasks, under a diffusion model",
            at_least=1,
            show_default="8 for texts and the suite, 128 for other tasks, as published",
        ),
    ] = None
    sequences: Annotated[int, whole("sequences of text", at_least=1, group=SEQUENCES)] = 32
    length: Annotated[Length, Parameter(group=SEQUENCES)] = None
    protocol: Annotated[
        Literal["ppl_llada", "main_llada", "main_dream"] | None,
        word(
            "score the whole --text in windows by a published perplexity protocol: ppl_llada, main_llada, "
            "main_dream",
            metavar="NAME",
            show_choices=False,
            group=WHOLE_TEXT,
        ),
    ] = None
    tasks: Annotated[
        list[str],
        word(
            "tasks of lm-evaluation-harness, by spaces or commas, with --data blimp and wikitext from a "
            "local folder; suite (this project's own, offline); or paper (the paper's eight benchmarks)",
            metavar="TASK …",
            consume_multiple=(1, None),
            show_default=False,
            group=TASKS,
        ),
    ] = field(default_factory=list)
    include_path: Annotated[
        Path | None,
        place("folder of further tasks, YAML files of lm-evaluation-harness", "FOLDER", group=TASKS),
    ] = None
    family: Annotated[
        Literal["llada", "dream", "autoregressive"] | None,
        word(
            "whose published settings the paper's benchmarks take: llada, dream or autoregressive. They are "
            "shots, draws (of LLaDA for MMLU one), classifier-free guidance (of LLaDA 0.5 in five), the "
            "longest input (of Dream 2048 tokens) and the length of what is written (default: the harness's "
            "own; for --tasks paper by the kind of model)",
            group=TASKS,
        ),
    ] = None
    limit: Annotated[
        int | None,
        whole("items per task, or windows of --protocol", at_least=1, show_default="all", group=TASKS),
    ] = None

    def takes_data(self) -> bool:
        """Return whether --data and --split have something to say."""
        return self.asks_wikitext() or bool(self.tasks)

    def settle(self) -> None:
        """Refuse what has no effect on what is scored: tasks, a whole text, or sequences of one."""
        super().settle()
        if self.protocol is not None and (self.tasks or self.text is None):
            raise ValueError(f"--protocol {self.protocol} scores a running text: give --text and no --tasks")
        if self.tasks:
            self._settle_tasks()
            return

        self.refuse(("family",), "it chooses settings of --tasks")
        self.refuse(("include_path",), "it holds further --tasks")

        if self.protocol is None:
            self.refuse(("limit",), "it counts items of --tasks or windows of --protocol")
        else:
            self.refuse(("sequences", "length"), "a protocol scores the whole --text in windows of its own")
            self.refuse(("draws",), "a protocol has its own number of draws")

    def _settle_tasks(self) -> None:
        """Part the names of tasks, and refuse what is for a text."""
        words = " ".join(self.tasks)
        self.tasks = words.replace(",", " ").split()
        if not self.tasks:
            raise ValueError(f"--tasks {words} names no task: give one, e.g. --tasks suite")

        unused = ("text", "sequences", "length")
        self.refuse(unused, "it is for held-out text, and tasks have texts of their own")

        if self.data is None:
            self.refuse(
                ("split",),
                "it chooses among files of --data FOLDER, which is missing, and the harness takes test",
            )
        else:
            self.refuse(("include_path",), "--data FOLDER brings the tasks blimp and wikitext")

        if "wikitext" not in self.tasks:
            self.refuse(("split",), "it chooses a split of the task wikitext, which is not among the --tasks")

    def check_places(self) -> None:
        """Raise an error for a text, or a folder of tasks, that is not there."""
        super().check_places()
        folder = self.include_path
        if folder is None:
            return
        if not folder.is_dir():
            raise NotADirectoryError(f"--include-path {folder} is no folder: give one that holds YAML files")
        if not any(folder.rglob("*.y*ml")):
            raise FileNotFoundError(
                f"--include-path {folder} holds no YAML file: give a folder of tasks of lm-evaluation-harness"
            )


COMMAND = Evaluate
