"""How commands print their results, and write them as JSON.

This module imports pandas, so commands import it in `run`.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.files import atomic


def estimate(values: pd.Series) -> dict[str, object]:
    """Return the mean of `values` with its 95 % interval; a single value has no interval, and none is NaN."""
    known = values.dropna()
    if len(known) > 1:
        mean = interval(known)
        return {name: getattr(mean, name) for name in ("value", "low", "high", "units", "method")}
    return {"value": float(known.mean()) if len(known) else math.nan}


def as_text(table: pd.DataFrame) -> str:
    """Return `table` as text, numbers with four digits."""
    return table.to_string(float_format=lambda value: f"{value:.4g}")


def print_table(table: pd.DataFrame, json: Path | None, meanings: Mapping[str, str] | None = None) -> None:
    """Print `table` and what its columns or rows mean, and write its rows to the file `json` where given."""
    print(as_text(table))
    if json is not None:
        with atomic(json) as partial:
            rows = table.reset_index().to_json(orient="records", indent=1)
            partial.write_text(f"{rows}\n", encoding="utf-8")
    if meanings:
        width = max(map(len, meanings))
        print("", *(f"{name:<{width}}  {meaning}" for name, meaning in meanings.items()), sep="\n")
