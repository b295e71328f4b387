"""What `sinkprune reproduce` takes."""

from dataclasses import dataclass
from typing import Annotated

from sinkprune.cli.options import Options, switch, word


@dataclass(kw_only=True)
class Reproduce(Options):
    """Options of `sinkprune reproduce`."""

    profile: Annotated[str, word("a file of workflow/config without its ending", metavar="NAME")] = "quick"
    on: Annotated[
        str,
        word(
            "a folder of workflow/profiles: local (one machine, default) or slurm (a cluster; needs the "
            "extra `slurm`)",
            metavar="PLACE",
            show_default=False,
        ),
    ] = "local"
    dry_run: Annotated[bool, switch("say what would run, and why; write nothing")] = False
    with_records: Annotated[
        bool,
        switch(
            "begin with the records that the project keeps of this profile, so that figures are drawn "
            "without measuring; what another revision of a measurement made is measured anew"
        ),
    ] = False

    def left_behind(self) -> str:
        """Return what an interrupted run leaves, in words."""
        return (
            f"finished notebooks and records are kept in runs/{self.profile}, "
            "and the same command goes on from here"
        )


COMMAND = Reproduce
