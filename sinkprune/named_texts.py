"""Texts that are asked for by a name instead of a file."""

import os
from pathlib import Path

WIKITEXT = "wikitext-2"


def is_wikitext(text: str | os.PathLike | None) -> bool:
    """Return whether a text is the data set WikiText-2, and no file of that name."""
    return text is not None and os.fspath(text) == WIKITEXT and not Path(text).is_file()
