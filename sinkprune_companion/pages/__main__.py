"""Write all pages: `python -m sinkprune_companion.pages`."""

from sinkprune_companion.pages.pages import write
from sinkprune_core.files import project_root

for written in write():
    print(written.relative_to(project_root()))
