"""The project's own two-choice items: how they are built from hand-written lines, and how a model answers them.

One line is a pair of items: `To {warm|cool} the milk, put it {on the stove|in the fridge}.` has two contexts and two
endings, and each ending is right in one item and wrong in the other. Whatever looks at endings alone, their length or
the frequency of their words, is therefore right in exactly half of all items. `<list>`, `<list.column>` and
`<list1.column>`, `<list2.column>` are words drawn from tables; different numbers are different rows.

Dimensions: S draws, L tokens of an ending, T sequence position, B batch, N selected positions.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
import yaml
from tqdm.auto import tqdm

from sinkprune_core.diffusion.sampling import corrupt, stratified_counts
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.files import PACKAGE, atomic
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

TASKS = PACKAGE / "data" / "tasks"  # `lm_eval --include_path` takes this folder
GROUPS = ("grammar", "reference", "physical", "facts", "arithmetic", "stories")
SPLIT = "test"
COUNTING = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()

_BRACES = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")
_SLOT = re.compile(r"<([a-z]+)(\d?)(?:\.([a-z-]+))?>")


def numbers() -> dict[str, list[dict[str, str]]]:
    """Return the computed tables of the arithmetic group; a column `x-word` spells column `x` out."""

    def table(columns: str, rows) -> list[dict[str, str]]:
        named = [dict(zip(columns.split(), row, strict=True)) for row in rows]
        return [
            {
                **{c: str(v) for c, v in row.items()},
                **{f"{c}-word": COUNTING[v] for c, v in row.items() if v < len(COUNTING)},
            }
            for row in named
        ]

    return {
        "sum": table("a b total", [(a, b, a + b) for a in range(2, 9) for b in range(2, 7)]),
        "difference": table(
            "a b rest", [(a, b, a - b) for a in range(5, 13) for b in range(2, min(a - 1, 7))]
        ),
        "product": table("a b result", [(a, b, a * b) for a in range(2, 6) for b in (2, 3, 4, 5, 10)]),
        "double": table("once twice", [(a, 2 * a) for a in range(2, 31)]),
        "count": table(
            "one two three four",
            [
                (a, a + d, a + 2 * d, a + 3 * d)
                for a, d in [(a, 1) for a in range(1, 17)]
                + [(2, 2), (4, 2), (3, 3), (5, 5), (6, 2), (1, 2), (8, 2), (10, 2)]
            ],
        ),
        "number": table("low high", [(low, high) for low in range(10, 40) for high in range(60, 100)]),
        "middle": table("last here next", [(a - 1, a, a + 1) for a in range(11, 99) if a % 10 not in (0, 9)]),
    }


def _tables(words: dict[str, list[str]]) -> dict[str, list[dict[str, str]]]:
    """Return tables as rows by column name; the first entry names the columns where there are several."""
    tables = {}
    for name, rows in words.items():
        columns, *cells = (
            [[cell.strip() for cell in row.split("|")] for row in rows]
            if "|" in rows[0]
            else [[""], *([row] for row in rows)]
        )
        tables[name] = [dict(zip(columns, row, strict=True)) for row in cells]
    return tables


def _deal(rows: list[dict], rng: torch.Generator) -> Iterator[dict]:
    """Yield rows forever, all of them once in each round."""
    while True:
        yield from (rows[index] for index in torch.randperm(len(rows), generator=rng).tolist())


def _fill(text: str, side: int, chosen: dict[tuple[str, str], dict]) -> str:
    """Return `text` with alternative 1 or 2 of its braces and its slots filled from the rows `chosen` by (list, number)."""
    return _SLOT.sub(
        lambda slot: chosen[slot[1], slot[2]][slot[3] or ""], _BRACES.sub(lambda braces: braces[side], text)
    )


def _pair(line: str, chosen: dict[tuple[str, str], dict]) -> tuple[list[str], list[str]]:
    """Return the two contexts and the two endings of a line; an ending begins with the last braces."""
    ending = list(_BRACES.finditer(line))[-1].start()
    contexts = [_fill(line[:ending], side, chosen).rstrip() for side in (1, 2)]
    return [context[0].upper() + context[1:] for context in contexts], [
        _fill(line[ending:], side, chosen) for side in (1, 2)
    ]


def build(group: str) -> list[dict]:
    """Return the items of a group, always the same: dicts of `pair`, `template`, `context`, `choices`, `answer`.

    A pair is drawn again when it uses a row twice, when its two endings or contexts are equal, when one of its sentences exists already, or when
    its numbers differ in their count of digits. Raises ValueError when a line does not give the pairs it should.
    """
    source = yaml.safe_load((TASKS / "sources" / f"{group}.yml").read_text(encoding="utf-8"))
    tables = {**numbers(), **_tables(source.get("words", {}))}
    pairs, seen = [], set()
    lines = [(line, count) for count, lines in source["templates"].items() for line in lines]
    for template, (line, count) in enumerate(lines):
        rng = generator("suite", group, line)
        slots = dict.fromkeys((slot[1], slot[2]) for slot in _SLOT.finditer(line))
        decks = {name: _deal(tables[name], rng) for name, _ in slots}
        wanted = len(pairs) + count
        for _ in range(100 * count):
            chosen = {slot: next(decks[slot[0]]) for slot in slots}
            contexts, endings = _pair(line, chosen)
            sentences = {f"{context} {ending}" for context, ending in zip(contexts, endings, strict=True)}
            digits = {sum(character.isdigit() for character in ending) for ending in endings}
            rows = {id(row) for row in chosen.values()}  # a round can end between the rows of one pair
            if (
                len(rows) == len(slots)
                and len(set(contexts)) == len(set(endings)) == 2
                and len(digits) == 1
                and not sentences & seen
            ):
                pairs.append((template, contexts, endings))
                seen |= sentences
            if len(pairs) == wanted:
                break
        else:
            raise ValueError(f"{group}: the line {line!r} gives fewer than {count} different pairs")
    order = torch.randperm(len(pairs), generator=generator("suite", group)).tolist()
    return [
        {
            "pair": number,
            "template": pairs[index][0],
            "context": pairs[index][1][answer],
            "choices": pairs[index][2],
            "answer": answer,
        }
        for number, index in enumerate(order)
        for answer in (0, 1)
    ]


def as_jsonl(items: Sequence[dict]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def items(groups: Sequence[str] = GROUPS) -> list[dict]:
    """Return the shipped items of `groups` in order, each with its `group`. Raises ValueError for an unknown group."""
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"group={group!r} is unknown; choose from {', '.join(GROUPS)}")
    return [
        {"group": group, **json.loads(line)}
        for group in groups
        for line in (TASKS / f"{group}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def sample(count: int) -> list[dict]:
    """Return about `count` items, whole pairs, the first of every group: its share of all items, 2 pairs at least.

    Items lie in a shuffled order, so the first are a draw. Raises ValueError for fewer than 24 items.
    """
    if count < 4 * len(GROUPS):
        raise ValueError(
            f"items={count} must be at least {4 * len(GROUPS)}: two pairs of each group, else there is no interval"
        )
    every = items()
    chosen = []
    for group in GROUPS:
        own = [item for item in every if item["group"] == group]
        chosen += own[: 2 * max(2, round(len(own) * min(count, len(every)) / len(every) / 2))]
    return chosen


def dataset(group: str, **_: object):
    """Return a group as lm-evaluation-harness wants it, a datasets.DatasetDict: `custom_dataset` of the task files.

    A function rather than a path, because `datasets` reads relative paths from the working directory.
    """
    from datasets import load_dataset

    return load_dataset("json", data_files={SPLIT: str(TASKS / f"{group}.jsonl")})


# how a model answers


def _noise(endings: Sequence[torch.Tensor], draws: int, rng: torch.Generator) -> list[torch.Tensor]:
    """Return which tokens of each ending are masked, one bool (S, L) each: the same noise where the endings agree.

    The number of masks is uniform on 1 … L and stratified over the draws. Tokens that both endings start or end with
    share their random numbers, and so do noise levels.
    """
    shortest, longest = sorted(len(ending) for ending in endings)
    first, second = (ending.flip(0)[:shortest] for ending in endings)
    tail = int((first == second).long().cumprod(0).sum())
    state = rng.get_state()
    rank_SL = torch.rand(draws, longest, generator=rng, dtype=torch.float64)
    masks = []
    for ending in endings:
        rng.set_state(state)
        counts_S = stratified_counts(draws, len(ending), rng)
        own_SL = torch.cat([rank_SL[:, : len(ending) - tail], rank_SL[:, longest - tail :]], dim=1)
        masks.append(own_SL.argsort(1).argsort(1) < counts_S[:, None])
    return masks


@torch.inference_mode()
def accuracy(
    lm: LanguageModel,
    items: Sequence[dict],
    draws: int = 16,
    seed: int = 0,
    batch: int = 64,
    progress: bool = False,
) -> pd.DataFrame:
    """Let `lm` choose the more likely ending of every item; one row per item, in order.

    Columns: `group`, `pair`, `template`, `correct` and `margin` (nats: log-likelihood of the right ending minus that of
    the wrong one, summed over tokens), `correct_mean` and `margin_mean` (nats per token, each ending over its own
    length). Exact for an autoregressive model. For a diffusion model the lower bound, estimated from `draws` maskings of
    the ending alone, on common random numbers for both endings; noise depends on (seed, group, pair) alone.
    """
    rows, tokens = [], torch.zeros(len(items), 2, dtype=torch.float64)
    for number, item in enumerate(items):
        start = len(lm.encode(item["context"]))
        ids = [lm.encode(f"{item['context']} {choice}") for choice in item["choices"]]
        tokens[number] = torch.tensor([len(ids_T) - start for ids_T in ids])
        masks = [torch.ones(1, len(ids_T) - start, dtype=torch.bool) for ids_T in ids]
        if lm.is_diffusion:
            masks = _noise(
                [ids_T[start:] for ids_T in ids], draws, generator(seed, "suite", item["group"], item["pair"])
            )
        for choice, (ids_T, mask_SL) in enumerate(zip(ids, masks, strict=True)):
            for mask_L in mask_SL:
                where_T = torch.cat([torch.zeros(start, dtype=torch.bool), mask_L])
                rows.append(
                    (
                        (number, choice),
                        corrupt(ids_T, where_T, lm.mask_token_id) if lm.is_diffusion else ids_T,
                        ids_T,
                        where_T,
                        len(mask_SL),
                    )
                )
    rows.sort(key=lambda row: len(row[1]))  # only sequences of one length share a batch: no padding
    score = torch.zeros_like(tokens)  # nats per token
    for part in tqdm(
        list(_batches(rows, batch)), desc=f"suite {lm.name}", unit="batch", disable=not progress, leave=False
    ):
        input_BT, target_BT, where_BT = (torch.stack([row[column] for row in part]) for column in (1, 2, 3))
        log_p_N = (
            -torch.nn.functional.cross_entropy(
                lm.logits_at(input_BT, where_BT), target_BT[where_BT].to(lm.device), reduction="none"
            )
            .double()
            .cpu()
        )
        for row, value_L in zip(part, log_p_N.split(where_BT.sum(1).tolist()), strict=True):
            score[row[0]] += value_L.mean() / row[4]
    frame = pd.DataFrame({key: [item[key] for item in items] for key in ("group", "pair", "template")})
    right = torch.tensor([item["answer"] for item in items])[:, None]
    for suffix, value in (("", score * tokens), ("_mean", score)):
        frame[f"margin{suffix}"] = (value.gather(1, right) - value.gather(1, 1 - right))[:, 0].numpy()
        frame[f"correct{suffix}"] = frame[f"margin{suffix}"] > 0
    return frame


def _batches(rows: list[tuple], batch: int) -> Iterator[list[tuple]]:
    """Yield at most `batch` neighbours of equal length."""
    while rows:
        part = [row for row in rows[:batch] if len(row[2]) == len(rows[0][2])]
        yield part
        rows = rows[len(part) :]


def matched(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair: does the context decide? Columns as in `accuracy`.

    `margin` sums those of the two items, in which each ending is right once: whatever an ending is worth by itself
    cancels, and `correct` says that right and wrong are told apart by their contexts. Chance is one half, as for items.
    Raises ValueError when an item lacks its other half.
    """
    pairs = frame.groupby(["group", "pair"], sort=False)
    if (pairs.size() != 2).any():
        raise ValueError(
            f"{int((pairs.size() != 2).sum())} pairs are not complete: matching needs both items of each"
        )
    table = pairs.agg(
        template=("template", "first"), margin=("margin", "sum"), margin_mean=("margin_mean", "sum")
    ).reset_index()
    return table.assign(correct=table.margin > 0, correct_mean=table.margin_mean > 0)


def by_group(frame: pd.DataFrame, column: str = "correct", seed: int = 0) -> dict[str, Estimate]:
    """Return the share of right answers of every group and of all, with 95 % bootstrap intervals over pairs of items.

    Takes the table of `accuracy` or of `matched`.
    """
    shares = (
        frame.assign(value=frame[column].astype(float)).groupby(["group", "pair"], sort=False).value.mean()
    )
    return {
        **{group: interval(part.to_numpy(), seed) for group, part in shares.groupby(level=0, sort=False)},
        "all": interval(shares.to_numpy(), seed),
    }


def main(arguments: list[str] | None = None) -> None:
    """`python -m sinkprune_core.evaluation.suite build` writes the item files anew from `tasks/sources`."""
    parser = argparse.ArgumentParser(
        prog="python -m sinkprune_core.evaluation.suite", description=main.__doc__
    )
    parser.add_argument("command", choices=["build"])
    parser.parse_args(arguments)
    for group in GROUPS:
        built = build(group)
        with atomic(TASKS / f"{group}.jsonl") as partial:
            partial.write_text(as_jsonl(built), encoding="utf-8")
        print(f"{group}: {len(built)} items")


if __name__ == "__main__":
    main()
