"""`sinkprune claims`: print the claims table of a run."""

from dataclasses import dataclass

from sinkprune_companion import project_root
from sinkprune_companion.cli.options import Options, option
from sinkprune_companion.run.profiles import run_folder

PROFILE_HELP = "name of a run in runs/"


@dataclass(frozen=True, kw_only=True)
class ClaimsOptions(Options):
    """The options of `sinkprune claims`."""

    profile: str = option("quick", f"{PROFILE_HELP} (default: quick)", metavar="NAME")

    left_behind = "this command writes nothing"


def run(options: ClaimsOptions) -> int:
    """Print every row of the claims table of a run."""
    print_claims(options.profile, kinds=None)
    return 0


def print_claims(profile: str, kinds: tuple[str, ...] | None = ("claim",)) -> None:
    """Print the rows of these kinds with their verdicts (None: all rows), beside the published ones.

    Then it says where the rest of a run is. Raises ValueError for a profile that is no name, and
    FileNotFoundError where there is no run.
    """
    folder = run_folder(profile)

    from sinkprune_companion.ledger import claims, tables

    findings = claims.findings(folder)
    if not findings:
        raise FileNotFoundError(
            f"no findings in runs/{profile}: run `sinkprune reproduce --profile {profile}` first"
        )
    ledger = [claim for claim in claims.ledger() if kinds is None or claim.kind in kinds]
    named = {f"profile {profile}": claims.verdicts(claims.ledger(), findings)}
    published = claims.findings(project_root() / "figures")
    if published:
        named["published"] = claims.verdicts(claims.ledger(), published)
    print(f"\nClaims, {' and '.join(named)} (verdict, value with 95 % interval):\n")
    print(tables.as_text({name: table.loc[[one.id for one in ledger]] for name, table in named.items()}))
    print(
        f"\nWhere to look: README.md explains them; figures, their data and the whole table are in "
        f"runs/{profile}/figures, the notebooks as they ran in runs/{profile}/notebooks"
    )
