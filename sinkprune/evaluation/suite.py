"""The offline suite, this project's own two-choice items, which `tools/suite_builder.py` makes, and tables of
answers. Two items in a row are a pair with the same two endings, each right in one of them: whatever judges
endings alone is right in exactly half of all items.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from scipy import stats

from sinkprune.corpus import separator
from sinkprune.evaluation.intervals import interval
from sinkprune.files import DATA, json_of, read_text
from sinkprune_core.values import check_choice

TASKS = DATA / "tasks"  # `lm_eval --include_path` takes this folder
GROUPS = ("grammar", "reference", "physical", "facts", "arithmetic", "stories")
NAME = "sinkprune_suite"  # of the group of all tasks in lm-evaluation-harness; its tasks are NAME_group


# items


def items(groups: Sequence[str] = GROUPS, limit: int | None = None) -> list[dict]:
    """Return the shipped items of `groups` in order, each with its `group`, or the first `limit` of each.

    Raises ValueError for an unknown group.
    """
    chosen = []
    for group in groups:
        check_choice("group", group, GROUPS)
        lines = read_text(TASKS / f"{group}.jsonl").splitlines()
        chosen += [{"group": group, **json_of(line)} for line in lines[:limit]]

    return chosen


def sample(count: int) -> list[dict]:
    """Return about `count` items, the first pairs of every group by its share of all, at least 2 of each.

    Items lie in a shuffled order, so these are a random draw. Raises ValueError for fewer than 24 items.
    """
    least = 4 * len(GROUPS)
    if count < least:
        raise ValueError(f"items={count} must be at least {least}: two pairs of each group, for an interval")

    by_group = [items([group]) for group in GROUPS]
    total = sum(map(len, by_group))

    chosen = []
    for of_group in by_group:
        share = len(of_group) * min(count, total) / total
        chosen += of_group[: 2 * max(2, round(share / 2))]

    return chosen


def minimal_pairs(tokenizer, paradigms: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict]:
    """Return items that ask to tell `sentence_good` from `sentence_bad`, a group per paradigm: whole
    sentences, after the separator of documents.
    """
    start = tokenizer.decode([separator(tokenizer)])
    made = []
    for group, pairs in paradigms.items():
        for number, pair in enumerate(pairs):
            choices = [pair["sentence_good"], pair["sentence_bad"]]
            item = {"group": group, "pair": number, "template": 0, "context": start}
            made.append({**item, "choices": choices, "answer": 0})

    return made


def dataset(group: str, **_: object):
    """Return a group as a datasets.DatasetDict; task files name this function, as `datasets` reads relative
    paths from the working directory.
    """
    from datasets import load_dataset

    return load_dataset("json", data_files={"test": str(TASKS / f"{group}.jsonl")})


def groups_of(task: str) -> tuple[str, ...]:
    """Return the groups that a task's name stands for: `suite`, NAME or NAME_group; none for other tasks."""
    if task in ("suite", NAME):
        return GROUPS
    return tuple(group for group in GROUPS if task == f"{NAME}_{group}")


# tables of answers


def by_template(answers: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of `two_choice.accuracy` by template, whose items vary together.

    The mean is that of all items: each value is that plus its own items' summed distances from it, times the
    number of templates by that of items.
    """
    mean = cast(float, answers[column].mean())
    distances = answers[column] - mean
    of_template = pd.Series(distances.groupby([answers.group, answers.template], sort=False).sum())
    return mean + of_template * len(of_template) / len(answers)


def shares(frame: pd.DataFrame, draws: int | None = None) -> pd.DataFrame:
    """Return the shares of right answers by group and, of several groups, of all; two rows each.

    Takes the table of `two_choice.accuracy`. Columns: `task` and `metric` (names in lm-evaluation-harness:
    `acc` sums over tokens, `acc_norm` takes the mean), `filter` (`none`), `value`, `low` and `high` (95 % t
    interval over templates, NaN for a single one; what draws add is in it), `error_draws` (standard
    error over other draws on the same items, overstated as those of margins are, which are taken as normal; 0
    where nothing was drawn, NaN for a single draw), `documents` and `draws` (NaN where the model is exact).
    """
    parts = {f"{NAME}_{name}": part for name, part in frame.groupby("group", sort=False)}
    if len(parts) > 1:
        parts[NAME] = frame

    rows = []
    for task, part in parts.items():
        for metric, ending in (("acc", ""), ("acc_norm", "_mean")):
            units = by_template(part, f"correct{ending}")
            mean = interval(units) if len(units) > 1 else None
            drawn = part[part[f"error{ending}"] != 0]
            right = stats.norm.cdf(drawn[f"margin{ending}"] / drawn[f"error{ending}"])
            low, high = (mean.low, mean.high) if mean else (math.nan, math.nan)
            value = mean.value if mean else units.item()
            row = {"task": task, "metric": metric, "filter": "none", "value": value, "low": low, "high": high}
            row["error_draws"] = float(np.sqrt((right * (1 - right)).sum()) / len(part))
            row |= {"documents": len(part), "draws": math.nan if draws is None else draws}
            rows.append(row)

    return pd.DataFrame(rows)
