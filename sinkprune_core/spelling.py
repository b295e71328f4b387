"""The names nearest to a misspelt one, for errors."""

from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?` with the up to three `known` words nearest to `word`, or nothing."""
    import difflib  # what nothing needs that is spelt right

    full = {name.lower(): name for name in known}
    last_parts = {name.rpartition("/")[2]: full[name] for name in full}
    near = difflib.get_close_matches(word.lower(), full, n=3)
    if not near:
        near = difflib.get_close_matches(word.lower(), last_parts, n=3)
    names = [full.get(name) or last_parts[name] for name in near]
    return f"; did you mean {' or '.join(dict.fromkeys(names))}?" if names else ""
