"""Write all pages: `python -m sinkprune_companion.pages`."""

from sinkprune_companion import project_root
from sinkprune_companion.pages.pages import write

for written in write():
    print(written.relative_to(project_root()))
