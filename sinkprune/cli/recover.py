"""`sinkprune recover`: say what it takes, train a pruned model with its zeros held, and save it."""

import shlex

from sinkprune.cli.commands.recover import Recover
from sinkprune.cli.help_pages import say
from sinkprune.evaluation.local_data import wikitext_documents
from sinkprune.models.gpus import planned_gpu
from sinkprune.named_texts import WIKITEXT, is_wikitext
from sinkprune.recovery.cost import RecoveryCost
from sinkprune.recovery.recover import recover
from sinkprune.recovery.training import Recovered

ARGUMENTS = (
    "tokens",
    "steps",
    "text",
    "teacher",
    "distillation",
    "method",
    "rank",
    "learning_rate",
    "batch",
    "length",
    "seed",
    "work",
    "dtype",
    "device",
    "gradient_checkpointing",
    "save_every",
)  # that `recover` takes as they are


def run(options: Recover) -> None:
    """Print what a run would take, or run, and print what came of it."""
    arguments = {name: getattr(options, name) for name in ARGUMENTS}
    if is_wikitext(options.text):
        articles = None if options.dry_run else wikitext_documents(options.data, "train")  # a plan needs none
        arguments |= {"text": articles, "text_name": WIKITEXT}
    found = recover(options.pruned, out=options.out, dry_run=options.dry_run, tell=say, **arguments)
    if isinstance(found, RecoveryCost) and found.missing:
        if planned_gpu(options.device) is None:
            raise RuntimeError("; ".join(found.missing))
        say("; ".join(found.missing))

    if isinstance(found, Recovered):
        print(f"{options.out}: {found}")
        print(f"next: sinkprune compare {shlex.quote(options.pruned)} {shlex.quote(str(options.out))}")
