"""The names nearest to a misspelt one, for errors."""

from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?` with the up to three `known` words nearest to `word`, or nothing."""
    import difflib  # what nothing needs that is spelt right

    full = {name.lower(): name for name in known}
    last_parts = {name.rpartition("/")[2]: full[name] for name in full}
    near = [difflib.get_close_matches(word.lower(), names, n=3) for names in (full, last_parts)]
    names = [full.get(name) or last_parts[name] for name in near[0] or near[1]]
    return f"; did you mean {' or '.join(dict.fromkeys(names))}?" if names else ""
