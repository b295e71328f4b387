"""`sinkprune claims`: print the claims table of a run."""

from collections.abc import Mapping

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion import project_root
from sinkprune_companion.cli.commands.claims import Claims
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.run.profiles import run_folder


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
    print(
        f"\nNothing ran here yet, so these are the published findings (figures/); "
        f"`sinkprune reproduce --profile {options.profile}` puts its own beside them."
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
    print_verdicts({name: found for name, found in named.items() if found}, kind)
    print(
        f"\nWhere to look: README.md explains them; figures, their data and the whole table are in "
        f"runs/{profile}/figures, the notebooks as they ran in runs/{profile}/notebooks"
    )


def print_verdicts(named: Mapping[str, Mapping[str, Estimate]], kind: str | None = None) -> None:
    """Print the verdicts of rows of a kind (None: all) on some findings, by what these are called."""
    ledger = claims.ledger()
    rows = [claim.id for claim in ledger if kind in (None, claim.kind)]
    verdicts = {name: claims.verdicts(ledger, found).loc[rows] for name, found in named.items()}
    print(f"\nClaims, {' and '.join(verdicts)} (verdict, value with 95 % interval):\n")
    print(tables.as_text(verdicts))
