"""What `sinkprune publish` takes."""

from dataclasses import dataclass
from typing import Annotated

from sinkprune.cli.options import Options, names, word


@dataclass(kw_only=True)
class Publish(Options):
    """Options of `sinkprune publish`."""

    profile: Annotated[str, word("name of a run in runs/", metavar="NAME")] = "full"
    notebooks: Annotated[
        tuple[str, ...],
        names("publish these notebooks alone, e.g. 03_leaving_sinks_out (default: all of the run)"),
    ] = ()

    def left_behind(self) -> str:
        """Return what an interrupted command leaves, in words."""
        return "what is published may be of two runs; the same command publishes all of this one"


COMMAND = Publish
