"""Where the repository is published, and the badges that open its notebooks there.

`tools/address.py` writes the address into every file that names it.
"""

import re
import tomllib
from pathlib import Path

REF = "main"  # the branch that badges and links lead to; the tag of a release once it is pushed
ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
BADGES = re.compile(r"\n\[!\[Open in Colab\]\(.*\n\[!\[Open in Binder\]\(.*\n")
FIRST = "00_start_here"


def address(root: Path) -> str:
    """Return the repository's address from pyproject.toml; an empty text before there is one."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def with_badges(text: str, notebook: str, url: str) -> str:
    """Return a page with the badges that open a notebook below its title, or without any."""
    text = BADGES.sub("", text)
    if not url or not text.startswith("# "):
        return text
    name = ADDRESS.fullmatch(url)[1]
    file = f"notebooks/{notebook}.ipynb"
    colab = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{name}/blob/{REF}/{file})"
    binder = (
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{name}/{REF}?urlpath=lab/tree/{file})"
    )
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{colab}\n{binder}\n{rest}"
