"""`sinkprune claims`: print the claims table of a run."""

from sinkprune.cli.options import Options
from sinkprune_companion import project_root
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.run.profiles import run_folder


def run(options: Options) -> None:
    """Print every row of the claims table of a run."""
    print_claims(options.profile)


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
    ledger = claims.ledger()
    rows = [claim.id for claim in ledger if kind in (None, claim.kind)]
    verdicts = {name: claims.verdicts(ledger, found).loc[rows] for name, found in named.items() if found}
    print(f"\nClaims, {' and '.join(verdicts)} (verdict, value with 95 % interval):\n")
    print(tables.as_text(verdicts))
    print(
        f"\nWhere to look: README.md explains them; figures, their data and the whole table are in "
        f"runs/{profile}/figures, the notebooks as they ran in runs/{profile}/notebooks"
    )
