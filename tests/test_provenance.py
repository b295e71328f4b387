"""What a number comes from: versions of packages and the commit."""

import subprocess
import sys

from sinkprune_companion.run.provenance import environment
from sinkprune_core.files import PACKAGE


def test_the_environment_names_versions_and_the_commit():
    named = environment()
    assert named["versions"]["torch"]
    assert named["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=PACKAGE, capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        assert named["git_commit"].removesuffix("-dirty") == git.stdout.strip()
    else:
        assert named["git_commit"] is None
