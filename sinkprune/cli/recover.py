"""`sinkprune recover`: say what it takes, train a pruned model with its zeros held, and save it."""

import shlex
from dataclasses import asdict

from sinkprune.cli.commands.recover import Recover
from sinkprune.cli.help_pages import say
from sinkprune.recovery.recover import recover
from sinkprune.recovery.training import Recovered


def run(options: Recover) -> None:
    """Print what a run would take, or run, and print what came of it."""
    arguments = asdict(options)
    del arguments["debug"]  # all others are what `recover` takes
    found = recover(**arguments, tell=say)
    if isinstance(found, Recovered):
        print(f"{options.out}: {found}")
        print(f"next: sinkprune compare {shlex.quote(options.pruned)} {shlex.quote(str(options.out))}")
