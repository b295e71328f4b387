"""`sinkprune publish`: put a finished run into notebooks/, figures/ and README.md."""

from sinkprune_companion import project_root
from sinkprune_companion.cli.commands.publish import Publish
from sinkprune_companion.pages.publish import publish


def run(options: Publish) -> None:
    """Publish a run and print the files that were written."""
    for file in publish(options.profile, options.notebooks):
        print(file.relative_to(project_root()))
