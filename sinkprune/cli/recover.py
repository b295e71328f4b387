"""`sinkprune recover`: say what it takes, train a pruned model with its zeros held, and save it."""

import shlex
from dataclasses import asdict

from sinkprune.cli.commands.recover import Recover
from sinkprune.cli.help_pages import say
from sinkprune.evaluation.local_data import wikitext_documents
from sinkprune.models.gpus import planned_gpu
from sinkprune.named_texts import WIKITEXT, is_wikitext
from sinkprune.recovery.cost import RecoveryCost
from sinkprune.recovery.recover import recover
from sinkprune.recovery.training import Recovered


def run(options: Recover) -> None:
    """Print what a run would take, or run, and print what came of it."""
    arguments = asdict(options)
    for name in ("data", "debug"):  # all others are what `recover` takes
        del arguments[name]

    if is_wikitext(options.text):
        articles = None if options.dry_run else wikitext_documents(options.data, "train")  # a plan needs none
        arguments |= {"text": articles, "text_name": WIKITEXT}

    found = recover(**arguments, tell=say)
    if isinstance(found, RecoveryCost) and found.missing:
        if planned_gpu(options.device) is None:
            raise RuntimeError("; ".join(found.missing))
        say("; ".join(found.missing))

    if isinstance(found, Recovered):
        print(f"{options.out}: {found}")
        print(f"next: sinkprune compare {shlex.quote(options.pruned)} {shlex.quote(str(options.out))}")
