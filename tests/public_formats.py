"""BLiMP and WikiText-2 in small, in the formats in which they are published."""

import json
from pathlib import Path

import pandas as pd
from tiny_tasks import words


def blimp_rows(paradigm: int) -> list[tuple[str, str]]:
    """Return made-up pairs, good and bad, of a paradigm by its number."""
    rows = []
    for row in range(3 + paradigm):
        seed = 100 * paradigm + row
        rows.append((words(3 + row % 3, seed), words(3 + row % 3, 900 + seed)))
    return rows


def wikitext_page(place: int, title: str) -> str:
    first = f"{words(9, place)} , {words(4, place + 5)} ."
    second = f"{words(6, place + 9)} ."
    return f" = {title} = \n \n {first} \n \n = = word50 = = \n \n {second} \n \n"


BLIMP = {"wh_island": blimp_rows(0), "passive_1": blimp_rows(1)}
PAGES = [wikitext_page(place, title) for place, title in enumerate(("word30 word31", "word40"))]
RAW = " \n" + "".join(PAGES)
# as rows of the hub's line-level data set
LINES = [line + "\n" if line.strip() else "" for line in RAW.split("\n")[:-1]]


def jsonl(file: Path, rows) -> None:
    """Write a paradigm of BLiMP as its authors publish it."""
    lines = []
    for number, (good, bad) in enumerate(rows):
        pair = {"sentence_good": good, "sentence_bad": bad, "UID": file.stem, "pairID": str(number)}
        lines.append(json.dumps(pair) + "\n")
    put(file, "".join(lines))


def parquet(file: Path, **columns) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(file)


def put(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def write_both(folder: Path) -> Path:
    """Write two paradigms of BLiMP, and WikiText-2's test split, as their authors publish them."""
    for name, rows in BLIMP.items():
        jsonl(folder / "blimp" / "data" / f"{name}.jsonl", rows)
    put(folder / "wikitext-2-raw" / "wiki.test.raw", RAW)
    return folder
