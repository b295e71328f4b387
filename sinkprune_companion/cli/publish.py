"""`sinkprune publish`: put a finished run into notebooks/, figures/ and README.md."""

from dataclasses import dataclass

from sinkprune_companion import project_root
from sinkprune_companion.cli.options import Options, option


@dataclass(frozen=True, kw_only=True)
class PublishOptions(Options):
    """The options of `sinkprune publish`."""

    profile: str = option("full", "name of a run in runs/ (default: full)", metavar="NAME")
    notebooks: tuple[str, ...] = option(
        (),
        "publish these notebooks alone, e.g. 03_pruning_results (default: all of the run)",
        type=lambda names: tuple(names.split(",")),
        metavar="NAME,NAME",
    )

    left_behind = "what is published may be of two runs; the same command publishes all of this one"


def run(options: PublishOptions) -> int:
    """Publish a run and print the files that were written."""
    from sinkprune_companion.run.publish import publish

    for file in publish(options.profile, options.notebooks):
        print(file.relative_to(project_root()))
    return 0
