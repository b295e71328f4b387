"""How the items of the offline suite are built from hand-written lines in `data/tasks/sources`.

One line is a pair of items: `To {warm|cool} the milk, put it {on the stove|in the fridge}.` has two
contexts and two endings, and each ending is right in one item and wrong in the other. `<list>`,
`<list.column>` and `<list1.column>`, `<list2.column>` are slots for words drawn from tables; different
numbers are different rows. `python tools/suite_builder.py` writes the files of items anew, always to the same
bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import yaml

from sinkprune.evaluation.suite import GROUPS, TASKS
from sinkprune.files import atomic
from sinkprune_core.seeds import generator

COUNTING = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COUNTING += ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"]
COUNTING += ["nineteen", "twenty"]
TRIES = 100  # draws per wanted pair before a line is given up

_BRACES = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")
_SLOT = re.compile(r"<([a-z]+)(\d?)(?:\.([a-z-]+))?>")

Row = dict[str, str]  # of a table, by column


# tables


def computed_tables() -> dict[str, list[Row]]:
    """Return the computed tables of the arithmetic group; a column `x-word` spells column `x` out."""
    steps = [(start, 1) for start in range(1, 17)]
    steps += [(2, 2), (4, 2), (3, 3), (5, 5), (6, 2), (1, 2), (8, 2), (10, 2)]
    differences = [(a, b, a - b) for a in range(5, 13) for b in range(2, min(a - 1, 7))]

    return {
        "sum": _number_table("a b total", [(a, b, a + b) for a in range(2, 9) for b in range(2, 7)]),
        "difference": _number_table("a b rest", differences),
        "product": _number_table(
            "a b result", [(a, b, a * b) for a in range(2, 6) for b in (2, 3, 4, 5, 10)]
        ),
        "double": _number_table("once twice", [(a, 2 * a) for a in range(2, 31)]),
        "count": _number_table(
            "one two three four",
            [(start, start + step, start + 2 * step, start + 3 * step) for start, step in steps],
        ),
        "number": _number_table(
            "low high", [(low, high) for low in range(10, 40) for high in range(60, 100)]
        ),
        "middle": _number_table(
            "last here next", [(a - 1, a, a + 1) for a in range(11, 99) if a % 10 not in (0, 9)]
        ),
    }


def _number_table(columns: str, rows: Iterable[tuple[int, ...]]) -> list[Row]:
    """Return numbers as rows by column name, in digits and, where they are small enough, in words."""
    table = []
    for numbers in rows:
        row = {}
        for column, number in zip(columns.split(), numbers, strict=True):
            row[column] = str(number)
            if number < len(COUNTING):
                row[f"{column}-word"] = COUNTING[number]
        table.append(row)
    return table


def _word_tables(words: Mapping[str, Sequence[str]]) -> dict[str, list[Row]]:
    """Return the lists of a source as tables; the first entry names the columns where there are several."""
    tables = {}
    for name, entries in words.items():
        if "|" in entries[0]:
            columns, *rows = [[cell.strip() for cell in entry.split("|")] for entry in entries]
        else:
            columns = [""]
            rows = [[entry] for entry in entries]
        tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]
    return tables


def _shuffled_rounds(rows: Sequence[Row], rng: torch.Generator) -> Iterator[Row]:
    """Yield rows forever, in rounds in which each comes once."""
    while True:
        for index in torch.randperm(len(rows), generator=rng).tolist():
            yield rows[index]


# pairs


@dataclass(frozen=True)
class ItemPair:
    """Two contexts and two endings: each ending is right after the context of the same number."""

    template: int
    """Number of the line that it is made from."""
    contexts: list[str]
    """Both contexts."""
    endings: list[str]
    """Both endings."""

    @property
    def sentences(self) -> set[str]:
        """Return the right sentences of both items."""
        return {f"{context} {ending}" for context, ending in zip(self.contexts, self.endings, strict=True)}

    def is_fair(self) -> bool:
        """Return whether contexts and endings differ, and the endings have equally many digits."""
        digits = {sum(character.isdigit() for character in ending) for ending in self.endings}
        return len(set(self.contexts)) == len(set(self.endings)) == 2 and len(digits) == 1


def _fill(text: str, side: int, chosen: Mapping[tuple[str, str], Row]) -> str:
    """Return `text` with alternative 1 or 2 of its braces, and its slots filled from the `chosen` rows.

    Rows are chosen by name and number of a slot.
    """
    text = _BRACES.sub(lambda braces: braces[side], text)
    return _SLOT.sub(lambda slot: chosen[slot[1], slot[2]][slot[3] or ""], text)


def _pair(template: int, line: str, chosen: Mapping[tuple[str, str], Row]) -> ItemPair:
    """Return the pair that a line gives with these rows; the endings begin with its last braces."""
    start = list(_BRACES.finditer(line))[-1].start()
    contexts = []
    endings = []
    for side in (1, 2):
        context = _fill(line[:start], side, chosen).rstrip()
        contexts.append(context[0].upper() + context[1:])
        endings.append(_fill(line[start:], side, chosen))
    return ItemPair(template, contexts, endings)


def _draw_pairs(
    group: str, template: int, line: str, count: int, tables: Mapping[str, list[Row]], known: set[str]
) -> list[ItemPair]:
    """Return `count` pairs of a line, and add their sentences to those that are `known` already.

    A pair is drawn again when it uses a row twice, when it is not fair, or when one of its sentences is
    known.
    Raises ValueError when the line gives fewer pairs.
    """
    rng = generator("suite", group, line)
    slots = dict.fromkeys((slot[1], slot[2]) for slot in _SLOT.finditer(line))
    rounds = {name: _shuffled_rounds(tables[name], rng) for name, _ in slots}
    pairs = []

    for _ in range(TRIES * count):
        chosen = {slot: next(rounds[slot[0]]) for slot in slots}
        rows = {id(row) for row in chosen.values()}  # one round may end, and the next begin, within a pair
        pair = _pair(template, line, chosen)

        if len(rows) == len(slots) and pair.is_fair() and not pair.sentences & known:
            pairs.append(pair)
            known |= pair.sentences
        if len(pairs) == count:
            return pairs

    raise ValueError(f"{group}: the line {line!r} gives fewer than {count} different pairs")


def build(group: str) -> list[dict]:
    """Return the items of a group, always the same: dicts of `pair`, `template`, `context`, `choices`,
    `answer`.

    Raises ValueError when a line gives fewer pairs than it should.
    """
    source = yaml.safe_load((TASKS / "sources" / f"{group}.yml").read_text(encoding="utf-8"))
    tables = {**computed_tables(), **_word_tables(source.get("words", {}))}
    lines = [(line, count) for count, lines in source["templates"].items() for line in lines]

    pairs: list[ItemPair] = []
    known: set[str] = set()
    for template, (line, count) in enumerate(lines):
        pairs += _draw_pairs(group, template, line, count, tables, known)

    order = torch.randperm(len(pairs), generator=generator("suite", group)).tolist()
    items = []
    for number, index in enumerate(order):
        pair = pairs[index]
        for answer in (0, 1):
            item = {
                "pair": number,
                "template": pair.template,
                "context": pair.contexts[answer],
                "choices": pair.endings,
                "answer": answer,
            }

            items.append(item)
    return items


def as_jsonl(items: Sequence[dict]) -> str:
    """Return items as the text of their file, a line each."""
    return "".join(json.dumps(item) + "\n" for item in items)


def main() -> None:
    """Write the item files of the offline suite anew from `data/tasks/sources`."""
    for group in GROUPS:
        built = build(group)
        with atomic(TASKS / f"{group}.jsonl") as partial:
            partial.write_text(as_jsonl(built), encoding="utf-8")
        print(f"{group}: {len(built)} items")


if __name__ == "__main__":
    main()
