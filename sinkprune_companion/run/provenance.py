"""Where a number comes from: the versions of packages, the git commit, and the platform."""

import platform
import subprocess
import sys
from functools import cache, partial
from importlib.metadata import version

from sinkprune_core.files import PACKAGE

PACKAGES = ("sinkprune", "torch", "transformers", "peft", "numpy", "pandas", "scipy")


@cache
def environment() -> dict:
    """Return `versions`, `git_commit` (with `-dirty` where the package differs from it) and `platform`."""
    versions = {package: version(package) for package in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _git_commit() -> str | None:
    """Return the commit of the clone that holds the package; None where there is no git or no clone."""
    if not (PACKAGE.parent / ".git").exists():  # it may lie in another project's clone
        return None
    git = partial(
        subprocess.check_output, cwd=PACKAGE.parent, stderr=subprocess.DEVNULL, text=True, timeout=20
    )
    try:
        commit = git(["git", "rev-parse", "HEAD"]).strip()
        changes = git(["git", "status", "--porcelain", "--", "sinkprune_core", "sinkprune_companion"])
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit
