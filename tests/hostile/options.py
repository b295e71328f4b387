"""Options without effect: every option of every command on a model, on lines of every kind.

An option is given another value than it has by default, and the command runs: its numbers are others then,
or the option is refused in one sentence. What is only repeated is no effect: a recipe on a card, say.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from hostile.cases import LEARN, TEXT
from hostile.tally import BROKE, HELD, REFUSED, Tally, is_one_sentence
from random_models.cases import CASES
from random_models.writing import write
from safetensors.torch import load_file

from sinkprune.cli.main import main
from sinkprune_core.pruning.recipe import preset

# lines of every kind that a command has, by the command

TEXTS = "--text text.txt --sequences 6 --dtype float32"
SMALL = f"{TEXTS} --length 12 --out out"
NO_GROUPS = "--set ignore=mlp.down_proj"  # whose 45 inputs fall into no groups of 4
TRAINED = "--steps 2 --text learn.txt --length 12 --batch 2 --out out --teacher"
LINES = {
    "prune": {
        "wanda": f"prune llada --preset wanda {SMALL}",
        "wanda, autoregressive": f"prune base --preset wanda {SMALL}",
        "sparsegpt": f"prune llada --preset sparsegpt {SMALL}",
        "sparsegpt, dense": f"prune llada --preset sparsegpt --set propagation=dense {SMALL}",
        "unstable": f"prune llada --preset unstable {SMALL}",
        "all sinks, autoregressive": f"prune base --preset wanda --set exclude=all {SMALL}",
        "paper": f"prune llada --preset paper {SMALL}",
        "owl": f"prune llada --preset wanda --set allocation=owl {SMALL}",
        "structured": f"prune llada --preset structured {SMALL}",
        "flap": f"prune llada --preset flap {SMALL}",
        "2:4": f"prune llada --preset wanda --pattern 2:4 {NO_GROUPS} {SMALL}",
        "pruned before": f"prune pruned --preset wanda --pattern 1:4 {NO_GROUPS} {SMALL}",
    },
    "trace": {
        "diffusion": f"trace llada {TEXTS} --prompt 6 --tokens 8 --steps 4 --json out",
        "autoregressive": f"trace base {TEXTS} --prompt 6 --tokens 8 --steps 4 --json out",
        "warm": f"trace llada {TEXTS} --prompt 6 --tokens 8 --steps 4 --temperature 0.8 --json out",
    },
    "evaluate": {
        "diffusion": f"evaluate llada {TEXTS} --length 12 --draws 2 --json out",
        "autoregressive": f"evaluate base {TEXTS} --length 12 --json out",
        "suite": "evaluate llada --tasks suite --limit 2 --draws 2 --dtype float32 --json out",
        "suite, autoregressive": "evaluate base --tasks suite --limit 2 --dtype float32 --json out",
    },
    "generate": {
        "cold": "generate llada --prompt word21 --tokens 8 --dtype float32",
        "warm": "generate llada --prompt word21 --tokens 8 --temperature 0.9 --dtype float32",
        "autoregressive, cold": "generate base --prompt word21 --tokens 8 --dtype float32",
        "autoregressive, warm": "generate base --prompt word21 --tokens 8 --temperature 0.9 --dtype float32",
    },
    "compare": {
        "diffusion": f"compare llada pruned {TEXTS} --length 12 --draws 2 --json out",
        "autoregressive": f"compare base base-pruned {TEXTS} --length 12 --json out",
        "suite": f"compare llada pruned {TEXTS} --length 12 --draws 2 --tasks suite --limit 2 --json out",
    },
    "diagnose": {
        "diffusion": f"diagnose llada {TEXTS} --length 12 --json out",
        "autoregressive": f"diagnose base {TEXTS} --length 12 --json out",
    },
    "recover": {
        "full": f"recover pruned {TRAINED} none",
        "a teacher": f"recover pruned {TRAINED} llada",
        "lora": f"recover pruned --method lora --rank 2 {TRAINED} none",
        "autoregressive": f"recover base-pruned {TRAINED} none",
    },
    "train": {  # 25 steps: the learning rate rises over 20 of them
        "diffusion": "train base --text learn.txt --tokens 400 --lengths 8 --batch-tokens 16 --rank 2 "
        "--mask-token 71 --folder run --export out --dtype float32",
        "autoregressive": "train base --kind autoregressive --text learn.txt --tokens 400 --lengths 8 "
        "--batch-tokens 16 --rank 2 --folder run --export out --dtype float32",
    },
}

SHARED = ("--seed 7", "--data data", "--split train", "--text other.txt")
OTHERS = {
    "prune": (
        *SHARED,
        "--sequences 3",
        "--length 10",
        "--sparsity 0.7",
        "--pattern layer",
        "--pattern global",
        "--pattern 1:4",
        "--criterion magnitude",
        "--masked",
        "--set noise=half-clean",
        "--set noise=stratified",
        "--set noise=official",
        "--set noise_levels=3",
        "--set inputs=noised",
        "--set propagation=dense",
        "--set propagation=sequential",
        "--set exclude=official",
        "--set exclude=random",
        "--set exclude=only",
        "--set norm_reduction=sum",
        "--set sink_std=0.5",
        "--set alpha=0.5",
        "--set stability_threshold=0.1",
        "--set allocation=linear",
        "--set owl_lambda=0.02",
        "--set owl_m=2",
        "--set damping=0.5",
        "--set block_size=4",
        "--set compensate=true",
        "--set round_to=4",
        "--set keep_zeros=true",
        "--set targets=mlp.*",
        "--set ignore=mlp.*",
        "--set sparsities=[0.2,0.8]",
    ),
    "trace": (
        *SHARED,
        "--sequences 3",
        "--prompt 9",
        "--tokens 16",
        "--steps 2",
        "--block 4",
        "--temperature 0.5",
    ),
    "evaluate": (
        *SHARED,
        "--sequences 3",
        "--length 9",
        "--draws 3",
        "--limit 1",
        "--limit 3",
        "--family dream",
        "--include-path tasks",
        "--protocol ppl_llada",
        "--tasks suite",
    ),
    "generate": ("--seed 7", "--tokens 5", "--steps 3", "--temperature 0.5", "--prompt word22"),
    "compare": (*SHARED, "--sequences 3", "--length 9", "--draws 3", "--margin 0.5", "--limit 1"),
    "diagnose": (
        *SHARED,
        "--sequences 4",
        "--length 9",
        "--sparsity 0.7",
        "--noise-levels 3",
        "--sinks official",
    ),
    "recover": (
        "--seed 7",
        "--tokens 48",
        "--steps 3",
        "--text other.txt",
        "--data data",
        "--teacher base",
        "--distillation 0.5",
        "--method lora",
        "--rank 3",
        "--learning-rate 0.01",
        "--batch 3",
        "--length 9",
    ),
    "train": (
        "--seed 7",
        "--tokens 96",
        "--lengths 4",
        "--batch-tokens 32",
        "--rank 3",
        "--learning-rate 0.1",
        "--kind autoregressive",
        "--decay-share 0.9",
        "--mask-token 40",  # one that the text spells
        "--text other.txt",
        "--from-scratch",
    ),
}  # what each of the lines is given besides, in the place of a value that it has
GROUP = "options of {}"  # a command
GROUPS = tuple(GROUP.format(command) for command in LINES)
TOLD = re.compile(r"\d+(\.\d+)? s\b")  # seconds


@dataclass(frozen=True)
class Found:
    """How a command ended."""

    status: int
    said: str
    numbers: object  # what it computed


class Commands:
    """Runs commands in this process, in a folder with tiny models and texts."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        write(CASES["llada"], folder / "llada")
        write(CASES["llama"], folder / "base")
        (folder / "text.txt").write_text(TEXT)
        (folder / "learn.txt").write_text(LEARN)
        (folder / "other.txt").write_text(LEARN.replace("word2", "word3"))
        data = folder / "data"
        data.mkdir()
        for split in ("train", "valid", "test"):
            (data / f"wiki.{split}.raw").write_text(f" = {split} = \n\n {TEXT} \n")
        (folder / "tasks").mkdir()
        (folder / "tasks" / "own.yaml").write_text("task: own\n")
        for model, pruned in (("llada", "pruned"), ("base", "base-pruned")):
            found = self.run(f"prune {model} --preset wanda {TEXTS} --length 12 --out {pruned}", keep=pruned)
            assert found.status == 0, found.said

    def run(self, line: str, keep: str = "") -> Found:
        """Run a command line; what it has written is removed but for `keep`."""
        said = io.StringIO()
        told = io.StringIO()
        former = Path.cwd()
        os.chdir(self.folder)
        try:
            with (
                contextlib.redirect_stdout(told),
                contextlib.redirect_stderr(said),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                status = main(line.split())
            return Found(status, said.getvalue(), self._numbers(line, told.getvalue()))
        finally:
            os.chdir(former)
            for name in ("out", "out.work", "run"):
                if name != keep:
                    self._remove(self.folder / name)

    def _remove(self, path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _numbers(self, line: str, told: str) -> object:
        """Return what a command has computed: weights and zeros, the numbers of a table, or a text."""
        out = self.folder / "out"
        if out.is_dir():
            weights = [_weights(file) for file in sorted(out.glob("*.safetensors"))]
            zeros = [pd.read_csv(file).zeros.tolist() for file in out.glob("sinkprune-linears.csv")]
            return weights, zeros
        if out.is_file():
            return json.loads(out.read_text())
        return TOLD.sub("", told)


def _weights(file: Path) -> str:
    """Return a digest of the tensors in a file, without what it says of them besides: a recipe, say."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def with_option(line: str, option: str) -> str:
    """Return a command line with an option in the place of its former value, or besides."""
    words = line.split()
    name, *value = option.split()
    field = value[0].partition("=")[0] if name == "--set" else ""
    for place, word in enumerate(words):
        is_same = word == name and (not field or words[place + 1].startswith(f"{field}="))
        if is_same:
            return " ".join([*words[:place], *option.split(), *words[place + 1 + len(value) :]])
    return f"{line} {option}"


def lines(command: str) -> Iterator[tuple[str, str, str]]:
    """Yield (kind of the line, the line without an option, the option)."""
    for kind, line in LINES[command].items():
        for option in OTHERS[command]:
            is_same = with_option(line, option) == line or states_what_is(line, option)
            if not is_same and not cannot_matter(line, option):
                yield kind, line, option


def cannot_matter(line: str, option: str) -> bool:
    """Return whether an option has an effect on other models only than that of a line.

    Zeros of an earlier pruning are kept where there are some.
    """
    return option == "--set keep_zeros=true" and not line.startswith("prune pruned ")


def states_what_is(line: str, option: str) -> bool:
    """Return whether an option gives a field of a recipe the value that it has anyway."""
    words = line.split()
    if not option.startswith(("--set", "--pattern")) or "--preset" not in words:
        return False
    field, text = re.split(r"[ =]", option.removeprefix("--set ").removeprefix("--"))
    fields = asdict(preset(words[words.index("--preset") + 1]))
    is_stated = f"{field}=" in line or f"--{field} " in line
    return not is_stated and str(fields[field]).lower() == text


def run(tally: Tally, root: Path, command: str, every: int = 1) -> None:
    """Judge every `every`-th case of a command."""
    commands = Commands(root / "commands")
    known: dict[str, Found] = {}
    for number, (kind, line, option) in enumerate(lines(command)):
        if number % every:
            continue
        if line not in known:
            known[line] = commands.run(line)
        other = with_option(line, option)
        verdict, how = judge(option, known[line], commands.run(other))
        tally.add(GROUP.format(command), f"{kind}: {other}", verdict, how)


def name_of(option: str) -> str:
    """Return the name that a refusal of an option has to give: its own, or that of the field it sets."""
    name, *value = option.split()
    if name == "--mask-token":
        return "mask"  # which a text must not hold
    return value[0].partition("=")[0] if name == "--set" else name.removeprefix("--")


def judge(option: str, plain: Found, found: Found) -> tuple[str, str]:
    """Return the verdict on a line with an option that a plain one has not, and how it broke."""
    if plain.status != 0:
        return BROKE, f"the plain line: {plain.said[-200:]}"
    if found.status == 0:
        return (HELD, "") if found.numbers != plain.numbers else (BROKE, "the option did nothing")
    if found.status != 1 or not is_one_sentence(found.said):
        return BROKE, f"status {found.status}: {found.said[-200:]}"
    error = found.said.splitlines()[-1].replace("_", "-")
    is_named = name_of(option).replace("_", "-") in error
    return (REFUSED, "") if is_named else (BROKE, f"refused, and not for this option: {error[-200:]}")
