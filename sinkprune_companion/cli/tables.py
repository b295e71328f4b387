"""How commands print their results, and write them as JSON.

This module imports pandas, so commands import it in `run`.
"""

import math
import os
import shlex
import sys
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
    return {"value": float(known.iloc[0]) if len(known) else math.nan}


def as_text(table: pd.DataFrame) -> str:
    """Return `table` as text, numbers with four digits."""
    return table.to_string(float_format=lambda value: f"{value:.4g}")


def print_table(table: pd.DataFrame, json: Path | None) -> None:
    """Print `table`, and write its rows to the file `json` where that is given."""
    print(as_text(table))
    if json is not None:
        with atomic(json) as partial:
            rows = table.reset_index().to_json(orient="records", indent=1)
            partial.write_text(rows + os.linesep, encoding="utf-8")


def print_next(*command: object) -> None:
    """Print the command that a user may want to run next, on stderr: tables go to stdout."""
    print(f"next: sinkprune {shlex.join(str(part) for part in command)}", file=sys.stderr)


def picture_of(model: str) -> str:
    """Return a name for the picture of a model's sinks."""
    return f"{Path(model.partition('@')[0]).name}-sinks.png"
