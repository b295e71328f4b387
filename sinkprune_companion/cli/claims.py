"""`sinkprune claims`: print the claims table of a run."""

import shutil
import sys
from collections.abc import Collection, Mapping

from sinkprune.cli.help_pages import say
from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion import project_root
from sinkprune_companion.cli.commands.claims import Claims
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.run.profiles import TOO_SMALL_FOR_VERDICTS, run_folder


def run(options: Claims) -> None:
    """Print every row of the claims table of a run, or of the published one where nothing ran."""
    if claims.findings(run_folder(options.profile)) or "profile" in options.given:
        print_claims(options.profile)
        return

    published = claims.findings(project_root() / "figures")
    if not published:
        raise FileNotFoundError(
            f"no findings in runs/{options.profile} and none in figures/: "
            f"run `sinkprune reproduce --profile {options.profile}` first, or do this in a clone of the "
            "repository"
        )

    print_verdicts({"published": published})
    print()
    say(
        f"Nothing ran here yet, so these are the published findings (figures/); "
        f"`sinkprune reproduce --profile {options.profile}` puts its own beside them.",
        sys.stdout,
    )


def print_claims(profile: str, kind: str | None = None) -> None:
    """Print the verdicts of rows of a kind (None: all) beside the published ones, and where the rest of a run
    is; raise ValueError for a profile that is no name, and FileNotFoundError where there is no run.
    """
    findings = claims.findings(run_folder(profile))
    if not findings:
        raise FileNotFoundError(
            f"no findings in runs/{profile}: run `sinkprune reproduce --profile {profile}` first"
        )

    named = {f"profile {profile}": findings, "published": claims.findings(project_root() / "figures")}
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
    ledger = claims.ledger()
    rows = [claim.id for claim in ledger if kind in (None, claim.kind)]
    verdicts = {}
    for name, found in named.items():
        table = claims.verdicts(ledger, found).loc[rows]
        verdicts[name] = tables.without_verdicts(table) if name in too_small else table

    print(f"\nClaims, {' and '.join(verdicts)}: the verdict, and the number with its 95 % interval\n")
    print(tables.as_text(verdicts, shutil.get_terminal_size().columns))
