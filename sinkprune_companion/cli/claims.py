"""`sinkprune claims`: print the claims table of a run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sinkprune.cli.screen import say, wrapped

if TYPE_CHECKING:
    from sinkprune.evaluation.intervals import Estimate


def claims(
    *,
    profile: Annotated[
        str | None,
        Parameter(
            help="name of a run in runs/ (default: quick, or the published findings where that never ran)",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Print the whole claims table of a run, or the published one."""
    from sinkprune_companion import project_root
    from sinkprune_companion.ledger.claims import findings
    from sinkprune_companion.run.profiles import run_folder

    name = profile or "quick"
    if profile is not None or findings(run_folder(name)):
        print_claims(name)
        return

    published = findings(project_root() / "figures")
    if not published:
        raise FileNotFoundError(
            f"no findings in runs/{name} and none in figures/: run `sinkprune reproduce --profile {name}` "
            "first, or do this in a clone of the repository"
        )

    print_verdicts({"published": published})
    print()
    say(
        f"Nothing ran here yet, so these are the published findings (figures/); "
        f"`sinkprune reproduce --profile {name}` puts its own beside them.",
        sys.stdout,
    )


def print_claims(profile: str, kind: str | None = None) -> None:
    """Print the verdicts of rows of a kind (None: all) beside the published ones, and where the rest of a run
    is; raise ValueError for a profile that is no name, and FileNotFoundError where there is no run.
    """
    from sinkprune_companion import project_root
    from sinkprune_companion.ledger import claims as ledger
    from sinkprune_companion.run.profiles import TOO_SMALL_FOR_VERDICTS, run_folder

    findings = ledger.findings(run_folder(profile))
    if not findings:
        raise FileNotFoundError(
            f"no findings in runs/{profile}: run `sinkprune reproduce --profile {profile}` first"
        )

    named = {f"profile {profile}": findings, "published": ledger.findings(project_root() / "figures")}
    too_small = [f"profile {name}" for name in TOO_SMALL_FOR_VERDICTS]
    print_verdicts({name: found for name, found in named.items() if found}, kind, too_small)
    print()
    if profile in TOO_SMALL_FOR_VERDICTS:
        say(
            f"Profile {profile} shows that everything runs: its numbers come from a few texts, and decide "
            "nothing. The verdicts are those of the published run.",
            sys.stdout,
        )
    say(
        f"Where to look: README.md explains the claims. Figures, their data and the whole table are in "
        f"runs/{profile}/figures, and the notebooks as they ran in runs/{profile}/notebooks.",
        sys.stdout,
    )


def print_verdicts(
    named: Mapping[str, Mapping[str, Estimate]], kind: str | None = None, too_small: Collection[str] = ()
) -> None:
    """Print the verdicts of rows of a kind (None: all) on some findings, by what these are called; of those
    that are too small the numbers alone.
    """
    from sinkprune_companion.ledger import claims, tables

    ledger = claims.ledger()
    rows = [claim.id for claim in ledger if kind in (None, claim.kind)]
    verdicts = {}
    for name, found in named.items():
        table = claims.verdicts(ledger, found).loc[rows]
        verdicts[name] = tables.without_verdicts(table) if name in too_small else table

    title = f"Claims, {' and '.join(verdicts)}: the verdict, and the number with its 95 % interval"
    print(f"\n{wrapped(title)}\n")
    print(tables.as_text(verdicts, shutil.get_terminal_size().columns))
