"""The numbers that the paper printed for LLaDA-8B, with the preset that stands for each row."""

from dataclasses import dataclass

from sinkprune_companion.margins import published_numbers

SEQUENCES = 128  # of the official calibration
LENGTH = 4096  # tokens of each


@dataclass(frozen=True)
class Result:
    """A row of a published table: how a model was pruned, and what came out."""

    table: str  # id of the table
    title: str
    method: str  # as the paper calls it
    preset: str | None  # ours for the method; None for the dense model
    unit: str
    source: str
    note: str
    values: dict[str, float]  # by task


def results() -> list[Result]:
    """Return every published row, in the order of the paper's tables."""
    rows = []
    for table in published_numbers()["tables"]:
        source = published_numbers()["sources"][table["source"]]
        for row in table["rows"]:
            result = Result(
                table=table["id"],
                title=table["title"],
                method=row["method"],
                preset=row["preset"],
                unit=table["unit"],
                source=source,
                note=table["note"],
                values=dict(zip(table["tasks"], row["values"], strict=True)),
            )
            rows.append(result)

    return rows


def published_averages() -> dict[str, float]:
    """Return the paper's average accuracy on LLaDA-8B at 50 %, in percent, by its name of the method."""
    return {row.method: row.values["average"] for row in results() if row.table == "llada-50"}
