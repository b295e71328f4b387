"""`sinkprune claims`: print the claims table of a run."""

import argparse
from dataclasses import dataclass

from sinkprune_companion.cli.options import Options
from sinkprune_core.files import project_root

SUMMARY = "print the claims table of a run"


@dataclass(frozen=True, kw_only=True)
class ClaimsOptions(Options):
    """The options of `sinkprune claims`."""

    profile: str = "quick"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ClaimsOptions`."""
    parser.add_argument(
        "--profile", metavar="NAME", help=f"a run in runs/ (default: {ClaimsOptions.profile})"
    )


def run(options: ClaimsOptions) -> int:
    """Print the claims table of a run."""
    print_claims(options.profile)
    return 0


def kept(options: ClaimsOptions) -> str:
    """Return what an interrupted run leaves."""
    return "this command writes nothing"


def print_claims(profile: str) -> None:
    """Print every claim with its verdict, and where the rest of a run is.

    Raises FileNotFoundError where there is no run.
    """
    from sinkprune_companion.ledger import claims, tables

    folder = f"runs/{profile}"
    found = claims.findings(project_root() / "runs" / profile)
    if not found:
        raise FileNotFoundError(
            f"no findings in {folder}: run `sinkprune reproduce --profile {profile}` first"
        )
    print(f"\nClaims, profile {profile} (verdict, claim, value with 95 % interval):\n")
    print(tables.as_text(claims.verdicts(claims.ledger(), found)))
    print(
        f"\nFigures: {folder}/figures   notebooks as they ran: {folder}/notebooks   records: {folder}/records"
    )
