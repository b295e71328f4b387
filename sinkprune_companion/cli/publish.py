"""`sinkprune publish`: put a finished run into notebooks/, figures/ and README.md."""

import argparse
from dataclasses import dataclass

from sinkprune_companion.cli.options import Options
from sinkprune_core.files import project_root

SUMMARY = "put a finished run into notebooks/, figures/ and README.md"


@dataclass(frozen=True, kw_only=True)
class PublishOptions(Options):
    """The options of `sinkprune publish`."""

    profile: str = "full"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `PublishOptions`."""
    parser.add_argument(
        "--profile", metavar="NAME", help=f"a run in runs/ (default: {PublishOptions.profile})"
    )


def run(options: PublishOptions) -> int:
    """Publish a run and print the files that were written."""
    from sinkprune_companion.run.publish import publish

    for file in publish(options.profile):
        print(file.relative_to(project_root()))
    return 0


def kept(options: PublishOptions) -> str:
    """Return what an interrupted run leaves."""
    return "some files may be published and others not; the same command writes all of them"
