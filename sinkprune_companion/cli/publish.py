"""`sinkprune publish`: put a finished run into notebooks/, figures/ and README.md."""

from typing import Annotated

from cyclopts import Parameter


def publish(
    *,
    profile: Annotated[str, Parameter(help="name of a run in runs/", metavar="NAME")] = "full",
    notebooks: Annotated[
        tuple[str, ...],
        Parameter(
            help="publish these notebooks alone, e.g. 03_leaving_sinks_out; several by commas, or repeated "
            "(default: all of the run)",
            metavar="NAME,NAME",
        ),
    ] = (),
) -> None:
    """Put a finished run into notebooks/, figures/ and README.md."""
    from sinkprune_companion import project_root
    from sinkprune_companion.pages import publish as publishing

    names = tuple(name for part in notebooks for name in part.split(","))
    try:
        files = publishing.publish(profile, names)
    except KeyboardInterrupt as stopped:
        stopped.add_note("what is published may be of two runs; the same command publishes all of this one")
        raise

    for file in files:
        print(file.relative_to(project_root()))
