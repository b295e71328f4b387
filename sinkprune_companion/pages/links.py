"""The address where the repository is published, and the links that it decides: badges of README and of
notebooks, and the links in a notebook that is opened without the rest of the repository.
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


def with_links(text: str, url: str, before: str) -> str:
    """Return a text of a notebook whose links work in a place that has only this notebook.

    Links out of the folder become absolute, and beside a link to another notebook stands one into Colab.
    `before` is the address that links had.
    """
    if before:
        text = re.sub(rf"\]\({re.escape(before)}/(?:blob|raw)/[^/]+/", "](../", text)
    text = re.sub(rf" \(\[Colab\]\({COLAB}[^)]*\)\)", "", text)

    if not url:
        return text

    text = re.sub(r"(!\[[^\]]*\]\()\.\./", rf"\g<1>{url}/raw/{REF}/", text)
    text = text.replace("](../", f"]({url}/blob/{REF}/")
    place = f"{COLAB}/github/{ADDRESS.fullmatch(url)[1]}/blob/{REF}/notebooks"
    return re.sub(r"\]\((\d\d_\w+\.ipynb)\)", rf"\g<0> ([Colab]({place}/\g<1>))", text)
