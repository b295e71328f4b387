"""How commands print their results, and write them as JSON."""

import dataclasses
import math
import os
from pathlib import Path

import pandas as pd

from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.files import atomic


def estimate(values: pd.Series) -> dict[str, object]:
    """Return the mean of `values` with its 95 % interval; a single value has no interval, and none is NaN."""
    known = values.dropna()
    if len(known) > 1:
        return dataclasses.asdict(interval(known))
    return {"value": float(known.iloc[0]) if len(known) else math.nan}


def print_table(table: pd.DataFrame, json: Path | None) -> None:
    """Print `table`, and write its rows to the file `json` where that is given."""
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    if json is not None:
        with atomic(json) as partial:
            rows = table.reset_index().to_json(orient="records", indent=1)
            partial.write_text(rows + os.linesep, encoding="utf-8")
