"""Tasks of lm-evaluation-harness in small, one of each kind, on made-up text."""

import json
from pathlib import Path

import torch
import yaml

WORDS = [f"word{index}" for index in range(27, 72)]


def words(count: int, seed: int) -> str:
    places = torch.randint(len(WORDS), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(WORDS[place] for place in places)


def document(number: int) -> dict:
    choices = [words(1 + (number + choice) % 3, 100 * number + choice) for choice in range(3)]
    return {
        "text": words(3 + number % 4, number),
        "choices": choices,
        "answer": number % 3,
        "long": words(30 + 25 * number, number + 7),
    }


DOCS = [document(number) for number in range(6)]


def mean(metric: str) -> dict:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [mean("acc"), mean("acc_norm")],
    },
    "tiny_last": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            mean("acc"),
        ],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{long}}",
        "metric_list": [
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}
        ],
    },
    "tiny_write": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["word30", "<|im_end|>"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [mean("exact_match")],
    },
}
GROUP = {
    "group": "tiny_pair",
    "task": ["tiny_choice", "tiny_last"],
    "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
}


def write_tasks(folder: Path) -> None:
    """Write the files of the tasks, of a group of two of them, and of their data."""
    docs = folder / "docs.jsonl"
    docs.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))

    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(docs)}},
        "test_split": "test",
        "fewshot_split": "test",
        "metadata": {"version": 1.0},
    }

    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **data, **task}))
    (folder / "pair.yaml").write_text(yaml.safe_dump(GROUP))
