"""What `sinkprune claims` takes."""

from dataclasses import dataclass
from typing import Annotated

from sinkprune.cli.options import Options, word


@dataclass(kw_only=True)
class Claims(Options):
    """Options of `sinkprune claims`."""

    profile: Annotated[
        str,
        word(
            "name of a run in runs/ (default: quick, and the published findings where there is no such run)",
            metavar="NAME",
            show_default=False,
        ),
    ] = "quick"


COMMAND = Claims
